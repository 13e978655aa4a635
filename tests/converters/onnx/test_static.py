from __future__ import annotations

import numpy as np
import onnx_ir as ir
import pytest
from onnx_graphs import kinds, normal, parse, run, sqnr_db

from edgekit_converters.onnx import moves, observe, static
from edgekit_converters.onnx.edit import Editor
from edgekit_converters.onnx.resolve import Facts, resolve

CONVS = """
agraph (float[B,4,8,8] x) => (float[B,6] y) {
  a = Conv<pads=[1,1,1,1]>(x, w, b)  r = Relu(a)
  c = Conv<pads=[1,1,1,1]>(r, v)  s = Add(c, r)  t = Relu(s)
  p = MaxPool<kernel_shape=[2,2], strides=[2,2]>(t)  g = GlobalAveragePool(p)  f = Flatten(g)  y = Gemm(f, m, n)
}"""
CONSTANTS = {
    "w": normal(8, 4, 3, 3) / 6,
    "b": normal(8),
    "v": normal(8, 8, 3, 3) / 8,
    "m": normal(8, 6),
    "n": normal(6),
}
SAMPLES = [{"x": normal(1, 4, 8, 8, seed=i)} for i in range(20)]


def quantized(text: str, constants: dict[str, np.ndarray], samples: list, dtype: type = np.uint8) -> ir.Model:
    model = parse(text, **constants)
    recipe = resolve(model, Facts(observe.shapes(model, samples[0])))
    plan = static.plan(model, recipe)
    spans = observe.ranges(model, plan.tensors, samples)
    editor = Editor(model)
    static.apply(editor, plan, spans, dtype)
    moves.apply(editor)
    editor.finish()
    return model


@pytest.mark.parametrize("dtype", [np.int8, np.uint8])
def test_a_small_net_keeps_thirty_decibels(dtype: type) -> None:
    x = normal(4, 4, 8, 8, seed=99)
    # Two int8 layers and an addition in series: about 36 dB here, 30 allows for another seed.
    assert (
        sqnr_db(run(parse(CONVS, **CONSTANTS), x=x)["y"], run(quantized(CONVS, CONSTANTS, SAMPLES, dtype), x=x)["y"])
        > 30
    )


def test_relus_disappear_into_the_ranges() -> None:
    assert "Relu" not in kinds(quantized(CONVS, CONSTANTS, SAMPLES))


def test_the_file_says_the_same_without_the_engines_fusions() -> None:
    from edgekit_converters.onnx.session import open_session, run_session, serialize

    model, x = quantized(CONVS, CONSTANTS, SAMPLES), normal(4, 4, 8, 8, seed=99)
    plain = run_session(open_session(serialize(model), optimise=False), {"x": x})["y"]
    # Fused and unfused kernels round at different places: a step of the last tensors.
    assert sqnr_db(plain, run(model, x=x)["y"]) > 35


def test_pool_and_its_input_share_one_scale() -> None:
    model = parse(CONVS, **CONSTANTS)
    plan = static.plan(model, resolve(model, Facts(observe.shapes(model, SAMPLES[0]))))
    assert plan.groups["p"] == plan.groups["t"] and plan.groups["r"] != plan.groups["t"]


def test_a_relu_with_a_second_reader_before_it_stays() -> None:
    text = """
    agraph (float[B,4,8,8] x) => (float[B,8,8,8] y) {
      a = Conv<pads=[1,1,1,1]>(x, w)  r = Relu(a)  s = Add(a, r)  y = Conv<pads=[1,1,1,1]>(s, v)
    }"""
    constants = {"w": CONSTANTS["w"], "v": CONSTANTS["v"]}
    model = quantized(text, constants, SAMPLES)
    x = SAMPLES[0]["x"]
    assert "Relu" in kinds(model)
    assert sqnr_db(run(parse(text, **constants), x=x)["y"], run(model, x=x)["y"]) > 30


