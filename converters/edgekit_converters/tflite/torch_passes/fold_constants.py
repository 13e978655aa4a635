"""Pass: what depends on no input is computed here, not lowered.

    before: aten.eye(20) ──► expand(batch, ...)     lowered: STABLEHLO_IOTA and EQUAL, for which LiteRT has no kernel
    after:  get_attr("folded_0") ──► expand(batch, ...)
    before: aten._weight_norm(v, g) ──► conv1d      lowered: the weight is computed in every run, in floating point
    after:  get_attr("folded_1") ──► conv1d

Weights that are only looked at another way (transposed, sliced) stay as they are: a copy would cost its bytes twice.
"""

from __future__ import annotations

import operator
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch

# Elements. Larger ones (a mask for every pair of positions) are cheaper to compute than to ship.
LARGEST = 1 << 16


def fold_constants(module: torch.fx.GraphModule) -> int:
    """Replaces calls without inputs by their values in place and returns how many values the module now holds."""
    import torch

    values: dict[torch.fx.Node, torch.Tensor] = {}
    computed: set[torch.fx.Node] = set()
    for node in module.graph.nodes:
        if node.op == "get_attr":
            found = operator.attrgetter(node.target)(module)
            if isinstance(found, torch.Tensor):
                values[node] = found.detach()
        elif _is_constant(node, values):
            given = torch.fx.node.map_arg((node.args, node.kwargs), values.__getitem__)
            with torch.no_grad():
                answer = node.target(*given[0], **given[1])
            before = max((values[one].numel() for one in node.all_input_nodes), default=0)
            if isinstance(answer, torch.Tensor) and answer.numel() <= max(before, LARGEST):
                values[node] = answer
                if not node.target.is_view or any(one in computed for one in node.all_input_nodes):
                    computed.add(node)
    kept = [node for node in computed if any(user not in computed for user in node.users)]
    kept.sort(key=list(module.graph.nodes).index)
    for number, node in enumerate(kept):
        name = f"folded_{number}"
        module.register_buffer(name, values[node].contiguous(), persistent=False)
        with module.graph.inserting_before(node):
            held = module.graph.get_attr(name)
        held.meta = dict(node.meta)
        node.replace_all_uses_with(held)
    if kept:
        module.graph.eliminate_dead_code()
        module.graph.lint()
        module.recompile()
    return len(kept)


def _is_constant(node: torch.fx.Node, values: dict[torch.fx.Node, Any]) -> bool:
    import torch

    if node.op != "call_function" or not isinstance(node.target, torch._ops.OpOverload):
        return False
    plain = node.target.namespace == "aten" and torch.Tag.nondeterministic_seeded not in node.target.tags
    return plain and not node.target._schema.is_mutable and all(one in values for one in node.all_input_nodes)
