"""Row 21: character CNN with squeeze-and-excitation, stacked on an n-gram branch (2007.15700; SE: Hu et al. 2018).

    grams [B, N]   -> EmbeddingBag(50,000*, 64*, mean) -> Linear ──────────────────────► `ngrams` [B, 4]
    chars [B, 512] -> Embedding(256, 32*) -> Conv1d 128 k 7, pool 3 -> k 7, pool 3 -> k 3, pool 3
                   -> SE -> max -> Linear, ReLU -> Linear ──► + `ngrams` scores ──► Linear ──► `output` [B, 4]

Two answers in order of cost: the n-gram branch costs a hundredth of the stack, which makes a cascade of the two.
Simplified: both branches are trained together, the paper trains them apart. Padding of `grams` never changes an answer;
the length of `chars` is fixed. `preprocess` kinds `ngrams` and `bytes` make the inputs.
"""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional

from edgekit.students.sampling import Arrays, check_size, seeded, spread_answers, token_ids

LENGTH = {"tiny": 64, "full": 512}
ROWS = {"tiny": 300, "full": 50_000}
GRAM_WIDTH = {"tiny": 8, "full": 64}
CHAR_WIDTH = {"tiny": 8, "full": 32}
CHANNELS = {"tiny": 16, "full": 128}
CLASSES = 4


class SqueezeExcite(nn.Module):
    """Scales each channel by what all positions say of it: [B, channels, T] to the same."""

    def __init__(self, channels: int, reduction: int = 8) -> None:
        super().__init__()
        self.down = nn.Linear(channels, max(1, channels // reduction))
        self.up = nn.Linear(max(1, channels // reduction), channels)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """See the class."""
        gate = torch.sigmoid(self.up(torch.relu(self.down(x.mean(2)))))
        return x * gate[:, :, None]


class CharCNN(nn.Module):
    """See the module's docstring.

    Args:
        rows: Of the n-gram table; id 0 is padding.
        gram_width: Of an n-gram's vector.
        char_width: Of a byte's vector.
        channels: Of the convolutions.
    """

    def __init__(self, rows: int, gram_width: int, char_width: int, channels: int) -> None:
        super().__init__()
        self.grams = nn.EmbeddingBag(rows, gram_width, mode="mean", padding_idx=0)
        self.gram_head = nn.Linear(gram_width, CLASSES)
        self.embedding = nn.Embedding(256, char_width, padding_idx=0)
        sizes = ((char_width, 7), (channels, 7), (channels, 3))
        self.convs = nn.ModuleList(nn.Conv1d(width, channels, kernel, padding=kernel // 2) for width, kernel in sizes)
        self.excite = SqueezeExcite(channels)
        self.hidden = nn.Linear(channels, channels)
        self.dropout = nn.Dropout(0.3)
        self.head = nn.Linear(channels + CLASSES, CLASSES)

    def forward(self, grams: torch.Tensor, chars: torch.Tensor) -> dict[str, torch.Tensor]:
        """Grams [B, N] and chars [B, T], int64, to the logits of the cheap and of the full answer."""
        cheap = self.gram_head(self.dropout(self.grams(grams)))
        x = self.embedding(chars).transpose(1, 2)
        for conv in self.convs:
            x = functional.max_pool1d(torch.relu(conv(x)), 3)
        x = torch.relu(self.hidden(self.excite(x).amax(2)))
        return {"ngrams": cheap, "output": self.head(torch.cat([self.dropout(x), cheap], dim=1))}


def build(size: str = "full", seed: int = 0) -> CharCNN:
    """The student with seeded weights, in evaluation mode.

    Args:
        size: `tiny` (64 bytes, 16 channels) or `full` (512 bytes, 128 channels).
        seed: Of the weights.

    Raises:
        UsageError: An unknown size.
    """
    check_size(size)
    with seeded(seed):
        student = CharCNN(ROWS[size], GRAM_WIDTH[size], CHAR_WIDTH[size], CHANNELS[size])
    inputs = example(64, 24, size, seed)
    spread_answers(student, {"ngrams": student.gram_head, "output": student.head}, inputs)
    spread_answers(student, {"ngrams": student.gram_head, "output": student.head}, inputs)  # one feeds the other
    return student.eval()


def example(batch: int = 2, length: int = 16, size: str = "full", seed: int = 0) -> Arrays:
    """Random texts: `grams` [batch, length] and `chars` [batch, LENGTH[size]] int64, padded at the end."""
    return {"grams": token_ids(batch, length, ROWS[size], seed), "chars": token_ids(batch, LENGTH[size], 256, seed + 1)}
