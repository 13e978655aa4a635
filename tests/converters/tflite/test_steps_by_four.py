"""Four steps a call: the same bits, fewer bytes, and only where the calls are many and hang together."""

from __future__ import annotations

import copy

import numpy as np
import pytest

from edgekit_converters.tflite import flatbuffer as fb
from edgekit_converters.tflite.passes.build import Builder
from edgekit_converters.tflite.passes.compact import compact
from edgekit_converters.tflite.passes.steps_by_four import steps_by_four
from tests.converters.tflite.test_one_number import run
from tests.converters.tflite.test_passes import empty_model

UNITS = 8
WEIGHTS = np.random.default_rng(0).standard_normal((UNITS, UNITS)).astype(np.float32) / 3


def loop(steps: int, *, all_states: bool = True, broken: int = -1) -> fb.Model:
    """h = tanh(W h + row), c = c + h for each row of x [1, steps, UNITS]; answers h of each step (or the last) and c.

    Args:
        steps: Calls of the step.
        all_states: Whether each h is read outside of the loop.
        broken: A step that takes the c of the beginning instead of the last one.
    """
    model = empty_model()
    main = model.subgraphs[0]
    body = fb.schema().SubGraphT()
    body.tensors = []
    model.subgraphs.append(body)
    inner = Builder(model, body)
    row, h, c = (fb.add_tensor(model, body, "", (1, UNITS)) for _ in range(3))
    pushed = inner.product([h, inner.constant(WEIGHTS), -1], (1, UNITS), "LSTM.state")
    new = inner.unary("TANH", inner.elementwise("ADD", [pushed, row], (1, UNITS)), (1, UNITS))
    body.inputs, body.outputs = [row, h, c], [new, inner.elementwise("ADD", [c, new], (1, UNITS))]
    body.operators = inner.operators

    build = Builder(model, main)
    x = fb.add_tensor(model, main, "x", (1, steps, UNITS))
    rows = build.operator("UNPACK", [x], [(1, UNITS)] * steps, "UnpackOptions", axis=1, num=steps)
    always, zeros = build.constant(np.ones((), np.bool_)), build.constant(np.zeros((1, UNITS), np.float32))
    states = [zeros, zeros]
    answers = []
    for number, each in enumerate(rows):
        given = [states[0], zeros] if number == broken else states
        states = build.operator(
            "IF", [always, each, *given], [(1, UNITS)] * 2, "IfOptions", thenSubgraphIndex=1, elseSubgraphIndex=1
        )
        answers.append(states[0])
    read = [*answers, states[1]] if all_states else [states[0], states[1]]
    (packed,) = build.operator("PACK", read, [(1, len(read), UNITS)], "PackOptions", axis=1, valuesCount=len(read))
    main.operators, main.inputs, main.outputs = build.operators, [x], [packed]
    return model


@pytest.mark.parametrize("all_states", [True, False])
@pytest.mark.parametrize("steps", [40, 43])
def test_four_steps_a_call_give_the_same_bits_for_fewer_bytes(steps: int, all_states: bool) -> None:
    model = loop(steps, all_states=all_states)
    x = np.random.default_rng(1).standard_normal((1, steps, UNITS)).astype(np.float32)
    compact(model)
    before, want = len(fb.serialize(model)), run(copy.deepcopy(model), x)
    assert steps_by_four(model) == steps // 4
    compact(model)
    assert len(model.subgraphs) == (2 if steps % 4 == 0 else 3)  # the single step is gone where nothing is left over
    assert len(fb.serialize(model)) < before
    np.testing.assert_array_equal(run(model, x), want)


def test_the_work_of_all_steps_is_counted() -> None:
    model = loop(43)
    steps_by_four(model)
    called = fb.executed(model, model.subgraphs[0])[1:]
    assert (
        sum(count * sum(kind == "FULLY_CONNECTED" for kind, _ in fb.operators(model, part)) for part, count in called)
        == 43
    )
    weights = {
        int(tensor.buffer)
        for part, _ in called
        for tensor in part.tensors
        if fb.is_constant(model, tensor) and fb.shape_of(tensor) == (UNITS, UNITS)
    }
    assert len(weights) == 1  # and they read the same weights


def test_few_calls_and_calls_that_hang_together_otherwise_stay() -> None:
    assert steps_by_four(loop(7)) == 0
    assert steps_by_four(loop(12)) == 0  # four steps would be larger than the nine calls saved
    assert steps_by_four(loop(40, broken=20)) == 0
