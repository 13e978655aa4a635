"""Row 9: gated CNN language model (Dauphin et al. 2017, 1612.08083), whole sentences and word by word.

ids [B, T] -> Embedding(V, 128) -> 8 blocks: 3 zeros in front, weight-normalized Conv1d(128, 256, k 4), GLU, residual
-> adaptive softmax (Grave et al. 2017, 1609.04309) -> log-probabilities of the next word [B, T, V].

The streaming form reads one word and carries the 3 last columns that each convolution saw:
ids [B, 1], columns [B, 8, 128, 3] -> output [B, 1, V], next_columns [B, 8, 128, 3].

`next_word` answers for the last word alone, with an exit before each cluster of rare words: who is sure that the next
word is a common one does not run the clusters.

Simplified: residual around one convolution. What comes later, padding too, never changes an earlier answer.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np
import torch
from torch import nn
from torch.nn import functional
from torch.nn.utils.parametrizations import weight_norm

from edgekit.students.layers import word_table
from edgekit.students.sampling import Arrays, check_size, seeded, token_ids

VOCABULARY = {"tiny": 200, "full": 5_000}
CUTOFFS = {"tiny": [40, 120], "full": [800, 2_400]}
WIDTH = {"tiny": 16, "full": 128}
BLOCKS = {"tiny": 2, "full": 8}
KERNEL = 4


class GatedBlock(nn.Module):
    """A convolution over the last 4 columns, half of it gating the other half, and the way around."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.conv = weight_norm(nn.Conv1d(width, 2 * width, KERNEL))
        with torch.no_grad():  # a gate halves its input: without this the blocks of an untrained student fade
            self.conv.parametrizations.weight.original0.mul_(2.0)

    def forward(self, seen: torch.Tensor) -> torch.Tensor:
        """Columns [B, width, T + 3], three of them in front, to [B, width, T]."""
        return seen[:, :, KERNEL - 1 :] + functional.glu(self.conv(seen), dim=1)


class AdaptiveSoftmax(nn.AdaptiveLogSoftmaxWithLoss):
    """torch's own, with all log-probabilities as one tensor that exporters take."""

    def all(self, x: torch.Tensor) -> torch.Tensor:
        """X [..., width] to log-probabilities [..., V]; torch's `log_prob` fills them in place, for two axes only."""
        *_, answer = self.deepening(x)
        return answer

    def deepening(self, x: torch.Tensor) -> Iterator[torch.Tensor]:
        """X [..., width] to log-probabilities [..., V] with no cluster run, the first one run, ... and all run.

        The words of a cluster that was not run share its probability alike: each answer is a distribution.
        """
        head = functional.log_softmax(self.head(x), dim=-1)
        parts = [head[..., : self.shortlist_size]]
        ends = [*self.cutoffs[1:], self.n_classes][: len(self.tail)]
        sizes = [end - begin for begin, end in zip(self.cutoffs, ends, strict=False)]
        for number in range(len(self.tail) + 1):
            if number:
                cluster = head[..., self.shortlist_size + number - 1, None]
                parts.append(functional.log_softmax(self.tail[number - 1](x), dim=-1) + cluster)
            closed = [
                (head[..., self.shortlist_size + later, None] - math.log(sizes[later])).expand(
                    *head.shape[:-1], sizes[later]
                )
                for later in range(number, len(self.tail))
            ]
            yield torch.cat([*parts, *closed], dim=-1)


class GatedCNN(nn.Module):
    """See the module's docstring.

    Args:
        vocabulary: Words, the most frequent first; id 0 is padding, id 1 unknown.
        width: Channels.
        blocks: Gated convolutions.
        cutoffs: Where the clusters of the adaptive softmax begin.
    """

    def __init__(self, vocabulary: int, width: int, blocks: int, cutoffs: list[int]) -> None:
        super().__init__()
        self.embedding = word_table(vocabulary, width)
        self.blocks = nn.ModuleList(GatedBlock(width) for _ in range(blocks))
        self.dropout = nn.Dropout(0.3)
        self.softmax = AdaptiveSoftmax(width, vocabulary, cutoffs, div_value=4.0)

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        """Ids [B, T] int64 to log-probabilities of each next word [B, T, V]."""
        x = self.embedding(ids).transpose(1, 2)
        for block in self.blocks:
            x = block(functional.pad(self.dropout(x), (KERNEL - 1, 0)))
        return self.softmax.all(self.dropout(x.transpose(1, 2)))


class NextWord(nn.Module):
    """A model that answers for the word behind the last one alone, rare words last."""

    def __init__(self, model: GatedCNN) -> None:
        super().__init__()
        self.model = model

    def forward(self, ids: torch.Tensor) -> dict[str, torch.Tensor]:
        """Ids [B, T] int64, no padding, to log-probabilities [B, V]: "exit_0" and "exit_1", then the full "output"."""
        x = self.model.embedding(ids).transpose(1, 2)
        for block in self.model.blocks:
            x = block(functional.pad(x, (KERNEL - 1, 0)))
        *early, full = self.model.softmax.deepening(x[:, :, -1])
        return {**{f"exit_{depth}": answer for depth, answer in enumerate(early)}, "output": full}


class GatedCNNStep(nn.Module):
    """The streaming form of a model, with its weights."""

    def __init__(self, model: GatedCNN) -> None:
        super().__init__()
        self.model = model

    def forward(self, ids: torch.Tensor, columns: torch.Tensor) -> dict[str, torch.Tensor]:
        """One word [B, 1] and the columns before it (zeros at the beginning of a text)."""
        x = self.model.embedding(ids).transpose(1, 2)
        kept = []
        for number, block in enumerate(self.model.blocks):
            seen = torch.cat([columns[:, number], x], dim=2)
            kept.append(seen[:, :, 1:])
            x = block(seen)
        return {"output": self.model.softmax.all(x.transpose(1, 2)), "next_columns": torch.stack(kept, dim=1)}


def build(size: str = "full", seed: int = 0) -> GatedCNN:
    """The student with seeded weights, in evaluation mode.

    Args:
        size: `tiny` (V = 200, width 16, 2 blocks) or `full` (V = 5,000, width 128, 8 blocks).
        seed: Of the weights.

    Raises:
        UsageError: An unknown size.
    """
    check_size(size)
    with seeded(seed):
        student = GatedCNN(VOCABULARY[size], WIDTH[size], BLOCKS[size], CUTOFFS[size])
        with torch.no_grad():  # scores that differ from word to word, as a trained model's do
            student.embedding.weight.mul_(6.0)
            student.softmax.head.weight.mul_(4.0)
    return student.eval()


def next_word(size: str = "full", seed: int = 0) -> NextWord:
    """The form of `build` with exits before its rare words."""
    return NextWord(build(size, seed)).eval()


def step(size: str = "full", seed: int = 0) -> GatedCNNStep:
    """The streaming form of `build`."""
    return GatedCNNStep(build(size, seed)).eval()


def example(batch: int = 2, length: int = 16, size: str = "full", seed: int = 0) -> Arrays:
    """Random sentences: `ids` [batch, length] int64, padded at the end."""
    return {"ids": token_ids(batch, length, VOCABULARY[size], seed)}


def step_example(batch: int = 2, length: int = 1, size: str = "full", seed: int = 0) -> Arrays:
    """One word and random columns before it: `ids` [batch, 1] int64, `columns` [batch, blocks, width, 3] float32."""
    columns = np.random.default_rng(seed).standard_normal((batch, BLOCKS[size], WIDTH[size], KERNEL - 1))
    return {"ids": token_ids(batch, 1, VOCABULARY[size], seed), "columns": columns.astype(np.float32)}
