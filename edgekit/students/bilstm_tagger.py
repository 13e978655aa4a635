"""Row 3: BiLSTM tagger (Which Student, 2201.00558).

ids [B, T] -> Embedding(V, 128) -> BiLSTM(128) -> Linear for each word -> logits [B, T, 13] (the tags of WNUT-17).

Simplified: no character features and no CRF above. The logits of a word do not depend on the padding behind it; those
of the padding itself mean nothing and are set to 0, so that they are the same in every batch.
"""

from __future__ import annotations

import torch
from torch import nn

from edgekit.students.layers import BiLSTM, reversal, word_table
from edgekit.students.sampling import Arrays, check_size, seeded, spread_answers, token_ids

VOCABULARY = {"tiny": 200, "full": 12_000}
WIDTH = {"tiny": 16, "full": 128}
TAGS = 13


class BiLSTMTagger(nn.Module):
    """See the module's docstring.

    Args:
        vocabulary: Rows of the table; id 0 is padding, id 1 unknown.
        width: Of a word vector.
        hidden: Units of each direction.
        tags: Logits of a word.
    """

    def __init__(self, vocabulary: int, width: int, hidden: int, tags: int = TAGS) -> None:
        super().__init__()
        self.embedding = word_table(vocabulary, width)
        self.layer = BiLSTM(width, hidden)
        self.dropout = nn.Dropout(0.3)
        self.head = nn.Linear(2 * hidden, tags)

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        """Ids [B, T] int64 to logits [B, T, tags], 0 on padding."""
        x = self.layer(self.dropout(self.embedding(ids)), reversal(ids))
        return self.head(self.dropout(x)) * (ids != 0).to(x.dtype)[:, :, None]


def build(size: str = "full", seed: int = 0) -> BiLSTMTagger:
    """The student with seeded weights, in evaluation mode.

    Args:
        size: `tiny` (V = 200, 16 units) or `full` (V = 12,000, 128 units).
        seed: Of the weights.

    Raises:
        UsageError: An unknown size.
    """
    check_size(size)
    with seeded(seed):
        student = BiLSTMTagger(VOCABULARY[size], WIDTH[size], WIDTH[size])
    one_long_sentence = example(1, 256, size, seed)
    spread_answers(student, {"output": student.head}, one_long_sentence)
    return student.eval()


def example(batch: int = 2, length: int = 16, size: str = "full", seed: int = 0) -> Arrays:
    """Random sentences: `ids` [batch, length] int64, padded at the end."""
    return {"ids": token_ids(batch, length, VOCABULARY[size], seed)}
