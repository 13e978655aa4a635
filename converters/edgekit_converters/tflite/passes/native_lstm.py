"""Pass: TFLite's own sequence LSTM in the place of the marker that `torch_passes.mark_lstm` left.

    before: STABLEHLO_COMPOSITE edgekit.lstm (x [B,T,F], w_ih [4H,F], w_hh [4H,H], b_ih [4H], b_hh [4H])
    after:  CONCATENATION(reset [B,1,F+1], PAD(x)) -> UNIDIRECTIONAL_SEQUENCE_LSTM -> STRIDED_SLICE [B,T,H]

TFLite's operator keeps its state from one call to the next, and not every program resets it. So each sequence begins
with a reset step: one more input column, zero for real steps and large for the reset step, drives input and forget gate
to exactly 0, and with them cell and output. The answer then never depends on the call before.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from edgekit_converters.tflite.flatbuffer import (
    Model,
    add_constant,
    add_tensor,
    data_of,
    opcode_index,
    operators,
    schema,
    shape_of,
    text,
)
from edgekit_converters.tflite.torch_passes.mark_lstm import COMPOSITE

GATES = "ifco"  # torch's order of the four blocks of rows is TFLite's: input, forget, cell, output
# Large enough that a sigmoid is exactly 0 in float32 whatever the recurrent part adds; the column's weights are no
# larger than the others, so that it costs the int8 scale nothing.
RESET_DRIVE = 1.0e4
TANH = 4


def native_lstm(model: Model) -> int:
    """Replaces all markers in place and returns how many."""
    count = 0
    for subgraph in model.subgraphs:
        rewritten = []
        for kind, operator in operators(model, subgraph):
            if kind == "STABLEHLO_COMPOSITE" and text(operator.builtinOptions2.name) == COMPOSITE:
                rewritten.extend(_lstm(model, subgraph, operator))
                count += 1
            else:
                rewritten.append(operator)
        subgraph.operators = rewritten
    return count


def _lstm(model: Model, subgraph: Any, marker: Any) -> list[Any]:
    data, *constants = (int(index) for index in marker.inputs)
    batch, steps, features = shape_of(subgraph.tensors[data])
    values = [data_of(model, subgraph.tensors[index]) for index in constants]
    w_ih, w_hh = np.split(_known(values[0]), 4), np.split(_known(values[1]), 4)
    units = w_hh[0].shape[1]
    biases = np.split(sum((_known(value) for value in values[2:]), np.zeros(4 * units, np.float32)), 4)
    name = text(subgraph.tensors[int(marker.outputs[0])].name)
    build = _Builder(model, subgraph, name)

    largest = max(float(np.abs(block).max()) for block in w_ih)
    columns = {"i": -largest, "f": -largest, "c": 0.0, "o": 0.0}
    widened = [
        np.concatenate([block, np.full((units, 1), columns[gate], np.float32)], axis=1)
        for gate, block in zip(GATES, w_ih, strict=True)
    ]
    reset = np.zeros((batch, 1, features + 1), np.float32)
    reset[..., -1] = RESET_DRIVE / largest
    paddings = build.constant("paddings", np.array([[0, 0], [0, 0], [0, 1]], np.int32))
    padded = build.operator("PAD", [data, paddings], (batch, steps, features + 1), "PadOptions")
    joined = build.operator(
        "CONCATENATION",
        [build.constant("reset", reset), padded],
        (batch, steps + 1, features + 1),
        "ConcatenationOptions",
        axis=1,
    )
    inputs = [joined]
    inputs += [build.constant(f"w_ih_{gate}", block) for gate, block in zip(GATES, widened, strict=True)]
    inputs += [build.constant(f"w_hh_{gate}", block) for gate, block in zip(GATES, w_hh, strict=True)]
    inputs += [-1, -1, -1]  # peephole connections
    inputs += [build.constant(f"b_{gate}", block) for gate, block in zip(GATES, biases, strict=True)]
    inputs += [-1, -1]  # projection
    inputs += [build.variable("output_state", (batch, units)), build.variable("cell_state", (batch, units))]
    inputs += [-1, -1, -1, -1]  # layer normalisation
    sequence = build.operator(
        "UNIDIRECTIONAL_SEQUENCE_LSTM",
        inputs,
        (batch, steps + 1, units),
        "UnidirectionalSequenceLSTMOptions",
        fusedActivationFunction=TANH,
        timeMajor=False,
    )
    begin = build.constant("begin", np.array([0, 1, 0], np.int32))
    size = build.constant("size", np.array([batch, steps, units], np.int32))
    build.operator("SLICE", [sequence, begin, size], (batch, steps, units), "SliceOptions")
    build.operators[-1].outputs = list(marker.outputs)
    return build.operators


class _Builder:
    """Adds constants, state and operators around one LSTM."""

    def __init__(self, model: Model, subgraph: Any, name: str) -> None:
        self.model, self.subgraph, self.name = model, subgraph, name
        self.operators: list[Any] = []

    def constant(self, name: str, values: np.ndarray) -> int:
        return add_constant(self.model, self.subgraph, f"{self.name}.{name}", np.ascontiguousarray(values))

    def variable(self, name: str, shape: tuple[int, ...]) -> int:
        index = add_tensor(self.model, self.subgraph, f"{self.name}.{name}", shape)
        self.subgraph.tensors[index].isVariable = True
        return index

    def operator(self, kind: str, inputs: Sequence[int], shape: tuple[int, ...], options: str, **fields: Any) -> int:
        output = add_tensor(self.model, self.subgraph, f"{self.name}", shape)
        operator = schema().OperatorT()
        operator.opcodeIndex = opcode_index(self.model, kind)
        operator.inputs, operator.outputs = list(inputs), [output]
        operator.builtinOptionsType = getattr(schema().BuiltinOptions, options)
        operator.builtinOptions = getattr(schema(), f"{options}T")()
        for field, value in fields.items():
            setattr(operator.builtinOptions, field, value)
        self.operators.append(operator)
        return output


def _known(values: np.ndarray | None) -> np.ndarray:
    if values is None:
        raise ValueError("an LSTM's weights are computed at run time")
    return values
