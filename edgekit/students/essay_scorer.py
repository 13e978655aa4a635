"""Row 12: essay scorer (2206.08232).

ids [B, T] -> Embedding(V, 100) -> Conv1d over 2, 3 and 4 words x 64, concatenated -> BiGRU(64) -> mean over time
-> Linear -> sigmoid, times the highest grade -> score [B, 1].

Simplified: one score, grades 0 to 4; words are trained from scratch. The mean leaves padding out, both directions read
the words before it, and its row of the table stays 0 as what `padding="same"` puts at the ends.
"""

from __future__ import annotations

import torch
from torch import nn

from edgekit.students.layers import BiGRU, reversal, word_table
from edgekit.students.sampling import Arrays, check_size, seeded, token_ids

VOCABULARY = {"tiny": 200, "full": 12_000}
WIDTH = {"tiny": 12, "full": 100}
FILTERS = {"tiny": 8, "full": 64}
HIGHEST_GRADE = 4


class EssayScorer(nn.Module):
    """See the module's docstring.

    Args:
        vocabulary: Rows of the table; id 0 is padding, id 1 unknown.
        width: Of a word vector.
        filters: Of each convolution, and units of each direction.
        kernels: Words under each convolution.
    """

    def __init__(self, vocabulary: int, width: int, filters: int, kernels: tuple[int, ...] = (2, 3, 4)) -> None:
        super().__init__()
        self.embedding = word_table(vocabulary, width)
        self.convs = nn.ModuleList(nn.Conv1d(width, filters, kernel, padding="same") for kernel in kernels)
        self.layer = BiGRU(filters * len(kernels), filters)
        self.dropout = nn.Dropout(0.3)
        self.head = nn.Linear(2 * filters, 1)

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        """Ids [B, T] int64 to scores [B, 1], 0 to 4."""
        words = self.embedding(ids).transpose(1, 2)
        windows = torch.cat([torch.relu(conv(words)) for conv in self.convs], dim=1).transpose(1, 2)
        x = self.layer(self.dropout(windows), reversal(ids))
        mask = (ids != 0).to(x.dtype)[:, :, None]
        mean = (x * mask).sum(1) / mask.sum(1).clamp_min(1.0)
        return torch.sigmoid(self.head(self.dropout(mean))) * HIGHEST_GRADE


def build(size: str = "full", seed: int = 0) -> EssayScorer:
    """The student with seeded weights, in evaluation mode.

    Args:
        size: `tiny` (V = 200, 8 filters) or `full` (V = 12,000, 64 filters).
        seed: Of the weights.

    Raises:
        UsageError: An unknown size.
    """
    check_size(size)
    with seeded(seed):
        student = EssayScorer(VOCABULARY[size], WIDTH[size], FILTERS[size])
    # The score before the sigmoid is what gets mean 0 and deviation 1: the sigmoid is undone for that.
    with torch.no_grad():
        scores = student.eval()(torch.from_numpy(example(64, 24, size, seed)["ids"]))
        logits = torch.logit(scores / HIGHEST_GRADE)
        scale = 1.0 / logits.std().clamp_min(1e-6)
        student.head.weight.mul_(scale)
        student.head.bias.sub_(logits.mean()).mul_(scale)
    return student


def example(batch: int = 2, length: int = 16, size: str = "full", seed: int = 0) -> Arrays:
    """Random texts: `ids` [batch, length] int64, padded at the end."""
    return {"ids": token_ids(batch, length, VOCABULARY[size], seed)}
