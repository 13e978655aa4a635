"""Pass: chains of 1-D convolutions as 2-D ones of height 1, so that they stay in the engine's layout from end to end.

    before: x [N,C,L] ──► conv1d ──► relu ──► add ──► slice, cat ──► conv1d ──► relu ──► ... ──► y [N,C,L]
    after:  x ──► unsqueeze(2) ──► conv2d ──► relu ──► add ──► slice, cat ──► conv2d ──► ... ──► squeeze(2) ──► y

TFLite has 2-D convolutions over [N,H,W,C] only. litert-torch moves the transposes around them together, but not across
the reshapes that make a 1-D convolution one of them: every layer would copy its input and its output twice. A single
convolution, or several side by side, would gain nothing and are left alone.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch
    from torch.fx import Node

_RANK = 3


def widen_conv1d(module: torch.fx.GraphModule) -> int:
    """Widens every region in which one 1-D convolution feeds another, in place; returns how many operators it holds."""
    import torch

    aten, graph = torch.ops.aten, module.graph
    forms = _forms()
    region = _regions(graph, forms)
    wide: dict[Node, Node] = {}
    for node in [node for node in graph.nodes if node in region]:
        with graph.inserting_before(node):
            for one in _data(node):
                if one not in wide:  # it comes from outside, where it keeps three axes
                    wide[one] = _enter(graph, one, node)
            args, kwargs = torch.fx.node.map_arg(forms[node.target](node), lambda one: wide.get(one, one))
            if _is_conv(node):
                args = (args[0], _call(graph, aten.unsqueeze.default, (node.args[1], 2), node), *args[2:])
            wide[node] = _call(graph, aten.conv2d.default if _is_conv(node) else node.target, args, node, kwargs)
    for node in region:
        for reader in [user for user in node.users if user not in region]:
            with graph.inserting_before(reader):
                _leave(graph, wide[node], node, reader)
    for node in reversed([node for node in graph.nodes if node in region]):
        graph.erase_node(node)
    if region:
        graph.eliminate_dead_code()  # turns that nobody reads any more
        graph.lint()
        module.recompile()
    return len(region)


def _regions(graph: torch.fx.Graph, forms: dict[Any, Any]) -> set[Node]:
    """Operators that have a wide form, connected with a convolution that another one feeds through such operators."""
    able = {node for node in graph.nodes if _able(node, forms)}
    below_conv: set[Node] = set()
    front: list[Node] = []
    for node in graph.nodes:
        if node in able:
            fed = any(one in below_conv for one in _data(node))
            if fed and _is_conv(node):
                front.append(node)
            if fed or _is_conv(node):
                below_conv.add(node)
    found: set[Node] = set()
    while front:
        node = front.pop()
        if node in able and node not in found:
            found.add(node)
            front += [*_data(node), *node.users]
    return found


def _enter(graph: torch.fx.Graph, one: Node, of: Node) -> Node:
    """A tensor from outside with an axis more; [N,L,C] that was turned is read in the engine's layout."""
    import torch

    aten = torch.ops.aten
    if not _turns(one):
        return _call(graph, aten.unsqueeze.default, (one, 2), of)
    high = _call(graph, aten.unsqueeze.default, (one.args[0], 1), one)
    return _call(graph, aten.permute.default, (high, [0, 3, 1, 2]), one)


def _leave(graph: torch.fx.Graph, wide: Node, node: Node, reader: Node) -> None:
    """Gives a reader outside the region the tensor of three axes, and one that turns it the engine's layout."""
    import torch

    aten = torch.ops.aten
    if not _turns(reader):
        reader.replace_input_with(node, _call(graph, aten.squeeze.dim, (wide, 2), node))
        return
    turned = _call(graph, aten.permute.default, (wide, [0, 2, 3, 1]), reader)
    reader.replace_all_uses_with(_call(graph, aten.squeeze.dim, (turned, 1), reader))
    graph.erase_node(reader)


