from __future__ import annotations

import numpy as np
import pytest
from onnx_graphs import kinds, normal, parse, run, sqnr_db

from edgekit_converters.onnx import rows, tables
from edgekit_converters.onnx.edit import Editor

DENSE = "agraph (float[B,T,64] x) => (float[B,T,32] y) { y = MatMul(x, w) }"


def quantized(text: str, largest: dict[str, np.ndarray] | None = None, **constants: np.ndarray):
    model = parse(text, **constants)
    editor = Editor(model)
    rows.apply(editor, [n for n in model.graph if n.op_type in ("MatMul", "Gemm")], largest or {})
    editor.finish()
    return model


def test_a_dense_layer_stays_within_forty_decibels() -> None:
    w, x = normal(64, 32), normal(2, 5, 64, seed=1)
    # 8-bit rows and columns of normal values give about 41 dB.
    assert sqnr_db(x @ w, run(quantized(DENSE, w=w), x=x)["y"]) > 38


def test_rows_do_not_see_each_other() -> None:
    model, x = quantized(DENSE, w=normal(64, 32)), normal(2, 5, 64, seed=1)
    alone = run(model, x=x[:1, :1])["y"]
    x[1] *= 1000
    np.testing.assert_array_equal(run(model, x=x)["y"][:1, :1], alone)


def test_a_row_of_zeros_gives_zeros() -> None:
    assert not run(quantized(DENSE, w=normal(64, 32)), x=np.zeros((1, 2, 64), np.float32))["y"].any()


def test_readers_of_one_tensor_share_its_codes() -> None:
    text = "agraph (float[B,64] x) => (float[B,32] y, float[B,32] z) { y = MatMul(x, w)  z = MatMul(x, v) }"
    model = quantized(text, w=normal(64, 32), v=normal(64, 32, seed=1))
    assert kinds(model).count("QuantizeLinear") == 1 and kinds(model).count("MatMulIntegerToFloat") == 2


def test_gemm_keeps_its_bias_and_transposition() -> None:
    text = "agraph (float[B,64] x) => (float[B,32] y) { y = Gemm<transB=1>(x, w, b) }"
    w, b, x = normal(32, 64), normal(32, seed=1), normal(7, 64, seed=2)
    assert sqnr_db(x @ w.T + b, run(quantized(text, w=w, b=b), x=x)["y"]) > 38


def test_smoothing_rescues_a_layer_with_one_large_column() -> None:
    w, x = normal(64, 32), normal(1, 50, 64, seed=1)
    x[..., 3] *= 60
    w[3] /= 60
    plain = sqnr_db(x @ w, run(quantized(DENSE, w=w), x=x)["y"])
    smooth = sqnr_db(x @ w, run(quantized(DENSE, {"x": np.abs(x).max((0, 1))}, w=w), x=x)["y"])
    assert smooth > plain + 10


@pytest.mark.parametrize("kind", ["Relu", "Gelu"])
def test_values_behind_an_activation_use_the_whole_range(kind: str) -> None:
    domain = "com.microsoft." if kind == "Gelu" else ""
    text = f"agraph (float[B,64] x) => (float[B,32] y) {{ a = {domain}{kind}(x)  y = MatMul(a, w) }}"
    w, x = normal(64, 32), normal(20, 64, seed=1)
    x[3] = -abs(x[3])  # a row that the activation makes (nearly) zero
    model = quantized(text, w=w)
    assert "Abs" not in kinds(model)
    assert sqnr_db(run(parse(text, w=w), x=x)["y"], run(model, x=x)["y"]) > 42


def test_a_table_has_a_scale_for_each_row() -> None:
    table = normal(100, 16) * np.logspace(-3, 3, 100, dtype=np.float32)[:, None]
    model = parse("agraph (int64[B,T] ids) => (float[B,T,16] y) { y = Gather(t, ids) }", t=table)
    editor = Editor(model)
    tables.apply(editor, list(model.graph))
    editor.finish()
    ids = np.arange(100, dtype=np.int64).reshape(4, 25)
    got = run(model, ids=ids)["y"]
    step = np.abs(table).max(1, keepdims=True) / 127
    assert (np.abs(got.reshape(100, 16) - table) <= step * 0.5001).all()
