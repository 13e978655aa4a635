"""The engine of NVIDIA cards: its code paths on the CPU, as there is no card here."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from edgekit_runtime import engines
from edgekit_runtime.engines.gpu import OnnxRuntimeGpu, check_kinds
from edgekit_runtime.engines.onnx_bytes import operator_types
from edgekit_runtime.errors import EngineMissing, Refused
from edgekit_runtime.testing import matmul_onnx

onnxruntime = pytest.importorskip("onnxruntime")
DATA = Path(__file__).parents[4] / "shared" / "data" / "models"
CARD = "CUDAExecutionProvider" in onnxruntime.get_available_providers()


class OnTheCpu(OnnxRuntimeGpu):
    """The same engine with the CPU in place of the card."""

    provider = "CPUExecutionProvider"


@pytest.fixture
def graph(tmp_path: Path) -> Path:
    path = tmp_path / "net.onnx"
    path.write_bytes(matmul_onnx(np.eye(4, dtype=np.float32)))
    return path


def test_the_engine_is_known_by_name_and_never_chosen_unasked():
    assert "onnxruntime-gpu" in engines.names()
    assert "onnxruntime-gpu" not in engines.available()
    assert "onnxruntime-gpu" not in engines.for_format("onnx")
    assert engines.formats("onnxruntime-gpu") == ("onnx",)


def test_without_the_provider_the_person_is_told_what_to_install():
    if CARD:
        pytest.skip("this onnxruntime has the CUDA provider")
    with pytest.raises(EngineMissing, match=r"no CUDAExecutionProvider[\s\S]*onnxruntime-gpu"):
        engines.get("onnxruntime-gpu")


def test_a_graph_is_opened_run_and_traced(graph: Path):
    engine = OnTheCpu()
    opened = engine.load(graph, threads=1)
    x = np.arange(8, dtype=np.float32).reshape(2, 4)
    assert np.array_equal(opened.run({"x": x})["y"], x)
    (op,) = engine.trace(graph, {"x": x}, runs=3)
    assert op.delegate == "CPUExecutionProvider" and op.ms is not None


def test_a_card_that_does_not_start_is_no_silent_fallback(graph: Path, monkeypatch):
    engine = OnTheCpu()
    monkeypatch.setattr(OnTheCpu, "provider", "CUDAExecutionProvider")
    if CARD:
        pytest.skip("this machine's card may start")
    # ONNX Runtime warns and goes on with the CPU provider.
    with pytest.warns(UserWarning, match="CUDAExecutionProvider"), pytest.raises(Refused, match="did not start"):
        engine.load(graph)


def test_an_int8_graph_is_refused_before_it_is_opened():
    check_kinds("net.onnx", frozenset({"Conv", "DequantizeLinear", "Gather"}))  # weights alone in int8: float work
    for kind in ("QuantizeLinear", "QLinearConv", "MatMulInteger", "DynamicQuantizeLSTM"):
        with pytest.raises(Refused, match=f"int8 graph.*{kind}"):
            check_kinds("net.onnx", frozenset({"Conv", kind}))


def test_operator_types_are_read_from_the_bytes_branches_included(graph: Path):
    assert operator_types(graph.read_bytes()) == {"MatMul"}
    with pytest.raises(Refused, match="ONNX"):
        operator_types(b"\x0a\xff\xff\xff\xff\x7f")
    path = DATA / "silero_vad" / "silero_vad_16k_op15.onnx"
    if not path.exists():
        pytest.skip("the data folder is absent: no file with branches")
    onnx = pytest.importorskip("onnx")
    wanted = set()

    def walk(graph) -> None:
        for node in graph.node:
            wanted.add(node.op_type)
            for attribute in node.attribute:
                for inner in (attribute.g, *attribute.graphs):
                    walk(inner)

    walk(onnx.load(path).graph)
    assert operator_types(path.read_bytes()) == wanted
