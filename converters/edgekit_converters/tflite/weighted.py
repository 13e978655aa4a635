"""Operators that multiply or hold weights: their constants, their multiply-accumulates, their data."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

from edgekit_converters.tflite.flatbuffer import Model, dtype_of, is_constant, operators, shape_of, text
from edgekit_runtime.macs import macs

# Operand that holds the weights: filter, weight matrix, table. -1: no such operand.
WEIGHT_OPERAND = {
    "CONV_2D": 1,
    "DEPTHWISE_CONV_2D": 1,
    "TRANSPOSE_CONV": 1,
    "CONV_3D": 1,
    "FULLY_CONNECTED": 1,
    "BATCH_MATMUL": 1,
    "EMBEDDING_LOOKUP": 1,
    "GATHER": 0,
}
LSTM = "UNIDIRECTIONAL_SEQUENCE_LSTM"  # in .tflite sources; torch students get `passes.step_recurrent`
LSTM_WEIGHTS = range(1, 9)  # four input-to-gate and four recurrent matrices


@dataclasses.dataclass(frozen=True)
class Weighted:
    """An operator with multiply-accumulates or constant weights.

    Attributes:
        name: Name of its first output tensor.
        kind: Operator type.
        macs: Multiply-accumulates of one run.
        operator: The schema object.
        subgraph: The subgraph it stands in.
        weights: Indices of its constant weight tensors in the subgraph.
        data: Index of the tensor it computes on.
    """

    name: str
    kind: str
    macs: int
    operator: Any
    subgraph: Any
    weights: tuple[int, ...]
    data: int


def weighted_operators(model: Model, subgraph: Any) -> list[Weighted]:
    """All operators of a subgraph that multiply or hold weights, in order of execution."""
    found = []
    for kind, operator in operators(model, subgraph):
        if kind == LSTM:
            weights = tuple(int(operator.inputs[index]) for index in LSTM_WEIGHTS)
            data = 0
        elif kind in WEIGHT_OPERAND:
            position = WEIGHT_OPERAND[kind]
            index = int(operator.inputs[position])
            weights = (index,) if is_constant(model, subgraph.tensors[index]) else ()
            data = {"EMBEDDING_LOOKUP": 0, "GATHER": 1, "TRANSPOSE_CONV": 2}.get(kind, 0)
            if kind == "GATHER" and not weights:
                continue
        else:
            continue
        inputs = [shape_of(subgraph.tensors[int(index)]) if int(index) >= 0 else () for index in operator.inputs]
        output = shape_of(subgraph.tensors[int(operator.outputs[0])])
        found.append(
            Weighted(
                name=text(subgraph.tensors[int(operator.outputs[0])].name),
                kind=kind,
                macs=macs(kind, inputs, [output]) or 0,
                operator=operator,
                subgraph=subgraph,
                weights=tuple(index for index in weights if index >= 0),
                data=int(operator.inputs[data]),
            )
        )
    return found


def weight_bytes_fp32(weighted: Weighted) -> int:
    """Bytes of an operator's constant weights if each were float32."""
    return sum(4 * math.prod(shape_of(weighted.subgraph.tensors[index])) for index in weighted.weights)


def touched_bytes_fp32(weighted: Weighted) -> int:
    """How many of `weight_bytes_fp32` one run reads: the rows looked up (each as often as it is), else all."""
    total = weight_bytes_fp32(weighted)
    if weighted.kind not in ("EMBEDDING_LOOKUP", "GATHER") or not total:
        return total
    rows = shape_of(weighted.subgraph.tensors[weighted.weights[0]])[0]
    ids = math.prod(shape_of(weighted.subgraph.tensors[weighted.data]))
    return min(total, total // max(rows, 1) * ids)


def is_int8(tensor: Any) -> bool:
    """Whether a tensor holds 8-bit integers (or fewer bits)."""
    return dtype_of(tensor) in ("int8", "uint8", "int4", "int2")
