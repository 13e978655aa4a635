from __future__ import annotations

import numpy as np
import pytest
from onnx_graphs import normal, parse

from edgekit_converters.onnx.resolve import Facts, resolve

TEXT_CNN = """
agraph (int64[B,T] ids) => (float[B,3] y) {
  e = Gather(table, ids)  t = Transpose<perm=[0,2,1]>(e)
  c = Conv(t, w)  r = Relu(c)  m = ReduceMax<keepdims=0>(r, axis)  y = Gemm(m, head, bias)
}"""
TEXT_CNN_CONSTANTS = {
    "table": normal(500, 16),
    "w": normal(8, 16, 3),
    "axis": np.array([2], np.int64),
    "head": normal(8, 3),
    "bias": normal(3),
}


def schemes(text: str, constants: dict[str, np.ndarray], **facts: object) -> dict[str, str]:
    recipe = resolve(parse(text, **constants), Facts({}, **facts))  # type: ignore[arg-type]
    assert all(op.reason for op in recipe.ops)
    return {op.kind: op.scheme for op in recipe.ops}


def test_a_text_cnn_is_static_behind_an_int8_table() -> None:
    assert schemes(TEXT_CNN, TEXT_CNN_CONSTANTS) == {
        "Gather": "weight_row",
        "Conv": "static",
        "Relu": "follow",
        "ReduceMax": "follow",
        "Gemm": "static",
    }


@pytest.mark.parametrize("pattern", ["stem*", "student.py:7"])
def test_a_kept_operator_stays_float_and_says_who_asked(pattern: str) -> None:
    model = parse(TEXT_CNN, **TEXT_CNN_CONSTANTS)
    for node in model.graph:
        if node.op_type == "Conv":
            node.name = "stem/Conv"
    recipe = resolve(model, Facts({}, {"stem/Conv": "student.py:7"}, (pattern,)))
    conv = next(op for op in recipe.ops if op.kind == "Conv")
    assert conv.scheme == "float" and pattern in conv.reason
    assert not any(op.kind == "Relu" for op in recipe.ops)


def test_dense_layers_behind_a_norm_take_rows() -> None:
    text = """
    agraph (float[B,T,64] x) => (float[B,T,64] z) {
      n = LayerNormalization(x, g, g)  y = MatMul(n, w)  s = Add(y, x)  r = Relu(s)  z = MatMul(r, w)
    }"""
    recipe = resolve(parse(text, g=normal(64), w=normal(64, 64)), Facts({}))
    assert [op.scheme for op in recipe.ops if op.kind == "MatMul"] == ["dynamic_row", "dynamic_row"]


def test_a_dense_net_on_its_input_is_static() -> None:
    text = "agraph (float[B,64] x) => (float[B,8] y) { h = Gemm(x, w, b)  r = Relu(h)  y = Gemm(r, v, c) }"
    found = schemes(text, {"w": normal(64, 64), "b": normal(64), "v": normal(64, 8), "c": normal(8)})
    assert found == {"Gemm": "static", "Relu": "follow"}


def test_a_product_of_two_activations_stays_float() -> None:
    assert schemes("agraph (float[2,3] x, float[3,4] z) => (float[2,4] y) { y = MatMul(x, z) }", {}) == {}
    recipe = resolve(
        parse("agraph (float[2,3] x, float[3,4] z) => (float[2,4] y) { y = MatMul(x, z) }"),
        Facts({"x": (2, 3), "z": (3, 4), "y": (2, 4)}),
    )
    assert [(op.scheme, op.macs) for op in recipe.ops] == [("float", 24)]


def test_a_small_dynamic_layer_stays_float_with_its_size_as_reason() -> None:
    text = "agraph (float[B,16] x) => (float[B,4] y) { n = LayerNormalization(x, g, g)  y = MatMul(n, w) }"
    recipe = resolve(parse(text, g=normal(16), w=normal(16, 4)), Facts({}))
    assert [op.scheme for op in recipe.ops] == ["float"] and "64 weights" in recipe.ops[0].reason


def test_resolving_does_not_touch_the_graph() -> None:
    from edgekit_converters.onnx.session import serialize

    model = parse(TEXT_CNN, **TEXT_CNN_CONSTANTS)
    before = serialize(model)
    resolve(model, Facts({}))
    assert serialize(model) == before
