"""Row 8: bidirectional CMOW/CBOW hybrid (Galke and Scherp 2021, 2109.08449; CMOW: Mai, Galke and Scherp 2019).

ids [B, T] -> each word has a 20 x 20 matrix for reading forwards, one for reading backwards, and a vector of 400
-> product of the forward matrices left to right, of the backward matrices right to left, sum of the vectors
-> concat [B, 1200] -> Linear, ReLU -> Linear -> logits [B, 2].

The products run as a tree: T matrices need T - 1 products in log2 T steps, and no size of T is built in. The tables
hold M - I: weight decay then pulls towards the identity, and int8 has the step of the differences. Padding never
changes the answer: its row is zero, in every table. Simplified: trained from scratch.
"""

from __future__ import annotations

import torch
from torch import nn

from edgekit.students.layers import ordered_product, word_table
from edgekit.students.sampling import Arrays, check_size, seeded, spread_answers, token_ids

VOCABULARY = {"tiny": 200, "full": 12_000}
SIDE = {"tiny": 6, "full": 20}
HIDDEN = {"tiny": 16, "full": 400}


class CMOW(nn.Module):
    """See the module's docstring.

    Args:
        vocabulary: Rows of each table; id 0 is padding, id 1 unknown.
        side: Rows and columns of a word's matrix; its vector has side * side values.
        hidden: Units of the hidden layer.
        classes: Logits.
    """

    def __init__(self, vocabulary: int, side: int, hidden: int, classes: int = 2) -> None:
        super().__init__()
        self.side = side
        self.ahead, self.back = difference_table(vocabulary, side), difference_table(vocabulary, side)
        self.embedding = word_table(vocabulary, side * side)
        self.dropout = nn.Dropout(0.3)
        self.hidden = nn.Linear(3 * side * side, hidden)
        self.head = nn.Linear(hidden, classes)

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        """Ids [B, T] int64 to logits [B, classes]."""
        square = (*ids.shape, self.side, self.side)
        one = torch.eye(self.side, device=ids.device)
        ahead = ordered_product(self.ahead(ids).reshape(square) + one).flatten(1)
        # (A B C)' = C' B' A': reading backwards is the tree over the transposed matrices, transposed.
        turned = self.back(ids).reshape(square).transpose(2, 3) + one
        back = ordered_product(turned).transpose(1, 2).flatten(1)
        found = torch.cat([ahead, back, self.embedding(ids).sum(1)], dim=1)
        return self.head(torch.relu(self.hidden(self.dropout(found))))


def difference_table(words: int, side: int) -> nn.Embedding:
    """What a word's matrix differs from the identity, N(0, 0.1) as CMOW starts them; nothing for padding."""
    table = nn.Embedding(words, side * side, padding_idx=0)
    with torch.no_grad():
        table.weight[1:].normal_(0, 0.1)
    return table


def build(size: str = "full", seed: int = 0) -> CMOW:
    """The student with seeded weights, in evaluation mode.

    Args:
        size: `tiny` (V = 200, 6 x 6) or `full` (V = 12,000, 20 x 20).
        seed: Of the weights.

    Raises:
        UsageError: An unknown size.
    """
    check_size(size)
    with seeded(seed):
        student = CMOW(VOCABULARY[size], SIDE[size], HIDDEN[size])
    spread_answers(student, {"output": student.head}, example(64, 24, size, seed))
    return student.eval()


def example(batch: int = 2, length: int = 16, size: str = "full", seed: int = 0) -> Arrays:
    """Random sentences: `ids` [batch, length] int64, padded at the end."""
    return {"ids": token_ids(batch, length, VOCABULARY[size], seed)}
