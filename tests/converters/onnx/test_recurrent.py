from __future__ import annotations

import numpy as np
import onnx_ir as ir
import pytest
from onnx_graphs import kinds, normal, parse, run, sqnr_db

from edgekit_converters.onnx import observe, pins, recurrent
from edgekit_converters.onnx.edit import Editor

HIDDEN = 16


@pytest.mark.parametrize(("direction", "count"), [("forward", 1), ("reverse", 1), ("bidirectional", 2)])
def test_an_int8_lstm_follows_the_float_one(direction: str, count: int) -> None:
    text = f"""
    agraph (float[T,B,8] x) => (float[T,{count},B,{HIDDEN}] y, float[{count},B,{HIDDEN}] h) {{
      y, h = LSTM<hidden_size={HIDDEN}, direction="{direction}">(x, w, r, b)
    }}"""
    weights = {
        "w": normal(count, 4 * HIDDEN, 8) / 3,
        "r": normal(count, 4 * HIDDEN, HIDDEN) / 4,
        "b": normal(count, 8 * HIDDEN),
    }
    model = parse(text, **weights)
    editor = Editor(model)
    recurrent.apply_lstm(editor, list(model.graph))
    editor.finish()
    assert kinds(model) == ["DynamicQuantizeLSTM"]
    for steps, batch in ((1, 1), (20, 3)):
        x = normal(steps, batch, 8, seed=steps)
        want, got = run(parse(text, **weights), x=x), run(model, x=x)
        # The state is coded again each step; 8 bits leave some 40 dB.
        assert min(sqnr_db(want[name], got[name]) for name in want) > 30


def test_gru_weights_are_stored_in_int8_and_computed_in_float() -> None:
    text = f"agraph (float[T,B,8] x) => (float[T,1,B,{HIDDEN}] y) {{ y = GRU<hidden_size={HIDDEN}>(x, w, r, b) }}"
    weights = {"w": normal(1, 3 * HIDDEN, 8) / 3, "r": normal(1, 3 * HIDDEN, HIDDEN) / 4, "b": normal(1, 6 * HIDDEN)}
    model = parse(text, **weights)
    editor = Editor(model)
    recurrent.apply_storage(editor, list(model.graph))
    editor.finish()
    assert {
        v.const_value.dtype.name for n in model.graph for v in n.inputs if v.const_value and n.op_type == "Cast"
    } == {"INT8"}
    x = normal(10, 2, 8)
    assert sqnr_db(run(parse(text, **weights), x=x)["y"], run(model, x=x)["y"]) > 35
    assert np.isfinite(run(model, x=np.zeros((3, 1, 8), np.float32))["y"]).all()


def pinned(text: str, weights: dict[str, np.ndarray], samples: list[dict[str, np.ndarray]]) -> ir.Model:
    model = parse(text, **weights)
    nodes = list(model.graph)
    seen = observe.extremes(model, pins.tensors(nodes), samples)
    editor = Editor(model)
    recurrent.apply_lstm(editor, nodes, ends=pins.ends(nodes, seen))
    editor.finish()
    return model


GIVEN = f"""
agraph (float[T,B,8] x, float[D,B,{HIDDEN}] h0, float[D,B,{HIDDEN}] c0)
    => (float[T,D,B,{HIDDEN}] y, float[D,B,{HIDDEN}] h, float[D,B,{HIDDEN}] c) {{
  y, h, c = LSTM<hidden_size={HIDDEN}, direction="DIRECTION">(x, w, r, b, , h0, c0)
}}"""


@pytest.mark.parametrize("given", [False, True])
@pytest.mark.parametrize(("direction", "count"), [("forward", 1), ("reverse", 1), ("bidirectional", 2)])
def test_a_calibrated_lstm_answers_the_same_in_any_batch(direction: str, count: int, given: bool) -> None:
    text = GIVEN.replace("DIRECTION", direction)
    if not given:
        text = text.replace(", , h0, c0)", ")")
    weights = {
        "w": normal(count, 4 * HIDDEN, 8) / 3,
        "r": normal(count, 4 * HIDDEN, HIDDEN) / 4,
        "b": normal(count, 8 * HIDDEN),
    }
    inputs = {"x": normal(20, 5, 8, seed=3), "h0": normal(count, 5, HIDDEN) / 5, "c0": normal(count, 5, HIDDEN)}
    inputs["x"][:, 0] /= 4  # alone, this one would have a finer scale
    model = pinned(text, weights, [inputs])
    want, together = run(parse(text, **weights), **inputs), run(model, **inputs)
    assert min(sqnr_db(want[name], together[name]) for name in want) > 30
    for row in range(5):
        alone = run(model, **{name: value[:, row : row + 1] for name, value in inputs.items()})
        for name, value in alone.items():
            # The same integers; sigmoid and tanh differ by where a value stands in a vector register.
            np.testing.assert_allclose(value, together[name][..., row : row + 1, :], atol=1e-6)
    plain = parse(text, **weights)
    editor = Editor(plain)
    recurrent.apply_lstm(editor, list(plain.graph))
    editor.finish()
    first = {name: value[:, :1] for name, value in inputs.items()}
    assert np.abs(run(plain, **first)["y"] - run(plain, **inputs)["y"][..., :1, :]).max() > 1e-4


def test_values_outside_the_calibrated_ends_are_not_clipped() -> None:
    text = f"agraph (float[T,B,8] x) => (float[T,1,B,{HIDDEN}] y) {{ y = LSTM<hidden_size={HIDDEN}>(x, w, r) }}"
    weights = {"w": normal(1, 4 * HIDDEN, 8) / 3, "r": normal(1, 4 * HIDDEN, HIDDEN) / 4}
    x = normal(20, 2, 8)
    assert sqnr_db(run(parse(text, **weights), x=x)["y"], run(pinned(text, weights, [{"x": x / 10}]), x=x)["y"]) > 30


@pytest.mark.parametrize("attribute", ["clip=2.0", "input_forget=1", 'activations=["Sigmoid","Relu","Tanh"]'])
def test_a_layer_with_other_gates_keeps_its_state(attribute: str) -> None:
    text = f"""
    agraph (float[T,B,8] x) => (float[T,1,B,{HIDDEN}] y) {{ y = LSTM<hidden_size={HIDDEN}, {attribute}>(x, w, r) }}"""
    weights = {"w": normal(1, 4 * HIDDEN, 8) / 3, "r": normal(1, 4 * HIDDEN, HIDDEN) / 4}
    x = normal(9, 2, 8)
    model = pinned(text, weights, [{"x": x}])
    assert "Slice" not in kinds(model) and "Concat" in kinds(model)
    assert sqnr_db(run(parse(text, **weights), x=x)["y"], run(model, x=x)["y"]) > 25


@pytest.mark.parametrize("level", [-1.0, -0.9, -0.762, -0.3, 0.0, 1e-3, 0.5, 0.761594, 0.8, 0.99, 1.0])
def test_a_holding_unit_goes_to_its_level(level: float) -> None:
    i, o, f, g = holding = pins.holding(level).astype(np.float64)
    assert np.isfinite(holding).all()
    sigmoid = 1 / (1 + np.exp(-np.array([i, o, f])))
    cell, states = 0.0, []
    for _ in range(200):
        cell = sigmoid[2] * cell + sigmoid[0] * np.tanh(g)
        states.append(sigmoid[1] * np.tanh(cell))
    assert abs(states[-1] - level) < 2e-4  # 0.9999 stands for 1
    assert np.max(np.abs(states)) <= abs(level) + 2e-4
