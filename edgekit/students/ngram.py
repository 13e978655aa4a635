"""Row 7: n-gram averaging network (Sparse Distillation, 2110.08536; after Iyyer et al. 2015's deep averaging network).

ids [B, T] of word 1- to 4-grams -> EmbeddingBag(V, 256, mean) -> Linear(256, 256), tanh -> Linear -> logits [B, 2].

The n-grams are hashed outside the graph by `edgekit_runtime.hashed`, which the device calls too (`preprocess` kind
`ngrams`). Simplified: hashed n-grams where the paper keeps a list of the most frequent ones, trained without a teacher.
Padding (id 0) never changes the answer: it does not count in the mean.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import nn

from edgekit.students.sampling import Arrays, check_size, seeded, spread_answers, token_ids
from edgekit_runtime import hashed
from edgekit_runtime.hashed import Split
from edgekit_runtime.preprocess import NgramInput

ROWS = {"tiny": 500, "full": 200_000}
WIDTH = {"tiny": 16, "full": 256}


class NgramAverage(nn.Module):
    """See the module's docstring.

    Args:
        rows: Of the table; id 0 is padding.
        width: Of an n-gram's vector and of the hidden layer.
        classes: Logits.
    """

    def __init__(self, rows: int, width: int, classes: int = 2) -> None:
        super().__init__()
        self.embedding = nn.EmbeddingBag(rows, width, mode="mean", padding_idx=0)
        self.hidden = nn.Linear(width, width)
        self.dropout = nn.Dropout(0.5)
        self.head = nn.Linear(width, classes)

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        """Ids [B, T] int64 to logits [B, classes]."""
        return self.head(torch.tanh(self.hidden(self.dropout(self.embedding(ids)))))


def build(size: str = "full", seed: int = 0, classes: int = 2) -> NgramAverage:
    """The student with seeded weights, in evaluation mode.

    Args:
        size: `tiny` (V = 500, width 16) or `full` (V = 200,000, width 256).
        seed: Of the weights.
        classes: Logits.

    Raises:
        UsageError: An unknown size.
    """
    check_size(size)
    with seeded(seed):
        student = NgramAverage(ROWS[size], WIDTH[size], classes)
    spread_answers(student, {"output": student.head}, example(64, 24, size, seed))
    return student.eval()


def news(size: str = "full", seed: int = 0) -> NgramAverage:
    """The student with the four classes of AG News."""
    return build(size, seed, classes=4)


def example(batch: int = 2, length: int = 16, size: str = "full", seed: int = 0) -> Arrays:
    """Random n-grams: `ids` [batch, length] int64, padded at the end."""
    return {"ids": token_ids(batch, length, ROWS[size], seed)}


def encode(texts: Sequence[str], rows: int, max_length: int, split: Split = "space") -> np.ndarray:
    """Ids of the n-grams of texts as the device makes them: [N, max_length] int64, padded with 0 at the end."""
    rule = NgramInput(rows=rows, max_length=max_length, split=split)
    ids = hashed.encode(rule, texts)
    return np.pad(ids, ((0, 0), (0, max_length - ids.shape[1])))
