"""Sums over rows, in every form in which people write them, run in TFLite as one SCATTER_ND."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from edgekit_converters.tflite import flatbuffer as fb
from edgekit_converters.tflite.converter import TfliteConverter
from edgekit_converters.tflite.torch_passes.mark_scatter import mark_scatter
from edgekit_runtime.session import open as open_session
from tests.converters.tflite.students import capture, nothing

Sum = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]
NODES, WIDTH = 5, 4


def index_add(messages: torch.Tensor, to: torch.Tensor) -> torch.Tensor:
    return torch.zeros(NODES, WIDTH).index_add(0, to, messages)


def in_place(messages: torch.Tensor, to: torch.Tensor) -> torch.Tensor:
    total = torch.ones(NODES, WIDTH)
    total.index_add_(0, to, messages)
    return total * 2.0


def scatter_add(messages: torch.Tensor, to: torch.Tensor) -> torch.Tensor:
    return torch.zeros(NODES, WIDTH).scatter_add(0, to[:, None].expand(-1, WIDTH), messages)


def index_put(messages: torch.Tensor, to: torch.Tensor) -> torch.Tensor:
    return torch.zeros(NODES, WIDTH).index_put((to,), messages, accumulate=True)


def one_column(messages: torch.Tensor, to: torch.Tensor) -> torch.Tensor:
    return torch.ones(NODES).scatter_add(0, to, messages[:, 0])


class Summing(nn.Module):
    def __init__(self, form: Sum) -> None:
        super().__init__()
        self.form = form

    def forward(self, messages: torch.Tensor, to: torch.Tensor) -> torch.Tensor:
        return self.form(messages, to) + 1.0


def inputs(seed: int = 0) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    return {"messages": rng.standard_normal((9, WIDTH)).astype(np.float32), "to": rng.integers(0, NODES, 9)}


@pytest.mark.parametrize("form", [index_add, in_place, scatter_add, index_put, one_column])
def test_rows_that_meet_are_added_up(form: Sum, tmp_path: Path) -> None:
    student = capture(Summing(form), inputs())
    draft = TfliteConverter().export(student, tmp_path, nothing)
    model = fb.read(draft.path)
    kinds = [kind for kind, _ in fb.operators(model, model.subgraphs[0])]
    assert kinds.count("SCATTER_ND") == 1
    assert "STABLEHLO_COMPOSITE" not in kinds
    given = inputs(seed=1)
    with open_session(draft.path) as session:
        answer = session.run({**given, "to": given["to"].astype(np.int32)})["output"]
    np.testing.assert_allclose(answer, student.reference(given)["output"], atol=1e-6)


def marked(form: Sum) -> int:
    program = torch.export.export(Summing(form), tuple(map(torch.from_numpy, inputs().values())))
    return mark_scatter(program.module())


def test_an_index_for_every_value_and_another_axis_are_left_alone() -> None:
    def every_value(messages: torch.Tensor, to: torch.Tensor) -> torch.Tensor:
        return torch.zeros(NODES, WIDTH).scatter_add(0, (to[:, None] + torch.arange(WIDTH)) % NODES, messages)

    def columns(messages: torch.Tensor, to: torch.Tensor) -> torch.Tensor:
        return torch.zeros(WIDTH, NODES).index_add(1, to, messages.T)

    assert marked(every_value) == marked(columns) == 0
