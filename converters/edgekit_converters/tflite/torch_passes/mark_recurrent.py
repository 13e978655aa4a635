"""Pass: keeps each layer and direction of LSTM, GRU and RNN in one piece through litert-torch.

    before: aten.lstm.input(x, (h, c), weights)              lowered to one set of operators a time step
    after:  [flip ->] composite "edgekit.lstm"(x, w_ih, w_hh, b_ih, b_hh) [-> flip], one a layer and direction

The composite is called `edgekit.lstm`, `edgekit.gru`, `edgekit.rnn_tanh` or `edgekit.rnn_relu`. Where the initial state
is given, `.given` stands behind the name and the states behind x; zeros are left out. It answers with the sequence; the
final hidden state is the last step of each direction. Of an LSTM whose final cell is used it has one step more, which
is that cell, and `.cell` behind the name: litert-torch crashes on a composite with an output that nobody reads. Its
body is a cheap stand-in of the right shape: `passes.step_recurrent` puts the calls of a step in its place after
lowering.
"""

from __future__ import annotations

import operator
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch

PREFIX = "edgekit."
GIVEN = ".given"
CELL = ".cell"


def mark_recurrent(module: torch.fx.GraphModule) -> int:
    """Replaces the recurrent layers it can in place and returns how many."""
    import torch

    kinds = {
        torch.ops.aten.lstm.input: "lstm",
        torch.ops.aten.gru.input: "gru",
        torch.ops.aten.rnn_tanh.input: "rnn_tanh",
        torch.ops.aten.rnn_relu.input: "rnn_relu",
    }
    marked = 0
    for node in list(module.graph.nodes):
        if node.target in kinds and _can_mark(node):
            _replace(module.graph, node, kinds[node.target])
            marked += 1
    if marked:
        module.graph.lint()
        module.recompile()
    return marked


def _can_mark(node: torch.fx.Node) -> bool:
    """No projection (`proj_size`), which has a weight more a direction, and [B, T, F] or [T, B, F]."""
    data, _, weights, has_biases, layers, _, _, bidirectional, _ = node.args
    plain = len(weights) == layers * (2 if bidirectional else 1) * (4 if has_biases else 2)
    return plain and data.meta["val"].dim() == 3


def _replace(graph: torch.fx.Graph, node: torch.fx.Node, kind: str) -> None:
    import torch

    zeros = (torch.ops.aten.zeros.default, torch.ops.aten.new_zeros.default)
    data, state, weights, has_biases, _, _, _, bidirectional, batch_first = node.args
    states = state if isinstance(state, Sequence) else [state]
    given = None if all(entry.target in zeros for entry in states) else states
    cell = kind == "lstm" and any(user.args[1] == 2 and user.users for user in node.users)
    with graph.inserting_before(node):
        new = graph.call_function(
            marked, (kind, data, given, weights, has_biases, bidirectional, batch_first), {"with_cell": cell}
        )
        new.meta = dict(node.meta)
    for user in list(node.users):
        if user.target is operator.getitem and user.args[1] == 2 and not cell:
            graph.erase_node(user)
        else:
            user.replace_input_with(node, new)
    graph.erase_node(node)


def marked(
    kind: str,
    data: torch.Tensor,
    states: Sequence[torch.Tensor] | None,
    weights: Sequence[torch.Tensor],
    has_biases: bool,
    bidirectional: bool,
    batch_first: bool,
    *,
    with_cell: bool = False,
) -> tuple[torch.Tensor, ...]:
    """A stand-in for torch's recurrent layers made of composites, values meaningless.

    Returns:
        The sequence, the final hidden states [layers * directions, B, H] and, asked for, the final cells; shapes as
        those of `torch.nn.LSTM`.
    """
    import torch

    count = 4 if has_biases else 2
    groups = [weights[start : start + count] for start in range(0, len(weights), count)]
    directions = 2 if bidirectional else 1
    sequence = data if batch_first else data.transpose(0, 1)
    final: list[torch.Tensor] = []
    cells: list[torch.Tensor] = []
    for layer in range(0, len(groups), directions):
        outputs = []
        for place in range(layer, layer + directions):
            back = place > layer
            own = [state[place] for state in states] if states is not None else []
            read = sequence.flip(1) if back else sequence
            answer = _direction(kind, read, own, groups[place], with_cell)
            if with_cell:
                cells.append(answer[:, -1])
                answer = answer[:, :-1]
            final.append(answer[:, -1])
            outputs.append(answer.flip(1) if back else answer)
        sequence = torch.cat(outputs, dim=-1) if bidirectional else outputs[0]
    sequence = sequence if batch_first else sequence.transpose(0, 1)
    return (sequence, torch.stack(final), *([torch.stack(cells)] if with_cell else []))


def _direction(
    kind: str, data: torch.Tensor, states: Sequence[torch.Tensor], weights: Sequence[torch.Tensor], with_cell: bool
) -> torch.Tensor:
    import torch
    from litert_torch.backend.composite import StableHLOCompositeBuilder

    builder: Any = StableHLOCompositeBuilder(f"{PREFIX}{kind}{CELL if with_cell else ''}{GIVEN if states else ''}")
    data, *rest = builder.mark_inputs(data, *states, *weights)
    recurrent = rest[len(states) + 1]
    # Everything is used, so that nothing is dropped; the sum has the shape of the answer, [B, T, H].
    total = data.sum(dim=-1, keepdim=True) + recurrent[: recurrent.shape[1]].sum(dim=0)
    for one in rest:
        total = total + one.sum()
    if with_cell:
        total = torch.cat([total, total[:, -1:]], dim=1)
    answer: torch.Tensor = builder.mark_outputs(total)
    return answer
