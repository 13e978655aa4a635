from __future__ import annotations

import numpy as np
import onnx_ir as ir
import pytest
from onnx_graphs import kinds, normal, parse, run

from edgekit_converters.onnx.canonical import canonical

GELU = """
agraph (float[B,8] x) => (float[B,8] y) {
  d = Div(x, c)  e = Erf(d)  a = Add(e, one)  h = Mul(half, a)  y = Mul(x, h)
}"""


def test_gelu_is_written_in_the_order_that_the_engine_fuses() -> None:
    constants = {"c": np.float32(2**0.5), "one": np.float32(1), "half": np.float32(0.5)}
    before, after = (parse(GELU, **{k: np.array(v) for k, v in constants.items()}) for _ in range(2))
    canonical(after)
    x = normal(3, 8)
    np.testing.assert_allclose(run(after, x=x)["y"], run(before, x=x)["y"], atol=1e-6)
    last = after.graph.outputs[0].producer()
    assert last is not None and last.inputs[1].const_value is not None


def test_bias_and_residual_before_a_norm_become_one_sum() -> None:
    text = """
    agraph (float[B,8] x, float[B,8] skip) => (float[B,8] y) {
      a = Add(x, bias)  s = Add(a, skip)  y = LayerNormalization(s, gain, bias)
    }"""
    before, after = (parse(text, bias=normal(8), gain=normal(8, seed=1)) for _ in range(2))
    canonical(after)
    assert kinds(after) == ["Sum", "LayerNormalization"]
    inputs = {"x": normal(3, 8, seed=2), "skip": normal(3, 8, seed=3)}
    np.testing.assert_allclose(run(after, **inputs)["y"], run(before, **inputs)["y"], atol=1e-5)


def test_a_sum_that_others_read_keeps_its_own_add() -> None:
    text = """
    agraph (float[B,8] x, float[B,8] skip) => (float[B,8] y, float[B,8] a) {
      a = Add(x, bias)  s = Add(a, skip)  y = LayerNormalization(s, bias, bias)
    }"""
    assert kinds(canonical(parse(text, bias=normal(8)))) == ["Add", "Sum", "LayerNormalization"]


def test_slices_over_different_axes_become_one() -> None:
    text = """
    agraph (float[1,2,6,6] x) => (float[1,2,3,3] y) {
      a = Slice(x, zero, end, two, two)  y = Slice(a, zero, end, three, two)
    }"""
    constants = {"zero": [0], "end": [6], "two": [2], "three": [3]}
    before, after = (parse(text, **{k: np.array(v, np.int64) for k, v in constants.items()}) for _ in range(2))
    canonical(after)
    assert kinds(after) == ["Slice"]
    x = normal(1, 2, 6, 6)
    np.testing.assert_array_equal(run(after, x=x)["y"], run(before, x=x)["y"])


def test_a_mean_over_all_positions_becomes_a_pool() -> None:
    text = "agraph (float[B,2,4,4] x) => (float[B,2] y) { y = ReduceMean<keepdims=0>(x, axes) }"
    before, after = (parse(text, axes=np.array([-1, -2], np.int64)) for _ in range(2))
    canonical(after)
    assert kinds(after) == ["GlobalAveragePool", "Squeeze"]
    x = normal(3, 2, 4, 4)
    np.testing.assert_allclose(run(after, x=x)["y"], run(before, x=x)["y"], atol=1e-6)


def test_a_mean_over_channels_stays() -> None:
    text = "agraph (float[B,2,4,4] x) => (float[B,4,4] y) { y = ReduceMean<keepdims=0>(x, axes) }"
    assert kinds(canonical(parse(text, axes=np.array([1], np.int64)))) == ["ReduceMean"]


def test_a_zero_initial_state_is_left_out() -> None:
    text = """
    agraph (float[T,B,3] x, int64[3] shape) => (float[T,1,B,4] y) {
      h = Expand(zero, shape)  y = LSTM<hidden_size=4>(x, w, r, , , h, h)
    }"""
    model = parse(text, zero=np.zeros(1, np.float32), w=normal(1, 16, 3), r=normal(1, 16, 4))
    canonical(model)
    assert kinds(model) == ["LSTM"]


@pytest.mark.parametrize(("count", "direction", "kept"), [(1, "forward", "Squeeze"), (2, "bidirectional", "Reshape")])
def test_directions_are_merged_without_computing_a_shape(count: int, direction: str, kept: str) -> None:
    text = f"""
    agraph (float[T,B,4] x) => (float[T,B,{4 * count}] y) {{
      steps = LSTM<hidden_size=4, direction="{direction}">(x, w, r)
      turned = Transpose<perm=[0,2,1,3]>(steps)
      shape = Shape(turned)
      first = Slice(shape, k0, k1)
      second = Slice(shape, k1, k2)
      third = Slice(shape, k2, k3)
      fourth = Slice(shape, k3, k4)
      product = Mul(third, fourth)
      whole = Concat<axis=0>(first, second, product)
      y = Reshape(turned, whole)
    }}"""
    weights = {"w": normal(count, 16, 4), "r": normal(count, 16, 4, seed=1)}
    weights |= {f"k{i}": np.array([i]) for i in range(5)}
    model = parse(text, **weights)
    model.graph[0].outputs[0].shape = ir.Shape(["T", count, "B", 4])
    made = canonical(model)
    assert kept in kinds(made)
    assert not {"Shape", "Slice", "Mul", "Concat"} & set(kinds(made))
    for steps, batch in ((1, 1), (5, 3)):
        x = normal(steps, batch, 4, seed=2)
        np.testing.assert_array_equal(run(made, x=x)["y"], run(parse(text, **weights), x=x)["y"])
