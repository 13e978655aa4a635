"""Small tools for editing an onnx-ir graph: constants that are shared, nodes that are put in before others."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    import onnx_ir as ir

CONTRIB = "com.microsoft"


def constant(value: ir.Value | None) -> np.ndarray | None:
    """The array behind an initializer, None for anything that is computed or given at run time."""
    if value is None or value.const_value is None or value.is_graph_input():
        return None
    return value.const_value.numpy()


def attribute(node: ir.Node, name: str, default: Any) -> Any:
    """An attribute's plain value."""
    found = node.attributes.get(name)
    return default if found is None else found.value


def consumers(value: ir.Value) -> list[ir.Node]:
    """Nodes that read the value, each once."""
    found: list[ir.Node] = []
    for node, _ in value.uses():
        if node not in found:
            found.append(node)
    return found


def has_subgraphs(model: ir.Model) -> bool:
    """Whether a node (If, Loop, Scan) holds a graph of its own, whose values share names with the outer one."""
    return sum(1 for _ in model.graph.all_nodes()) > len(model.graph)


class Editor:
    """Edits one graph. Equal constants become one initializer."""

    def __init__(self, model: ir.Model) -> None:
        self.model = model
        self.graph = model.graph
        self._constants: dict[tuple[str, tuple[int, ...], bytes], ir.Value] = {}
        self._counter = 0
        self._taken = {value.name for value in (*self.graph.inputs, *self.graph.initializers.values())}
        self._taken |= {
            value.name for node in self.graph.all_nodes() for value in (*node.inputs, *node.outputs) if value
        }

    def constant(self, array: np.ndarray | np.generic) -> ir.Value:
        """An initializer that holds the array; the same one for equal arrays."""
        import onnx_ir as ir

        array = np.asarray(array)
        key = (array.dtype.str, array.shape, array.tobytes())
        if key not in self._constants:
            name = self._fresh("k")
            value = ir.Value(
                name=name,
                const_value=ir.tensor(np.ascontiguousarray(array).reshape(array.shape), name=name),
                shape=ir.Shape(array.shape),
                type=ir.TensorType(ir.DataType.from_numpy(array.dtype)),
            )
            self.graph.register_initializer(value)
            self._constants[key] = value
        return self._constants[key]

    def node(
        self,
        before: ir.Node | None,
        kind: str,
        inputs: Sequence[ir.Value | None],
        *,
        outputs: int = 1,
        domain: str = "",
        name: str = "",
        **attributes: Any,
    ) -> list[ir.Value]:
        """Puts a node in front of `before` (None: at the end) and returns its outputs."""
        import onnx_ir as ir

        if domain:
            self.model.opset_imports.setdefault(domain, 1)
        made = ir.node(kind, list(inputs), attributes=attributes, domain=domain, num_outputs=outputs, name=name)
        for value in made.outputs:
            value.name = self._fresh("t")
        if before is None:
            self.graph.append(made)
        else:
            self.graph.insert_before(before, made)
        return list(made.outputs)

    def one(
        self, before: ir.Node | None, kind: str, *inputs: ir.Value | None, domain: str = "", **attributes: Any
    ) -> ir.Value:
        """Puts in a node with one output and returns that."""
        return self.node(before, kind, inputs, domain=domain, **attributes)[0]

    def replace(self, old: ir.Value, new: ir.Value) -> None:
        """All readers of `old` read `new`; a graph output keeps its name, dtype and shape."""
        if not old.is_graph_output():
            old.replace_all_uses_with(new)
            return
        if new.is_graph_output() or new.is_graph_input() or new.is_initializer():
            producer = old.producer()
            new = self.one(producer, "Identity", new)
        name, shape, dtype = old.name, old.shape, old.type
        old.replace_all_uses_with(new, replace_graph_outputs=True)
        old.name = self._fresh("t")
        new.name, new.shape, new.type = name, shape, dtype

    def remove(self, *nodes: ir.Node) -> None:
        """Takes nodes out whose outputs nobody reads any more."""
        for node in nodes:
            self.graph.remove(node, safe=True)

    def finish(self) -> None:
        """Drops what is unused, sorts, and forgets inner shapes (the engine infers them again)."""
        import onnx_ir.passes.common as common

        common.RemoveUnusedNodesPass()(self.model)
        common.RemoveUnusedOpsetsPass()(self.model)
        common.TopologicalSortPass()(self.model)
        border = {id(value) for value in (*self.graph.inputs, *self.graph.outputs)}
        for node in self.graph:
            for value in node.outputs:
                if id(value) not in border:
                    value.shape, value.type = None, None

    def _fresh(self, prefix: str) -> str:
        self._counter += 1
        while f"{prefix}{self._counter}" in self._taken:
            self._counter += 1
        return f"{prefix}{self._counter}"
