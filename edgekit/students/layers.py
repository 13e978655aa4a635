"""Building blocks that several students share. Each uses operators that both exporters know."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import nn


def reversal(ids: torch.Tensor) -> torch.Tensor:
    """For each sentence the order of steps that reads it backwards and leaves its padding where it is: last.

    The order is its own inverse. A sentence ends at its last id that is not 0.

    Args:
        ids: [B, T] integers, 0 is padding.

    Returns:
        [B, T] int64: `order[b, t]` is the step to read at time t.
    """
    steps = torch.arange(ids.shape[1], device=ids.device)
    length = ((ids != 0) * (steps + 1)).amax(1, keepdim=True)
    return torch.where(steps < length, length - 1 - steps, steps)


def take_steps(x: torch.Tensor, order: torch.Tensor) -> torch.Tensor:
    """Reorders the steps of each sample.

    Written as one look-up of whole rows: a plain Gather in ONNX and in TFLite, where `torch.gather` would need an index
    for every single value and an operator that old TFLite runtimes lack.

    Args:
        x: [B, T, D].
        order: [B, T] int64, a permutation of 0..T-1 in each row.

    Returns:
        [B, T, D] with `result[b, t] = x[b, order[b, t]]`.
    """
    batch, steps, width = x.shape
    rows = order + steps * torch.arange(batch, device=x.device)[:, None]
    return x.reshape(batch * steps, width).index_select(0, rows.reshape(-1)).reshape(batch, steps, width)


Step = Callable[[list[torch.Tensor], torch.Tensor], tuple[list[torch.Tensor], torch.Tensor]]


def over_time(step: Step, state: list[torch.Tensor], rows: torch.Tensor) -> torch.Tensor:
    """Calls a step for each row; the answers, stacked.

    Exported it is one `torch.scan`, which both formats keep as a loop over any number of steps. Elsewhere it is a plain
    loop, because `torch.scan` compiles its body, and learning through it is slow.

    Args:
        step: (state, row) -> (next state, answer).
        state: Before the first step.
        rows: [T, ...].
    """
    if torch.compiler.is_exporting():
        from torch._higher_order_ops.scan import scan

        answers: torch.Tensor = scan(step, state, rows, dim=0)[-1]
        return answers
    found = []
    for row in rows:
        state, answer = step(state, row)
        found.append(answer)
    return torch.stack(found)


def word_table(words: int, width: int) -> nn.Embedding:
    """A table of word vectors to be trained from scratch: -0.25 to 0.25 as in Kim (2014), the padding row 0."""
    table = nn.Embedding(words, width, padding_idx=0)
    with torch.no_grad():
        table.weight[1:].uniform_(-0.25, 0.25)
    return table


def ordered_product(matrices: torch.Tensor, levels: int = 7) -> torch.Tensor:
    """The product M_1 M_2 ... M_T of each sample's matrices, as a balanced tree.

    Each level multiplies neighbours and halves their number; identities stand in where a neighbour is missing. The
    number of levels is fixed, the number of matrices is not: a loop over T would build T into the graph.

    Args:
        matrices: [B, T, d, d].
        levels: Enough for T <= 2 ** levels.

    Returns:
        [B, d, d].
    """
    batch, _, side, _ = matrices.shape
    ones = torch.eye(side, dtype=matrices.dtype, device=matrices.device).expand(batch, 3, side, side)
    plain = torch.contiguous_format
    for _ in range(levels):
        # One pair more than there are, as torch.export takes a size that may be 1 for a constant: 3 are left at the
        # end. Copied, because it ties T to the strides of slices that a product reads.
        left = torch.cat([matrices, ones[:, :2]], dim=1)[:, 0::2].clone(memory_format=plain)
        right = torch.cat([matrices, ones], dim=1)[:, 1::2].clone(memory_format=plain)
        matrices = left @ right
    last = torch.cat([matrices, ones], dim=1)
    return last[:, 0] @ last[:, 1] @ last[:, 2]


State = tuple[torch.Tensor, torch.Tensor]


class BothWays(nn.Module):
    """One recurrent layer in both directions whose answer does not depend on padding.

    `nn.LSTM(bidirectional=True)` reads the padding first on its way back unless the batch is packed, and packed
    sequences do not export. Here two plain layers each read the words first: the second gets every sentence reversed
    within its own length.

    Args:
        kind: `nn.LSTM` or `nn.GRU`.
        inputs: Width of a step.
        hidden: Units of each direction.
    """

    def __init__(self, kind: type[nn.RNNBase], inputs: int, hidden: int) -> None:
        super().__init__()
        self.ahead = kind(inputs, hidden, batch_first=True)
        self.back = kind(inputs, hidden, batch_first=True)

    def forward(self, x: torch.Tensor, order: torch.Tensor, state: State | None = None) -> torch.Tensor:
        """Reads x [B, T, inputs] in both directions; gives [B, T, 2 * hidden].

        Args:
            x: Steps, padding last.
            order: `reversal(ids)`.
            state: Of a GRU: where each direction begins, [1, B, hidden] each; None: zeros.
        """
        first, last = (None, None) if state is None else state
        ahead, _ = self.ahead(x, first)
        back, _ = self.back(take_steps(x, order), last)
        return torch.cat([ahead, take_steps(back, order)], dim=-1)


class BiLSTM(BothWays):
    """An LSTM in both directions, see `BothWays`."""

    def __init__(self, inputs: int, hidden: int) -> None:
        super().__init__(nn.LSTM, inputs, hidden)


class BiGRU(BothWays):
    """A GRU in both directions, see `BothWays`."""

    def __init__(self, inputs: int, hidden: int) -> None:
        super().__init__(nn.GRU, inputs, hidden)


def conv_bn(inputs: int, outputs: int, kernel: int = 3, stride: int = 1) -> nn.Sequential:
    """Convolution without bias and BatchNorm, padded to keep the size at stride 1."""
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, kernel, stride, padding=kernel // 2, bias=False), nn.BatchNorm2d(outputs)
    )


class ResidualBlock(nn.Module):
    """Two 3x3 convolutions with BatchNorm and an addition (He et al., 2015, figure 2).

    Args:
        inputs: Channels in.
        outputs: Channels out.
        stride: Of the first convolution.
        shortcut: What the input passes on its way to the addition.
    """

    def __init__(self, inputs: int, outputs: int, stride: int, shortcut: nn.Module) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(outputs)
        self.shortcut = shortcut

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """[B, inputs, H, W] to [B, outputs, H / stride, W / stride]."""
        y = torch.relu(self.bn1(self.conv1(x)))
        return torch.relu(self.bn2(self.conv2(y)) + self.shortcut(x))
