"""Pass: keeps each LSTM layer and direction in one piece through litert-torch.

    before: aten.lstm.input(x, (0, 0), weights)              lowered to one set of operators a time step
    after:  [flip ->] composite "edgekit.lstm"(x, w_ih, w_hh, b_ih, b_hh) [-> flip], one a layer and direction

The composite's body is a cheap stand-in of the right shape. `passes.step_lstm` puts the calls of a step in its place
after lowering. The final hidden state is the last step of each direction. An LSTM whose initial state is given, or
whose final cell is used, is left alone.
"""

from __future__ import annotations

import operator
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch

COMPOSITE = "edgekit.lstm"


def mark_lstm(module: torch.fx.GraphModule) -> int:
    """Replaces the LSTMs it can in place and returns how many."""
    import torch

    marked = 0
    for node in list(module.graph.nodes):
        if node.target is torch.ops.aten.lstm.input and _can_mark(node):
            _replace(module.graph, node)
            marked += 1
    if marked:
        module.graph.lint()
        module.recompile()
    return marked


def _can_mark(node: torch.fx.Node) -> bool:
    """Zero initial state, final cell not used, no projection, [B, T, F] or [T, B, F]."""
    import torch

    data, state, weights, has_biases, layers, _, _, bidirectional, _ = node.args
    zeros = all(entry.target in (torch.ops.aten.zeros.default, torch.ops.aten.new_zeros.default) for entry in state)
    no_cell = all(user.target is operator.getitem and (user.args[1] < 2 or not user.users) for user in node.users)
    plain = len(weights) == layers * (2 if bidirectional else 1) * (4 if has_biases else 2)
    return zeros and no_cell and plain and data.meta["val"].dim() == 3


def _replace(graph: torch.fx.Graph, node: torch.fx.Node) -> None:
    data, _, weights, has_biases, _, _, _, bidirectional, batch_first = node.args
    with graph.inserting_before(node):
        new = graph.call_function(marked_lstm, (data, weights, has_biases, bidirectional, batch_first))
        new.meta = dict(node.meta)
    for user in list(node.users):
        if user.args[1] < 2:
            user.replace_input_with(node, new)
        else:
            graph.erase_node(user)
    graph.erase_node(node)


def marked_lstm(
    data: torch.Tensor, weights: Sequence[torch.Tensor], has_biases: bool, bidirectional: bool, batch_first: bool
) -> tuple[torch.Tensor, torch.Tensor]:
    """A stand-in for torch's LSTM made of composites, values meaningless.

    Returns:
        The sequence and the final hidden states, [layers * directions, B, H]; shapes as those of `torch.nn.LSTM`.
    """
    import torch

    step = 4 if has_biases else 2
    groups = [weights[start : start + step] for start in range(0, len(weights), step)]
    directions = 2 if bidirectional else 1
    sequence = data if batch_first else data.transpose(0, 1)
    final = []
    for layer in range(0, len(groups), directions):
        outputs = [_direction(sequence, groups[layer])]
        final.append(outputs[0][:, -1])
        if bidirectional:
            backward = _direction(sequence.flip(1), groups[layer + 1])
            final.append(backward[:, -1])
            outputs.append(backward.flip(1))
        sequence = torch.cat(outputs, dim=-1) if bidirectional else outputs[0]
    return sequence if batch_first else sequence.transpose(0, 1), torch.stack(final)


def _direction(data: torch.Tensor, weights: Sequence[torch.Tensor]) -> torch.Tensor:
    from litert_torch.backend.composite import StableHLOCompositeBuilder

    builder: Any = StableHLOCompositeBuilder(COMPOSITE)
    data, *constants = builder.mark_inputs(data, *weights)
    # Everything is used, so that nothing is dropped; the sum has the shape of the answer, [B, T, H].
    total = data.sum(dim=-1, keepdim=True) + constants[1].sum(dim=0)
    for constant in (constants[0], *constants[2:]):
        total = total + constant.sum()
    return builder.mark_outputs(total)
