"""Row 18: two branches, one for what is seen and one for what is heard (modality Gram distillation, 2112.11447).

image [B, 1, 28, 28] in 0 to 1 -> Conv 16, 32 with max pools -> Linear 64 ┐
spectrum [B, 1, 40, 32]        -> Conv 16, 32 with max pools -> Linear 64 ┴ concat -> Linear -> logits [B, 10]

The head is a sum over branches, so that each is a student of its own: `seen` and `heard` answer with one branch (the
other one dropped), and either can run on another machine, which then sends 64 numbers. Trained on MNIST digits and
made-up tones whose pitch tells the digit (`tones`). Simplified: the paper's branches are deeper; no distillation here.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import nn

from edgekit.students.layers import conv_bn
from edgekit.students.sampling import Arrays, check_size, images, seeded, settle_batch_norm, spread_answers

WIDTH = {"tiny": 8, "full": 16}
BANDS, FRAMES = 40, 32
BRANCH = 64


class Branch(nn.Module):
    """Two convolutions, each with a 2x2 max pool, and one linear layer.

    Args:
        width: Channels of the first convolution; the second has twice as many.
        height: Of the input.
        length: Of the input.
    """

    def __init__(self, width: int, height: int, length: int) -> None:
        super().__init__()
        self.maps = nn.Sequential(
            conv_bn(1, width), nn.ReLU(), nn.MaxPool2d(2), conv_bn(width, 2 * width), nn.ReLU(), nn.MaxPool2d(2)
        )
        self.dense = nn.Linear(2 * width * (height // 4) * (length // 4), BRANCH)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """[B, 1, height, length] to [B, 64]."""
        return torch.relu(self.dense(self.maps(x).flatten(1)))


class TwoBranch(nn.Module):
    """See the module's docstring.

    Args:
        width: Channels of the first convolution of each branch.
        classes: Logits.
    """

    def __init__(self, width: int = 16, classes: int = 10) -> None:
        super().__init__()
        self.seeing, self.hearing = Branch(width, 28, 28), Branch(width, BANDS, FRAMES)
        self.head = nn.Linear(2 * BRANCH, classes)

    def forward(self, image: torch.Tensor, spectrum: torch.Tensor) -> torch.Tensor:
        """Image [B, 1, 28, 28] and spectrum [B, 1, 40, 32] to logits [B, classes]."""
        return self.head(torch.cat([self.seeing(image), self.hearing(spectrum)], dim=1))


class OneBranch(nn.Module):
    """What is left of a `TwoBranch` when the other branch is dropped: its own half of the head."""

    def __init__(self, branch: Branch, head: nn.Linear, first: bool) -> None:
        super().__init__()
        self.branch = branch
        self.head = nn.Linear(BRANCH, head.out_features)
        half = head.weight[:, :BRANCH] if first else head.weight[:, BRANCH:]
        with torch.no_grad():
            self.head.weight.copy_(half)
            self.head.bias.copy_(head.bias)


class Seeing(OneBranch):
    """Answers by sight alone."""

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        """Image [B, 1, 28, 28] to logits [B, classes]."""
        return self.head(self.branch(image))


class Hearing(OneBranch):
    """Answers by ear alone."""

    def forward(self, spectrum: torch.Tensor) -> torch.Tensor:
        """Spectrum [B, 1, 40, 32] to logits [B, classes]."""
        return self.head(self.branch(spectrum))


def seen(student: TwoBranch) -> Seeing:
    """The student without its audio branch."""
    return Seeing(student.seeing, student.head, first=True).eval()


def heard(student: TwoBranch) -> Hearing:
    """The student without its picture branch."""
    return Hearing(student.hearing, student.head, first=False).eval()


def build(size: str = "full", seed: int = 0) -> TwoBranch:
    """16 and 32 channels in each branch (`tiny`: 8 and 16), seeded weights."""
    check_size(size)
    with seeded(seed):
        student = TwoBranch(WIDTH[size])
    batch = example(32, seed=seed)
    settle_batch_norm(student, batch)
    spread_answers(student, {"output": student.head}, batch)
    return student.eval()


def example(batch: int = 2, length: int = 0, size: str = "full", seed: int = 0) -> Arrays:
    """Random pictures and tones: `image` [batch, 1, 28, 28] in 0 to 1, `spectrum` [batch, 1, 40, 32] float32.

    `length` and `size` change nothing.
    """
    pictures = 1 / (1 + np.exp(-images(batch, 1, 28, seed)))
    digits = np.random.default_rng(seed).integers(0, 10, batch)
    return {"image": pictures.astype(np.float32), "spectrum": tones(digits, seed)}


def tones(digits: np.ndarray, seed: int = 0) -> np.ndarray:
    """A made-up tone for each digit: a pitch and its octave over time, in noise that often drowns it.

    Args:
        digits: [N] in 0 to 9: the pitch is band 2 + 2 * digit, give or take one.
        seed: Of pitch, length, loudness and noise.

    Returns:
        Log power [N, 1, 40, 32] float32, mean about 0.
    """
    rng = np.random.default_rng([seed, 7])
    spectrum = rng.standard_normal((len(digits), 1, BANDS, FRAMES))
    band, time = np.arange(BANDS)[:, None], np.arange(FRAMES)[None, :]
    for row, digit in zip(spectrum, digits, strict=True):
        pitch = 2 + 2 * int(digit) + rng.normal(0, 0.6)
        start, long = rng.integers(0, 12), rng.integers(8, 20)
        sounding = (time >= start) & (time < start + long)
        shape = np.exp(-((band - pitch) ** 2)) + 0.5 * np.exp(-((band - pitch - 12) ** 2))
        row += rng.uniform(0.4, 2.5) * shape * sounding
    return spectrum.astype(np.float32)
