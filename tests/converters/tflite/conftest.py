"""Each tiny student captured once, and converted to fp32 once."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from edgekit_converters.captured import Arrays, Captured
from edgekit_converters.draft import Draft
from edgekit_converters.tflite.converter import TfliteConverter
from tests.converters.tflite.students import BATCH, BiLstm, Encoder, Residual, TextCnn, capture, length, nothing


@pytest.fixture(scope="session")
def residual() -> Captured:
    torch.manual_seed(0)
    example = {"image": np.random.default_rng(0).standard_normal((2, 3, 16, 16)).astype(np.float32)}
    return capture(Residual(), example, (BATCH,), {"image": ("B", 3, 16, 16)})


@pytest.fixture(scope="session")
def images() -> list[Arrays]:
    rng = np.random.default_rng(1)
    return [{"image": rng.standard_normal((1, 3, 16, 16)).astype(np.float32)} for _ in range(16)]


@pytest.fixture(scope="session")
def text_cnn() -> Captured:
    torch.manual_seed(0)
    return capture(TextCnn(), {"ids": np.ones((2, 9), np.int64)}, (BATCH, length()), {"ids": ("B", "T")})


@pytest.fixture(scope="session")
def encoder() -> Captured:
    torch.manual_seed(0)
    example = {"ids": np.ones((2, 9), np.int64), "mask": np.ones((2, 9), np.int64)}
    return capture(Encoder(), example, (BATCH, length()), {"ids": ("B", "T"), "mask": ("B", "T")})


@pytest.fixture(scope="session")
def bilstm() -> Captured:
    torch.manual_seed(0)
    return capture(BiLstm(), {"ids": np.ones((2, 9), np.int64)}, (BATCH, length()), {"ids": ("B", "T")})


@pytest.fixture(scope="session")
def converted(
    tmp_path_factory: pytest.TempPathFactory,
    residual: Captured,
    text_cnn: Captured,
    encoder: Captured,
    bilstm: Captured,
) -> dict[str, Draft]:
    """The fp32 draft of each student, converted once."""
    students = {"residual": residual, "text_cnn": text_cnn, "encoder": encoder, "bilstm": bilstm}
    return {
        name: TfliteConverter().export(student, tmp_path_factory.mktemp(name), nothing)
        for name, student in students.items()
    }
