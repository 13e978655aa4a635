"""Short, unique, telling names: nodes after the student's modules, values after nothing at all.

before: node_conv2d_17 (8 metadata strings, 2 kB)     after: layer1.0.conv1/Conv      `where`: r20.py:9
        value  _native_batch_norm_legit_no_training_3         bk

The student's own input and output names are set last and win: an inner value that carries one of them is renamed first.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import onnx_ir as ir

_SCOPES = "pkg.torch.onnx.name_scopes"
_TRACE = "pkg.torch.onnx.stack_trace"
_WEIGHT = ".weight"
_FRAME = re.compile(r'File "([^"]+)", line (\d+)')


def where_of(node: ir.Node) -> str:
    """`file.py:line` of the student's own code that made this node, empty where the exporter does not tell."""
    return place(node.metadata_props.get(_TRACE, ""))


def place(trace: str) -> str:
    """`file.py:line` of the innermost frame outside torch; code of other libraries counts as the student's."""
    for path, line in reversed(_FRAME.findall(trace)):
        parts = path.replace("\\", "/").split("/")
        if "torch" not in parts:
            return f"{parts[-1]}:{line}"
    return ""


def module_of(node: ir.Node) -> str:
    """Dotted path of the module that made this node, empty for the student's own forward.

    The owner of its weight comes first: a Conv that a BatchNormalization was folded into carries the latter's scopes.
    """
    weight = node.inputs[1] if len(node.inputs) > 1 else None
    if weight is not None and weight.is_initializer() and (weight.name or "").endswith(_WEIGHT):
        return (weight.name or "").removesuffix(_WEIGHT)
    try:
        scopes = ast.literal_eval(node.metadata_props.get(_SCOPES, "[]"))
    except (ValueError, SyntaxError):
        return ""
    named = [str(scope) for scope in scopes[:-1] if scope and not str(scope).startswith("_empty_nn_module")]
    return named[-1] if named else ""


def rename(model: ir.Model, inputs: Sequence[str], outputs: Sequence[str]) -> dict[str, str]:
    """Renames all nodes and values in place and strips metadata and doc strings.

    Args:
        model: The graph; its inputs and outputs are in the student's order.
        inputs: The student's input names.
        outputs: The student's output names.

    Returns:
        Node name -> `file.py:line`, for nodes whose exporter told it.
    """
    from onnx_ir.passes.common import ClearMetadataAndDocStringPass

    graph = model.graph
    taken: set[str] = set()
    wheres: dict[str, str] = {}
    for node in graph:
        where = where_of(node)
        node.name = _unique("/".join(part for part in (module_of(node), node.op_type) if part), taken)
        if where:
            wheres[node.name] = where
    rename_values(model, inputs, outputs)
    ClearMetadataAndDocStringPass()(model)
    for value in (*graph.inputs, *graph.outputs, *graph.initializers.values(), *(o for n in graph for o in n.outputs)):
        value.metadata_props.clear()
        value.doc_string = None
    graph.metadata_props.clear()
    graph.name = "student"
    return wheres


def complete(model: ir.Model) -> None:
    """Gives every node of a graph that was not exported here a unique name and keeps the names it has."""
    taken: set[str] = set()
    for index, node in enumerate(model.graph):
        node.name = _unique(node.name or f"{node.op_type}_{index}", taken)


def rename_values(model: ir.Model, inputs: Sequence[str], outputs: Sequence[str]) -> None:
    """Gives inner values and initializers short names in graph order, inputs and outputs the given ones."""
    graph = model.graph
    kept = {*inputs, *outputs}
    counter = 0

    def fresh() -> str:
        nonlocal counter
        while True:
            name = _letters(counter)
            counter += 1
            if name not in kept:
                return name

    border = {id(value) for value in (*graph.inputs, *graph.outputs)}
    renamed: set[int] = set()
    initializers = list(graph.initializers.values())
    # Two steps, so that no new name collides with an old one that is still in use.
    for index, value in enumerate(initializers):
        value.name = f"\0i{index}"
    for node in graph.all_nodes():
        for read in node.inputs:
            if read is not None and read.is_initializer() and id(read) not in renamed:
                renamed.add(id(read))
                read.name = fresh()
        inside = _subgraphs(node)
        for value in (value for body in inside for value in body.inputs):
            value.name = fresh()
        for value in node.outputs:
            if id(value) not in border:
                # The engine leaves out what nobody reads, but wants every output of a Scan or Loop named.
                value.name = fresh() if value.uses() or value.is_graph_output() or inside else ""
    for value, name in zip(graph.inputs, inputs, strict=True):
        value.name = name
    for value, name in zip(graph.outputs, outputs, strict=True):
        value.name = name


def _letters(number: int) -> str:
    """a, b, ... z, aa, ab, ...: a graph of 700 values has no name of more than two letters."""
    name = ""
    while number >= 0:
        name = chr(ord("a") + number % 26) + name
        number = number // 26 - 1
    return name


def _subgraphs(node: ir.Node) -> list[ir.Graph]:
    import onnx_ir as ir

    return [attribute.as_graph() for attribute in node.attributes.values() if attribute.type == ir.AttributeType.GRAPH]


def _unique(name: str, taken: set[str]) -> str:
    candidate, number = name, 2
    while candidate in taken:
        candidate, number = f"{name}_{number}", number + 1
    taken.add(candidate)
    return candidate
