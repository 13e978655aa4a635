"""Pass: keeps sums over rows that meet in one place (graph networks) in one piece through litert-torch.

    before: aten.index_add(target [N, ...], 0, index [E], source [E, ...])            lowered to a scatter that LiteRT
            aten.scatter_add(target, 0, index expanded to [E, ...], source)           does not prepare
            aten.index_put(target, [index], source, accumulate=True)
    after:  composite "edgekit.scatter_rows"(target, index, source)

The composite's body is a cheap stand-in of the right shape; `passes.scatter_rows` puts operators in its place after
lowering. In-place forms count where nobody reads the old target afterwards.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch

COMPOSITE = "edgekit.scatter_rows"


def mark_scatter(module: torch.fx.GraphModule) -> int:
    """Replaces the scatters it can in place and returns how many."""
    marked = 0
    for node in list(module.graph.nodes):
        found = _rows(node)
        if found is None:
            continue
        with module.graph.inserting_before(node):
            new = module.graph.call_function(marked_scatter, found)
            new.meta = dict(node.meta)
        node.replace_all_uses_with(new)
        module.graph.erase_node(node)
        marked += 1
    if marked:
        module.graph.lint()
        module.recompile()
    return marked


def _rows(node: torch.fx.Node) -> tuple[torch.fx.Node, torch.fx.Node, torch.fx.Node] | None:
    """(target, index [E], source) of a sum along axis 0; None for anything else."""
    import torch

    aten = torch.ops.aten
    target: Any
    if node.target in (aten.index_add.default, aten.index_add_.default):
        target, axis, index, source = node.args
        if axis % max(_rank(target), 1) or node.kwargs.get("alpha", 1) != 1:
            return None
    elif node.target in (aten.scatter_add.default, aten.scatter_add_.default):
        target, axis, index, source = node.args
        index = _expanded_from(index) if _rank(target) > 1 else index
        same = index is not None and index.meta["val"].shape[0] == source.meta["val"].shape[0]
        if axis % max(_rank(target), 1) or not same or source.meta["val"].shape[1:] != target.meta["val"].shape[1:]:
            return None
    elif node.target in (aten.index_put.default, aten.index_put_.default):
        target, indices, source, *accumulate = node.args
        if len(indices) != 1 or indices[0] is None or not (accumulate and accumulate[0]):
            return None
        (index,) = indices
        if source.meta["val"].dim() != _rank(target):
            return None
    else:
        return None
    if _rank(index) != 1 or index.meta["val"].dtype.is_floating_point or not _is_last_reader(node, target):
        return None
    return target, index, source


def _rank(node: torch.fx.Node) -> int:
    return int(node.meta["val"].dim())


def _expanded_from(node: torch.fx.Node) -> torch.fx.Node | None:
    """The index [E] behind [E, 1, ...] that was expanded over the columns."""
    import torch

    aten = torch.ops.aten
    repeats = (aten.expand.default, aten.expand_as.default, aten.repeat.default)
    reshapes = (aten.unsqueeze.default, aten.view.default, aten.reshape.default)
    if node.target not in repeats:
        return None
    current: Any = node.args[0]
    if any(int(size) != 1 for size in current.meta["val"].shape[1:]):
        return None
    while current.target in reshapes and _rank(current) > 1:
        current = current.args[0]
    index = current.target == aten.select.int or _rank(current) == 1
    return current if index and _rank(current) == 1 else None


def _is_last_reader(node: torch.fx.Node, target: torch.fx.Node) -> bool:
    """Whether what an in-place form leaves in `target` is read through the node only."""
    if not str(node.target).split(".")[1].endswith("_"):
        return True
    order = {each: place for place, each in enumerate(node.graph.nodes)}
    if target.op == "placeholder" or str(target.target).split(".")[-2:-1] == ["view"]:
        return False
    return all(user is node or order[user] < order[node] for user in target.users)


def marked_scatter(target: torch.Tensor, index: torch.Tensor, source: torch.Tensor) -> torch.Tensor:
    """A stand-in of the answer's shape, value meaningless."""
    from litert_torch.backend.composite import StableHLOCompositeBuilder

    builder: Any = StableHLOCompositeBuilder(COMPOSITE)
    target, index, source = builder.mark_inputs(target, index, source)
    # Everything is used, so that nothing is dropped.
    total = target + source.sum(dim=0, keepdim=True) + index.sum().to(target.dtype)
    return builder.mark_outputs(total)
