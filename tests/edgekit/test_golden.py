"""Golden inputs on the engines that a machine has."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest

from edgekit.cli.app import run
from edgekit.golden import verify_bundle
from edgekit_runtime import engines
from edgekit_runtime.errors import EngineMissing
from edgekit_runtime.testing import make_bundle, matmul_onnx

pytest.importorskip("onnxruntime")


@pytest.fixture
def both(tmp_path: Path) -> Path:
    """A bundle with a graph of each format and golden answers."""
    weights = np.ones((4, 3), np.float32)
    files = {}
    for name, array in (("inputs", {"x": np.ones((1, 4), np.float32)}), ("onnx.fp32", {"y": np.full((1, 3), 4.0)})):
        held = io.BytesIO()
        np.savez(held, **{key: value.astype(np.float32) for key, value in array.items()})
        files[f"golden/{name}.npz"] = held.getvalue()
    graphs = {"onnx.fp32": matmul_onnx(weights), "tflite.fp32": b"\0" * 64}
    return make_bundle(tmp_path / "both.edge", graphs=graphs, files=files, weights=weights)


def without(monkeypatch: pytest.MonkeyPatch, *names: str) -> None:
    rows = {name: ("edgekit_no_such_package", *row[1:]) for name, row in engines.TABLE.items() if name in names}
    monkeypatch.setattr(engines, "TABLE", {**engines.TABLE, **rows})
    monkeypatch.setattr(engines, "_loaded", {})


def test_a_format_without_an_engine_is_skipped_and_no_failure(both: Path, monkeypatch, capsys) -> None:
    without(monkeypatch, "litert", "tflite-runtime")
    found = {check.name: check for check in verify_bundle(both)}
    assert found["onnx.fp32 on onnxruntime"].ok and not found["onnx.fp32 on onnxruntime"].skipped
    assert found["tflite.fp32"].skipped and "pip install 'edgekit[litert]'" in found["tflite.fp32"].detail
    assert run(["verify", str(both)]) == 0
    assert "skipped tflite.fp32: no engine here for tflite" in capsys.readouterr().out


def test_where_nothing_can_be_run_nothing_is_proven(both: Path, monkeypatch) -> None:
    without(monkeypatch, "onnxruntime", "litert", "tflite-runtime")
    with pytest.raises(EngineMissing, match="no installed engine runs onnx or tflite"):
        verify_bundle(both)
    assert run(["verify", str(both)]) == 3
