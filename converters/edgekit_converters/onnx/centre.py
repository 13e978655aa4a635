"""Tables of matrices near the identity hold what they differ from it (`recipe.centre`), before they become int8.

before: ids ──► Gather(table) ──► rows
after:  ids ──► Gather(table - I) ──► Add(I) ──► rows
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from edgekit_converters.onnx.edit import Editor, attribute, constant
from edgekit_converters.recipe.centre import centre

if TYPE_CHECKING:
    import onnx_ir as ir


def apply(model: ir.Model) -> int:
    """Rewrites Gathers of rows in place and returns how many; the graph still answers the same in fp32."""
    editor = Editor(model)
    count = 0
    for node in list(model.graph):
        table = constant(node.inputs[0]) if node.op_type == "Gather" and attribute(node, "axis", 0) == 0 else None
        middle = centre(table) if table is not None and table.dtype.kind == "f" else None
        if table is None or middle is None:
            continue
        rows = editor.node(node, "Gather", [editor.constant(table - middle), node.inputs[1]], name=node.name or "")[0]
        rows.producer().metadata_props.update(node.metadata_props)  # type: ignore[union-attr]
        whole = editor.node(node, "Add", [rows, editor.constant(middle)], name=f"{node.name}/Centre")[0]
        rows.type = whole.type = node.outputs[0].type
        rows.shape = whole.shape = node.outputs[0].shape
        editor.replace(node.outputs[0], whole)
        editor.remove(node)
        count += 1
    return count
