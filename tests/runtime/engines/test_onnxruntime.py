from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from edgekit_runtime import engines
from edgekit_runtime.errors import Refused, UsageError

HEADER = '<ir_version: 8, opset_import: ["" : 17, "com.microsoft" : 1]>\n'
rng = np.random.default_rng(0)


def normal(*shape: int) -> np.ndarray:
    return rng.normal(size=shape).astype(np.float32)


def test_runs_and_names_its_tensors(onnx_file: Callable[..., Path]) -> None:
    weights = normal(4, 2)
    path = onnx_file(HEADER + "g (float[B,4] x) => (float[B,2] y) { y = MatMul(x, w) }", w=weights)
    graph = engines.get("onnxruntime").load(path, threads=2)
    assert [(t.name, t.dtype, t.shape) for t in graph.inputs] == [("x", "float32", ("B", 4))]
    x = normal(3, 4)
    np.testing.assert_allclose(graph.run({"x": x})["y"], x @ weights, rtol=1e-5)


def test_closed_graphs_and_signatures_are_usage_errors(onnx_file: Callable[..., Path]) -> None:
    path = onnx_file(HEADER + "g (float[B,4] x) => (float[B,4] y) { y = Relu(x) }")
    engine = engines.get("onnxruntime")
    with pytest.raises(UsageError, match="no signatures"):
        engine.load(path, signature="t16")
    graph = engine.load(path)
    graph.close()
    with pytest.raises(UsageError, match="closed"):
        graph.run({"x": normal(1, 4)})


def test_a_truncated_file_is_refused(onnx_file: Callable[..., Path], tmp_path: Path) -> None:
    whole = onnx_file(HEADER + "g (float[B,4] x) => (float[B,2] y) { y = MatMul(x, w) }", w=normal(4, 2)).read_bytes()
    for content in (b"garbage" * 10, whole[: len(whole) // 2]):
        (tmp_path / "bad.onnx").write_bytes(content)
        with pytest.raises(Refused, match=r"bad\.onnx") as caught:
            engines.get("onnxruntime").load(tmp_path / "bad.onnx")
        assert caught.value.__cause__ is not None


def test_an_operator_without_a_kernel_is_named(onnx_file: Callable[..., Path]) -> None:
    header = '<ir_version: 8, opset_import: ["" : 17, "acme" : 1]>\n'
    path = onnx_file(header + "g (float[B,4] x) => (float[B,4] y) { y = acme.Frobnicate(x) }")
    with pytest.raises(Refused, match="Frobnicate"):
        engines.get("onnxruntime").load(path)


def test_a_newer_opset_is_refused_as_such(onnx_file: Callable[..., Path]) -> None:
    path = onnx_file('<ir_version: 8, opset_import: ["" : 99]>\ng (float[B,4] x) => (float[B,4] y) { y = Relu(x) }')
    with pytest.raises(Refused, match="too old"):
        engines.get("onnxruntime").load(path)


def test_an_index_out_of_range_is_refused_while_running(onnx_file: Callable[..., Path]) -> None:
    path = onnx_file(HEADER + "g (int64[N] i) => (float[N,4] y) { y = Gather(w, i) }", w=normal(5, 4))
    with pytest.raises(Refused, match="while running"):
        engines.get("onnxruntime").load(path).run({"i": np.array([7])})


def test_the_trace_counts_macs_of_what_ran(onnx_file: Callable[..., Path]) -> None:
    path = onnx_file(
        HEADER
        + """g (float[B,4,8,8] x, float[5,B,4] s) => (float[B,2] y, float[5,1,B,6] h) {
            c = Conv<pads=[1,1,1,1], group=2>(x, w)
            r = Relu(c)
            p = GlobalAveragePool(r)
            f = Flatten(p)
            y = Gemm(f, g)
            h, last = LSTM<hidden_size=6>(s, W, R)
        }""",
        w=normal(16, 2, 3, 3),
        g=normal(16, 2),
        W=normal(1, 24, 4),
        R=normal(1, 24, 6),
    )
    rows = engines.get("onnxruntime").trace(path, {"x": normal(2, 4, 8, 8), "s": normal(5, 2, 4)}, runs=3)
    macs = {row.kind.removeprefix("Fused"): row.macs for row in rows}
    assert macs["Conv"] == 2 * 16 * 64 * 2 * 9
    assert macs["Gemm"] == 2 * 16 * 2
    assert macs["LSTM"] == 5 * 2 * (24 * 4 + 24 * 6)  # weights the profile hides once the kernel has packed them
    assert macs["GlobalAveragePool"] == 0
    assert all(row.ms is not None and row.ms > 0 and row.bytes and not row.int8 for row in rows)


def test_the_trace_tells_int8_as_executed(onnx_file: Callable[..., Path]) -> None:
    path = onnx_file(
        HEADER
        + """g (float[B,8] x) => (float[B,4] y) {
            q = QuantizeLinear(x, s, z)
            d = DequantizeLinear(q, s, z)
            v = DequantizeLinear(w, t, n)
            m = MatMul(d, v)
            e = QuantizeLinear(m, s, z)
            y = DequantizeLinear(e, s, z)
        }""",
        s=np.float32(0.1),
        z=np.uint8(128),
        t=np.float32(0.05),
        n=np.int8(0),
        w=rng.integers(-127, 127, (8, 4)).astype(np.int8),
    )
    rows = engines.get("onnxruntime").trace(path, {"x": normal(3, 8)})
    multiplied = [row for row in rows if row.macs]
    assert [(row.kind, row.macs, row.int8) for row in multiplied] == [("QLinearMatMul", 3 * 8 * 4, True)]


def test_the_trace_leaves_no_files(
    onnx_file: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    path = onnx_file(HEADER + "g (float[B,4] x) => (float[B,4] y) { y = Relu(x) }")
    engines.get("onnxruntime").trace(path, {"x": normal(1, 4)})
    assert [item.name for item in tmp_path.iterdir()] == ["model.onnx"]


def test_silero_runs(data: Path) -> None:
    graph = engines.get("onnxruntime").load(data / "models" / "silero_vad" / "silero_vad_16k_op15.onnx")
    state = np.zeros((2, 1, 128), np.float32)
    made = graph.run({"input": np.zeros((1, 512), np.float32), "state": state, "sr": np.array(16000)})
    assert made["output"].shape == (1, 1)
    assert made["stateN"].shape == (2, 1, 128)