def test_slice_and_pad_run_on_codes() -> None:
    text = """
    agraph (float[B,4,8,8] x) => (float[B,8,4,4] y) {
      a = Conv<pads=[1,1,1,1]>(x, w)  s = Slice(a, zero, end, axes, step)  p = Pad(s, pads)
      c = Conv<pads=[1,1,1,1]>(p, v)  y = Relu(c)
    }"""
    integers = {"zero": [0, 0], "end": [8, 8], "axes": [2, 3], "step": [2, 2], "pads": [0, 2, 0, 0, 0, 2, 0, 0]}
    constants = {k: np.array(v, np.int64) for k, v in integers.items()}
    constants |= {"w": normal(4, 4, 3, 3) / 6, "v": CONSTANTS["v"]}
    model = quantized(text, constants, SAMPLES)
    order = kinds(model)
    assert order[order.index("Slice") - 1] == "QuantizeLinear" and order[order.index("Slice") + 1] == "Pad"
    x = SAMPLES[3]["x"]
    assert sqnr_db(run(parse(text, **constants), x=x)["y"], run(model, x=x)["y"]) > 30


def test_a_calibration_sample_with_nan_is_refused() -> None:
    from edgekit_runtime.errors import Refused

    bad = {"x": np.full((1, 4, 8, 8), np.nan, np.float32)}
    with pytest.raises(Refused, match="sample 1 "):
        quantized(CONVS, CONSTANTS, [SAMPLES[0], bad])


def test_no_float_arithmetic_is_left_in_the_engine(tmp_path) -> None:
    import onnx

    from edgekit_converters.onnx.session import open_session, serialize

    open_session(serialize(quantized(CONVS, CONSTANTS, SAMPLES)), save_optimised=tmp_path / "optimised.onnx")
    ran = [node.op_type for node in onnx.load(tmp_path / "optimised.onnx").graph.node]
    assert not {"Conv", "Add", "Gemm", "MatMul", "DequantizeLinear"} & set(ran)
    assert ran.count("QLinearConv") == 2 and ran.count("QuantizeLinear") == 1


def test_a_cut_at_six_stays_where_another_branch_is_larger() -> None:
    text = """
    agraph (float[B,4,8,8] x) => (float[B,6] y) {
      a = Conv<pads=[1,1,1,1]>(x, w, b)  r = Clip(a, low, high)  c = Conv<pads=[1,1,1,1]>(x, u)
      s = Concat<axis=1>(r, c)  g = GlobalMaxPool(s)  f = Flatten(g)  y = Gemm(f, m, n)
    }"""
    constants = {k: CONSTANTS[k] for k in ("w", "b", "n")} | {"u": CONSTANTS["w"] * 30, "m": normal(16, 6)}
    constants |= {"low": np.float32(0), "high": np.float32(0.5), "w": CONSTANTS["w"] * 10}
    constants = {k: np.asarray(v) for k, v in constants.items()}
    x = normal(4, 4, 8, 8, seed=99)
    want, got = run(parse(text, **constants), x=x)["y"], run(quantized(text, constants, SAMPLES), x=x)["y"]
    assert sqnr_db(want, got) > 25


def test_scales_of_a_bias_are_told_as_a_product_and_no_bit_changes(tmp_path) -> None:
    import onnx

    from edgekit_converters.onnx.session import open_session, serialize

    text = "agraph (float[B,4,8,8] x) => (float[B,40,8,8] y) { y = Conv<pads=[1,1,1,1]>(x, w, b) }"
    model = quantized(text, {"w": normal(40, 4, 3, 3) / 6, "b": normal(40)}, SAMPLES)
    x = normal(4, 4, 8, 8, seed=99)
    got, small = run(model, x=x)["y"], len(serialize(model))
    open_session(model, save_optimised=tmp_path / "o.onnx")
    ran = [node.op_type for node in onnx.load(tmp_path / "o.onnx").graph.node]
    assert "QLinearConv" in ran and "Mul" not in ran
    (product,) = (node for node in model.graph if node.op_type == "Mul")
    one, other = (value.const_value.numpy() for value in product.inputs)
    editor = Editor(model)
    editor.replace(product.outputs[0], editor.constant(one * other))
    editor.finish()
    assert len(serialize(model)) - small > 100
    np.testing.assert_array_equal(run(model, x=x)["y"], got)
