"""Row 1: Kim's text CNN (Kim 2014, 1408.5882; a student in Model Blending, 2208.02819).

ids [B, T] -> Embedding(V, 100) -> three Conv1d of 100 filters over 3, 4 and 5 words -> ReLU -> max over time ->
Linear -> logits [B, 2].

Simplified: words are trained from scratch (the paper starts from word2vec), one channel, no dropout in the graph.
Padding never changes the answer: id 0 is a zero vector, and windows centred on padding are masked before the maximum.
After ReLU a masked 0 can never win against a real value, so a product is enough.
"""

from __future__ import annotations

import torch
from torch import nn

from edgekit.students.layers import word_table
from edgekit.students.sampling import Arrays, check_size, seeded, spread_answers, token_ids

VOCABULARY = {"tiny": 200, "full": 12_000}
WIDTH = {"tiny": 16, "full": 100}


class TextCNN(nn.Module):
    """See the module's docstring.

    Args:
        vocabulary: Rows of the table; id 0 is padding, id 1 unknown.
        width: Of a word vector, and filters of each convolution.
        classes: Logits.
        kernels: Words under each convolution.
        means: Means over the words stand beside the maxima: how often a thing is said counts, too.
    """

    def __init__(
        self, vocabulary: int, width: int, classes: int = 2, kernels: tuple[int, ...] = (3, 4, 5), means: bool = False
    ) -> None:
        super().__init__()
        self.embedding = word_table(vocabulary, width)
        self.convs = nn.ModuleList(nn.Conv1d(width, width, kernel, padding=kernel // 2) for kernel in kernels)
        self.dropout = nn.Dropout(0.5)
        self.means = means
        self.head = nn.Linear(width * len(kernels) * (2 if means else 1), classes)

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        """Ids [B, T] int64 to logits [B, classes]."""
        mask = (ids != 0).to(torch.float32)[:, None, :]
        words = self.embedding(ids).transpose(1, 2)
        steps = ids.shape[1]
        # An even kernel padded on both sides gives one window more than there are words.
        maps = [torch.relu(conv(words))[:, :, :steps] for conv in self.convs]
        if self.means:  # all maps as one: what is done to them twice is done in one call each
            found = torch.cat(maps, dim=1) * mask
            pooled = [found.amax(2), found.sum(2) / mask.sum(2).clamp_min(1.0)]
        else:
            pooled = [(x * mask).amax(2) for x in maps]
        return self.head(self.dropout(torch.cat(pooled, dim=1)))


def build(size: str = "full", seed: int = 0) -> TextCNN:
    """The student with seeded weights, in evaluation mode.

    Args:
        size: `tiny` (V = 200, width 16) or `full` (V = 12,000, width 100).
        seed: Of the weights.

    Raises:
        UsageError: An unknown size.
    """
    check_size(size)
    with seeded(seed):
        student = TextCNN(VOCABULARY[size], WIDTH[size])
    spread_answers(student, {"output": student.head}, example(64, 24, size, seed))
    return student.eval()


def example(batch: int = 2, length: int = 16, size: str = "full", seed: int = 0) -> Arrays:
    """Random sentences: `ids` [batch, length] int64, padded at the end."""
    return {"ids": token_ids(batch, length, VOCABULARY[size], seed)}
