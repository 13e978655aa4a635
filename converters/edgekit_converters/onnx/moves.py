"""Operators that only move or choose int8 values run on the codes themselves.

before: q ──► DequantizeLinear ──► Slice ──► QuantizeLinear ──► q'
after:  q ──► Slice ──► q'                       (a Pad fills with the zero point instead of 0.0)

Both sides have the same scale and zero point, so the codes are already the answer. The engine does this for some
operators and some versions; written this way it is true for all.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from edgekit_converters.onnx.edit import Editor

if TYPE_CHECKING:
    import onnx_ir as ir

_ON_CODES = {"Slice", "Pad", "ReduceMax"}


def apply(editor: Editor) -> None:
    """Takes the pairs away around Slice, Pad and ReduceMax; edits the graph."""
    for node in list(editor.graph):
        if node.op_type not in _ON_CODES:
            continue
        source = _producer(node.inputs[0], "DequantizeLinear")
        readers = [use.node for use in node.outputs[0].uses()]
        if source is None or len(readers) != 1 or readers[0].op_type != "QuantizeLinear":
            continue
        target = readers[0]
        if source.inputs[1] is not target.inputs[1] or source.inputs[2] is not target.inputs[2]:
            continue
        node.replace_input_with(0, source.inputs[0])
        moved = _fill(editor, node, source.inputs[2]) if node.op_type == "Pad" else node.outputs[0]
        editor.replace(target.outputs[0], moved)
        editor.remove(target)


def _producer(value: ir.Value | None, kind: str) -> ir.Node | None:
    node = value.producer() if value is not None else None
    return node if node is not None and node.op_type == kind else None


def _fill(editor: Editor, pad: ir.Node, zero: ir.Value | None) -> ir.Value:
    """The Pad's output, filling with the zero point."""
    if len(pad.inputs) > 2:
        pad.replace_input_with(2, zero)
        return pad.outputs[0]
    made = editor.node(pad, "Pad", [*pad.inputs, zero], **{k: a.value for k, a in pad.attributes.items()})[0]
    editor.replace(pad.outputs[0], made)
    editor.remove(pad)
    return made
