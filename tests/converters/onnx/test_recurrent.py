from __future__ import annotations

import numpy as np
import pytest
from onnx_graphs import kinds, normal, parse, run, sqnr_db

from edgekit_converters.onnx import recurrent
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