def _turns(node: Node) -> bool:
    """Whether a node swaps the last two of three axes."""
    import torch

    swaps = node.target == torch.ops.aten.transpose.int and _rank(node) == _RANK
    return swaps and {int(axis) % _RANK for axis in node.args[1:3]} == {1, 2}  # type: ignore[call-overload]


def _able(node: Node, forms: dict[Any, Any]) -> bool:
    if node.op != "call_function" or node.target not in forms or _rank(node) != _RANK:
        return False
    return all(_rank(one) == _RANK for one in _data(node)) and forms[node.target](node) is not None


def _data(node: Node) -> list[Node]:
    """Tensors that an operator computes on, its weights left aside."""
    return [node.args[0]] if _is_conv(node) else list(node.all_input_nodes)  # type: ignore[list-item]


def _is_conv(node: Node) -> bool:
    import torch

    return bool(node.target == torch.ops.aten.conv1d.default)


def _rank(node: Node) -> int:
    value = node.meta.get("val")
    return len(value.shape) if hasattr(value, "shape") else -1


def _call(graph: torch.fx.Graph, target: Any, args: Any, of: Node, kwargs: Any = None) -> Node:
    """A new operator that says of itself what the one it stands for does: module, file and line."""
    made = graph.call_function(target, tuple(args), dict(kwargs or {}))
    made.meta = {key: value for key, value in of.meta.items() if key != "val"}
    return made


# Each gives the arguments of the wide operator, or None where there is none.
_Form = Callable[["Node"], tuple[tuple[Any, ...], dict[str, Any]] | None]


def _same(node: Node) -> tuple[tuple[Any, ...], dict[str, Any]]:
    return node.args, node.kwargs


def _conv(node: Node) -> tuple[tuple[Any, ...], dict[str, Any]] | None:
    if node.kwargs:
        return None
    defaults: tuple[Any, ...] = (None, None, None, [1], [0], [1], 1)
    given: tuple[Any, ...] = node.args
    x, weight, bias, stride, padding, dilation, groups = (*given, *defaults[len(given) :])
    one = [[1, *stride], [0, *padding], [1, *dilation]]
    return (x, weight, bias, *one, groups), {}


def _along(default: int | None) -> _Form:
    """Operators with an axis as their second argument."""

    def form(node: Node) -> tuple[tuple[Any, ...], dict[str, Any]] | None:
        axis = node.args[1] if len(node.args) > 1 else default
        if not isinstance(axis, int) or node.kwargs:
            return None
        last = axis % _RANK == _RANK - 1  # the new axis stands before it
        return (node.args[0], _RANK if last else axis % _RANK, *node.args[2:]), {}

    return form


def _pad(node: Node) -> tuple[tuple[Any, ...], dict[str, Any]] | None:
    # Amounts come from the last axis backwards; [left, right] alone pads that one only.
    mode = node.args[2] if len(node.args) > 2 else "constant"
    amounts = node.args[1]
    plain = isinstance(amounts, (list, tuple)) and len(amounts) == 2 and not node.kwargs
    return (node.args, {}) if plain and mode == "constant" else None


def _forms() -> dict[Any, _Form]:
    import torch

    aten = torch.ops.aten
    plain = (
        aten.relu.default, aten.sigmoid.default, aten.tanh.default, aten.silu.default, aten.gelu.default,
        aten.hardswish.default, aten.leaky_relu.default, aten.add.Tensor, aten.sub.Tensor, aten.mul.Tensor,
        aten.dropout.default,
    )  # fmt: skip
    return {
        **dict.fromkeys(plain, _same),
        aten.conv1d.default: _conv,
        aten.pad.default: _pad,
        aten.narrow.default: _along(None),
        aten.slice.Tensor: _along(0),
        aten.cat.default: _along(0),
        aten.glu.default: _along(-1),
    }
