"""`edgekit verify` on a machine that has some of the engines."""

from __future__ import annotations

import io
import json
from pathlib import Path

import numpy as np
import pytest

from edgekit.cli.app import run
from edgekit_runtime import engines
from edgekit_runtime.testing import make_bundle, matmul_onnx

pytest.importorskip("onnxruntime", reason="ONNX Runtime is not installed: pip install 'edgekit[onnxruntime]'")

W = np.arange(12, dtype=np.float32).reshape(4, 3)
X = np.ones((1, 4), np.float32)


def _npz(**arrays: np.ndarray) -> bytes:
    file = io.BytesIO()
    np.savez(file, **arrays)
    return file.getvalue()


def _bundle(folder: Path, answer: np.ndarray) -> Path:
    golden = {f"golden/{graph}.npz": _npz(y=answer) for graph in ("onnx.fp32", "tflite.fp32")}
    graphs = {"onnx.fp32": matmul_onnx(W), "tflite.fp32": b"of an engine that is not here"}
    return make_bundle(folder, graphs=graphs, files={"golden/inputs.npz": _npz(x=X), **golden})


def _verified(bundle: Path, capsys) -> tuple[int, dict[str, dict]]:
    code = run(["verify", str(bundle), "--json"])
    document = json.loads(capsys.readouterr().out)
    assert document["ok"] is (code == 0)
    return code, {check["name"]: check for check in document["checks"]}


@pytest.fixture
def without(monkeypatch):
    def forget(*formats: str) -> None:
        every = engines.for_format
        monkeypatch.setattr(engines, "for_format", lambda name: () if name in formats else every(name))

    return forget


def test_a_format_without_an_engine_is_told_and_is_no_failure_beside_one_that_ran(tmp_path, capsys, without) -> None:
    without("tflite")
    bundle = _bundle(tmp_path / "tiny.edge", X @ W)
    code, checks = _verified(bundle, capsys)
    assert code == 0 and checks["onnx.fp32 on onnxruntime"]["ok"]
    skipped = checks["tflite.fp32"]
    assert not skipped["checked"] and "pip install" in skipped["detail"]
    assert run(["verify", str(bundle)]) == 0
    assert "-      tflite.fp32: no engine for tflite" in capsys.readouterr().out


def test_a_wrong_answer_still_fails_and_so_does_a_machine_that_can_run_nothing(tmp_path, capsys, without) -> None:
    without("tflite")
    assert _verified(_bundle(tmp_path / "wrong.edge", X @ W + 1), capsys)[0] == 4
    without("onnx", "tflite")
    code, checks = _verified(_bundle(tmp_path / "tiny.edge", X @ W), capsys)
    assert code == 4 and not any(check["checked"] for name, check in checks.items() if name != "files")
