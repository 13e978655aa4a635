"""Row 10: CDIL-CNN, circular dilated convolutions over long byte sequences (Cheng et al. 2022, 2201.02143).

chars [B, 1024] (UTF-8 bytes, 0 pads) -> Embedding(256, 64) -> 9 blocks of weight-normalized Conv1d(64, 64, k 3),
dilation 1, 2, 4 ... 256, circular padding, ReLU, residual -> mean over positions -> Linear -> logits [B, 4].

Every position sees every other one, whichever end it stands at. Simplified: one convolution a block, no dropout in the
graph. The length is fixed, so padding is part of the input; bytes come from `preprocess` kind `bytes`.
"""

from __future__ import annotations

import torch
from torch import nn
from torch.nn.utils.parametrizations import weight_norm

from edgekit.students.sampling import Arrays, check_size, seeded, spread_answers, token_ids

LENGTH = {"tiny": 32, "full": 1024}
WIDTH = {"tiny": 16, "full": 64}
BLOCKS = {"tiny": 4, "full": 9}
CLASSES = 4


class Block(nn.Module):
    """A circular dilated convolution, ReLU and the way around them: [B, width, T] to the same."""

    def __init__(self, width: int, dilation: int) -> None:
        super().__init__()
        circular = nn.Conv1d(width, width, 3, dilation=dilation, padding=dilation, padding_mode="circular")
        self.conv = weight_norm(circular)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """See the class."""
        return x + torch.relu(self.conv(x))


class CDIL(nn.Module):
    """See the module's docstring.

    Args:
        width: Channels.
        blocks: Convolutions; the last has dilation 2 ** (blocks - 1).
        classes: Logits.
    """

    def __init__(self, width: int, blocks: int, classes: int = CLASSES) -> None:
        super().__init__()
        self.embedding = nn.Embedding(256, width, padding_idx=0)
        self.blocks = nn.ModuleList(Block(width, 2**number) for number in range(blocks))
        self.dropout = nn.Dropout(0.2)
        self.head = nn.Linear(width, classes)

    def forward(self, chars: torch.Tensor) -> torch.Tensor:
        """Chars [B, T] int64 to logits [B, classes]."""
        x = self.embedding(chars).transpose(1, 2)
        for block in self.blocks:
            x = block(x)
        return self.head(self.dropout(x.mean(2)))


def build(size: str = "full", seed: int = 0) -> CDIL:
    """The student with seeded weights, in evaluation mode.

    Args:
        size: `tiny` (32 bytes, width 16, 4 blocks) or `full` (1,024 bytes, width 64, 9 blocks).
        seed: Of the weights.

    Raises:
        UsageError: An unknown size.
    """
    check_size(size)
    with seeded(seed):
        student = CDIL(WIDTH[size], BLOCKS[size])
    spread_answers(student, {"output": student.head}, example(64, 0, size, seed))
    return student.eval()


def example(batch: int = 2, length: int = 16, size: str = "full", seed: int = 0) -> Arrays:
    """Random bytes: `chars` [batch, LENGTH[size]] int64, padded at the end; `length` changes nothing."""
    return {"chars": token_ids(batch, LENGTH[size], 256, seed)}
