"""Uniform constants become one number, and the answers keep their bits."""

from __future__ import annotations

import copy

import numpy as np
import pytest

from edgekit_converters.quiet import quiet_native
from edgekit_converters.tflite import flatbuffer as fb
from edgekit_converters.tflite.passes.compact import compact
from edgekit_converters.tflite.passes.one_number import one_number
from tests.converters.tflite.test_passes import empty_model

SHAPE = (40, 64)


def pair(kind: str, operand: np.ndarray, *, first: bool = False) -> fb.Model:
    """One operator on x [40, 64] and a constant."""
    model = empty_model()
    subgraph, dtype = model.subgraphs[0], operand.dtype.name
    x = fb.add_tensor(model, subgraph, "x", SHAPE, dtype)
    constant = fb.add_constant(model, subgraph, "c", operand)
    answer = fb.add_tensor(model, subgraph, "y", SHAPE, dtype)
    operator = fb.schema().OperatorT()
    operator.opcodeIndex = fb.opcode_index(model, kind)
    operator.inputs, operator.outputs = ([constant, x] if first else [x, constant]), [answer]
    if kind in ("ADD", "SUB", "MUL", "DIV"):
        options = f"{kind.title()}Options"
        operator.builtinOptionsType = getattr(fb.schema().BuiltinOptions, options)
        operator.builtinOptions = getattr(fb.schema(), f"{options}T")()
    subgraph.operators, subgraph.inputs, subgraph.outputs = [operator], [x], [answer]
    return model


def run(model: fb.Model, x: np.ndarray) -> np.ndarray:
    with quiet_native():
        from ai_edge_litert.interpreter import Interpreter

        engine = Interpreter(model_content=fb.serialize(model))
        engine.allocate_tensors()
        engine.set_tensor(engine.get_input_details()[0]["index"], x)
        engine.invoke()
        return engine.get_tensor(engine.get_output_details()[0]["index"])


@pytest.mark.parametrize("first", [False, True])
@pytest.mark.parametrize(
    ("kind", "number"),
    [("RIGHT_SHIFT", np.int32(3)), ("MAXIMUM", np.int32(-7)), ("SUB", np.float32(0.1)), ("DIV", np.float32(3))],
)
def test_a_uniform_operand_becomes_one_number_and_no_bit_changes(kind: str, number: np.generic, first: bool) -> None:
    model = pair(kind, np.full(SHAPE, number), first=first and kind != "RIGHT_SHIFT")
    rng = np.random.default_rng(0)
    x = rng.integers(1, 1000, SHAPE).astype(number.dtype) if number.dtype == np.int32 else rng.random(SHAPE, np.float32)
    want = run(copy.deepcopy(model), x)
    before = len(fb.serialize(model))
    assert one_number(model) == 1
    compact(model)
    assert before - len(fb.serialize(model)) > 4 * (np.prod(SHAPE) - 10)
    np.testing.assert_array_equal(run(model, x), want)


def test_what_is_small_or_not_uniform_or_stretches_the_other_operand_stays() -> None:
    mixed = np.zeros(SHAPE, np.float32)
    mixed[3, 5] = -0.0
    assert one_number(pair("ADD", mixed)) == 0
    assert one_number(pair("ADD", np.ones((1, 64), np.float32))) == 0
    wide = pair("ADD", np.ones(SHAPE, np.float32))
    wide.subgraphs[0].tensors[0].shape = [1, 64]
    assert one_number(wide) == 0
    assert one_number(pair("POW", np.ones(SHAPE, np.float32))) == 0
