"""Embedding tables in int8 with a scale a row; what picks rows is Gather, or Slice (places from 0 to T).

before: ids ──► Gather(table float32 [V,D]) ──► rows
after:  ids ──► Gather(table int8 [V,D]) ──► Cast ──┐
        ids ──► Gather(scales float32 [V,1]) ───────┴► Mul ──► rows

onnxruntime's own quantized Gather has one scale for the whole table: a frequent word's large row would cost every rare
word its digits. Looked-up rows only are dequantized, so the table itself may stay on disk (memory-mapped).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from edgekit_converters.onnx.edit import Editor, constant
from edgekit_converters.onnx.qmath import quantize_weight

if TYPE_CHECKING:
    import onnx_ir as ir


def apply(editor: Editor, nodes: list[ir.Node]) -> None:
    """Rewrites Gather and Slice nodes that take rows of constant tables [V, D]; edits the graph."""
    import onnx_ir as ir

    for node in nodes:
        table = constant(node.inputs[0])
        assert table is not None
        codes, scale = quantize_weight(table, 0)
        which = node.inputs[1:]
        how: dict[str, Any] = {"axis": 0} if node.op_type == "Gather" else {}
        picked = editor.one(node, node.op_type, editor.constant(codes), *which, **how)
        scales = editor.one(node, node.op_type, editor.constant(scale[:, None]), *which, **how)
        rows = editor.one(node, "Cast", picked, to=int(ir.DataType.from_numpy(np.dtype(table.dtype))))
        editor.replace(node.outputs[0], editor.one(node, "Mul", rows, scales))
        editor.remove(node)
