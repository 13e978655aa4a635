"""Multiply-accumulates and weight bytes of one operator."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING

from edgekit_converters.onnx.edit import attribute, constant

if TYPE_CHECKING:
    import onnx_ir as ir

Shapes = Mapping[str, tuple[int, ...]]
_GATES = {"LSTM": 4, "GRU": 3, "RNN": 1}


def shape_of(value: ir.Value | None, shapes: Shapes) -> tuple[int, ...]:
    """Shape of a constant or of an observed tensor; empty where unknown."""
    found = constant(value)
    if found is not None:
        return found.shape
    return shapes.get(value.name or "", ()) if value is not None else ()


def macs(node: ir.Node, shapes: Shapes) -> int:
    """Multiply-accumulates of one run with tensors of the given shapes; 0 for operators without any."""
    out = math.prod(shape_of(node.outputs[0], shapes)) if node.outputs else 0
    if node.op_type == "Conv":
        return out * math.prod(shape_of(node.inputs[1], shapes)[1:])
    if node.op_type == "ConvTranspose":
        weight = shape_of(node.inputs[1], shapes)
        return math.prod(shape_of(node.inputs[0], shapes)) * math.prod(weight[1:])
    if node.op_type == "Gemm":
        left = shape_of(node.inputs[0], shapes)
        return out * (left[0] if attribute(node, "transA", 0) else left[-1]) if left else 0
    if node.op_type == "MatMul":
        left = shape_of(node.inputs[0], shapes)
        return out * left[-1] if left else 0
    if node.op_type in _GATES:
        recurrent = shape_of(node.inputs[2], shapes)
        steps = shape_of(node.inputs[0], shapes)
        if len(recurrent) == 3 and len(steps) == 3:
            return steps[0] * steps[1] * (math.prod(shape_of(node.inputs[1], shapes)) + math.prod(recurrent))
    return 0


def touched_bytes(node: ir.Node, shapes: Shapes) -> int:
    """How many of `weight_bytes` one run reads: the rows looked up (each as often as it is), else all."""
    total = weight_bytes(node)
    if node.op_type == "Slice" and total:
        return min(
            total, math.prod(shape_of(node.outputs[0], shapes)) * total // math.prod(shape_of(node.inputs[0], shapes))
        )
    if node.op_type != "Gather" or not total:
        return total
    table, ids = shape_of(node.inputs[0], shapes), shape_of(node.inputs[1], shapes)
    rows = table[attribute(node, "axis", 0)]
    return min(total, total // max(rows, 1) * math.prod(ids))


def weight_bytes(node: ir.Node) -> int:
    """Bytes of the operator's own constant weights; constants of fewer than two axes (biases, scalars) do not count."""
    if node.op_type in ("Reshape", "Pad", "Transpose", "Expand", "Tile", "Resize"):
        return 0
    found = [constant(value) for value in node.inputs]
    return sum(
        int(array.nbytes) for array in found if array is not None and array.ndim >= 2 and array.dtype.kind == "f"
    )
