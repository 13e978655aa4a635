"""Row 16: pair classifier with one encoder for both sides (siamese; paraphrase review, 2212.06933; InferSent's head).

first, second [B, T] -> each: Embedding(V, 100*) -> Conv1d(100, 200*, k 3), ReLU -> max over time -> u, v [B, 200]
-> [u; v; |u - v|] -> Linear(600, 128*), ReLU -> Linear -> logits [B, 2].

Simplified: words trained from scratch, a convolutional encoder. Padding never changes the answer: it is masked before
the maximum. `encode` alone is the graph to cache one side with.
"""

from __future__ import annotations

import torch
from torch import nn

from edgekit.students.layers import word_table
from edgekit.students.sampling import Arrays, check_size, seeded, spread_answers, token_ids

VOCABULARY = {"tiny": 200, "full": 10_000}
WIDTH = {"tiny": 16, "full": 100}


class PairClassifier(nn.Module):
    """See the module's docstring.

    Args:
        vocabulary: Rows of the table; id 0 is padding, id 1 unknown.
        width: Of a word vector; the encoder gives twice as many values.
    """

    def __init__(self, vocabulary: int, width: int) -> None:
        super().__init__()
        self.embedding = word_table(vocabulary, width)
        self.conv = nn.Conv1d(width, 2 * width, 3, padding=1)
        self.dropout = nn.Dropout(0.4)
        self.hidden = nn.Linear(6 * width, 128)
        self.head = nn.Linear(128, 2)

    def encode(self, ids: torch.Tensor) -> torch.Tensor:
        """One side: ids [B, T] int64 to [B, 2 * width]."""
        words = self.dropout(self.embedding(ids)).transpose(1, 2)
        mask = (ids != 0).to(words.dtype)[:, None, :]
        return (torch.relu(self.conv(words)) * mask).amax(2)

    def forward(self, first: torch.Tensor, second: torch.Tensor) -> torch.Tensor:
        """Two texts, ids [B, T] int64 each, to logits [B, 2]."""
        u, v = self.encode(first), self.encode(second)
        found = torch.cat([u, v, (u - v).abs()], dim=1)
        return self.head(torch.relu(self.hidden(self.dropout(found))))


def build(size: str = "full", seed: int = 0) -> PairClassifier:
    """The student with seeded weights, in evaluation mode.

    Args:
        size: `tiny` (V = 200, width 16) or `full` (V = 10,000, width 100).
        seed: Of the weights.

    Raises:
        UsageError: An unknown size.
    """
    check_size(size)
    with seeded(seed):
        student = PairClassifier(VOCABULARY[size], WIDTH[size])
    spread_answers(student, {"output": student.head}, example(64, 24, size, seed))
    return student.eval()


def example(batch: int = 2, length: int = 16, size: str = "full", seed: int = 0) -> Arrays:
    """Random pairs: `first` and `second` [batch, length] int64, padded at the end."""
    sides = (token_ids(batch, length, VOCABULARY[size], seed), token_ids(batch, length, VOCABULARY[size], seed + 1))
    return {"first": sides[0], "second": sides[1]}
