from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from edgekit_runtime.testing import make_bundle, matmul_onnx


@pytest.fixture
def tiny(tmp_path: Path) -> Path:
    """A bundle with two graphs that are the same."""
    pytest.importorskip("onnxruntime")
    weights = np.ones((64, 8), np.float32)
    data = matmul_onnx(weights)
    return make_bundle(tmp_path / "tiny.edge", graphs={"onnx.fp32": data, "onnx.int8": data}, weights=weights)
