"""Row 2: two-layer BiLSTM classifier (Which Student, 2201.00558; Model Blending, 2208.02819).

ids [B, T] -> Embedding(V, 128) -> BiLSTM(128) -> BiLSTM(128) -> max over time -> Linear -> logits [B, 2].

Simplified: words are trained from scratch; no dropout between the layers. Padding never changes the answer: both
directions read the words before the padding (`layers.BiLSTM`), and padded steps are -1, the least an LSTM can say, when
the maximum is taken.
"""

from __future__ import annotations

import torch
from torch import nn

from edgekit.students.layers import BiLSTM, reversal, word_table
from edgekit.students.sampling import Arrays, check_size, seeded, spread_answers, token_ids

VOCABULARY = {"tiny": 200, "full": 12_000}
WIDTH = {"tiny": 16, "full": 128}


class BiLSTMClassifier(nn.Module):
    """See the module's docstring.

    Args:
        vocabulary: Rows of the table; id 0 is padding, id 1 unknown.
        width: Of a word vector.
        hidden: Units of each direction of each layer.
        classes: Logits.
        layers: BiLSTM layers.
    """

    def __init__(self, vocabulary: int, width: int, hidden: int, classes: int = 2, layers: int = 2) -> None:
        super().__init__()
        self.embedding = word_table(vocabulary, width)
        self.layers = nn.ModuleList(BiLSTM(width if depth == 0 else 2 * hidden, hidden) for depth in range(layers))
        self.dropout = nn.Dropout(0.3)
        self.head = nn.Linear(2 * hidden, classes)

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        """Ids [B, T] int64 to logits [B, classes]."""
        order = reversal(ids)
        x = self.dropout(self.embedding(ids))
        for layer in self.layers:
            x = layer(x, order)
        x = torch.where((ids != 0)[:, :, None], x, -1.0)
        return self.head(self.dropout(x.amax(1)))


def build(size: str = "full", seed: int = 0) -> BiLSTMClassifier:
    """The student with seeded weights, in evaluation mode.

    Args:
        size: `tiny` (V = 200, 16 units) or `full` (V = 12,000, 128 units).
        seed: Of the weights.

    Raises:
        UsageError: An unknown size.
    """
    check_size(size)
    with seeded(seed):
        student = BiLSTMClassifier(VOCABULARY[size], WIDTH[size], WIDTH[size])
    spread_answers(student, {"output": student.head}, example(64, 24, size, seed))
    return student.eval()


def example(batch: int = 2, length: int = 16, size: str = "full", seed: int = 0) -> Arrays:
    """Random sentences: `ids` [batch, length] int64, padded at the end."""
    return {"ids": token_ids(batch, length, VOCABULARY[size], seed)}
