"""The demo's data: scikit-learn's handwritten digits, drawn on crops of its two photographs or told in words.

    1,797 digits ──► 1,200 train │ 150 calibration │ 447 evaluation          every digit in one part only
    2 photographs ──► left 55 %  │ middle 20 %     │ right 25 %              every pixel in one part only

Splitting comes first, composing after, so that nothing of an evaluation picture was ever trained on.
"""

from __future__ import annotations

import dataclasses
from typing import Literal

import numpy as np

from edgekit.demo.models import STRENGTHS
from edgekit_runtime.errors import UsageError

Part = Literal["train", "calibration", "evaluation"]

DIGITS: dict[Part, slice] = {
    "train": slice(0, 1200),
    "calibration": slice(1200, 1350),
    "evaluation": slice(1350, None),
}
COLUMNS: dict[Part, tuple[float, float]] = {
    "train": (0.0, 0.55),
    "calibration": (0.55, 0.75),
    "evaluation": (0.75, 1.0),
}
SIDE = 96
SCALES = (4.0, 6.0)
# Photographs are dimmed, so that a light digit can be told from the sky.
DIMMED = np.float32(0.65)


@dataclasses.dataclass(frozen=True)
class Ground:
    """The raw material of one part.

    Attributes:
        digits: [N, 8, 8] float32, ink from 0 to 1.
        labels: [N] int64.
        photographs: Regions of the photographs, each [H, W, 3] uint8.
    """

    digits: np.ndarray
    labels: np.ndarray
    photographs: tuple[np.ndarray, ...]


def ground(part: Part, seed: int = 0) -> Ground:
    """The digits and the photograph regions of one part; parts share nothing.

    Args:
        part: `train`, `calibration` or `evaluation`.
        seed: Of the split of the digits.

    Raises:
        UsageError: scikit-learn (or Pillow, which reads its photographs) is not installed.
    """
    try:
        from sklearn.datasets import load_digits, load_sample_images

        pixels, labels = load_digits(return_X_y=True)
        photographs = load_sample_images().images
    except ImportError as error:
        raise UsageError(f"the demo's material needs {error.name}", remedy="pip install 'edgekit[demo]'") from error
    rows = np.random.default_rng(seed).permutation(len(labels))[DIGITS[part]]
    low, high = COLUMNS[part]
    return Ground(
        digits=(pixels[rows].reshape(-1, 8, 8) / 16.0).astype(np.float32),
        labels=labels[rows].astype(np.int64),
        photographs=tuple(p[:, int(low * p.shape[1]) : int(high * p.shape[1])] for p in photographs),
    )


def pictures(
    source: Ground,
    picks: np.ndarray,
    rng: np.random.Generator,
    side: int = SIDE,
    scales: tuple[float, float] = SCALES,
    mirror: bool = False,
) -> np.ndarray:
    """Draws digits on random crops of the photographs.

    A digit stands anywhere in the crop, slightly transparent, in a random light colour; the photograph is dimmed.

    Args:
        source: Digits and photographs.
        picks: [N] which digit each picture shows.
        rng: Of crop, place, scale, colour.
        side: Height and width of a picture in pixels.
        scales: Smallest and largest enlargement; 4 to 6 makes a digit 32 to 48 pixels high.
        mirror: Turn half of the crops left to right and half upside down, to train on more than two photographs.

    Returns:
        [N, 3, side, side] uint8, RGB.
    """
    result = np.empty((len(picks), 3, side, side), dtype=np.uint8)
    for index, pick in enumerate(picks):
        photograph = source.photographs[rng.integers(len(source.photographs))]
        top, left = (int(rng.integers(0, extent - side + 1)) for extent in photograph.shape[:2])
        crop = photograph[top : top + side, left : left + side].astype(np.float32) * DIMMED
        if mirror:
            crop = crop[:: rng.choice((-1, 1)), :: rng.choice((-1, 1))].copy()
        size = round(8 * rng.uniform(*scales))
        y, x = (int(rng.integers(0, side - size + 1)) for _ in range(2))
        under = crop[y : y + size, x : x + size]
        colour = rng.uniform(180.0, 255.0, size=3)
        cover = np.clip(1.3 * enlarge(source.digits[pick], size), 0.0, 1.0)[:, :, None] * rng.uniform(0.75, 1.0)
        crop[y : y + size, x : x + size] = under * (1.0 - cover) + colour * cover
        result[index] = crop.round().astype(np.uint8).transpose(2, 0, 1)
    return result


def enlarge(digit: np.ndarray, size: int) -> np.ndarray:
    """Bilinear interpolation of a square [n, n] to [size, size], float32."""
    n = len(digit)
    place = np.clip((np.arange(size) + 0.5) * n / size - 0.5, 0, n - 1)
    # Weight of source pixel j for target pixel i: 1 at the same place, falling to 0 one pixel away.
    weights = np.clip(1.0 - np.abs(place[:, None] - np.arange(n)), 0.0, 1.0).astype(np.float32)
    return weights @ digit @ weights.T


def to_float(pixels: np.ndarray) -> np.ndarray:
    """Pixels of 0 to 255 (uint8) as the student reads them: float32 from 0 to 1."""
    return pixels.astype(np.float32) / np.float32(255.0)


def sentences(digits: np.ndarray, length: int = 64) -> np.ndarray:
    """Tells digits in words: one word an inked cell, in reading order.

    The word of cell (row, column) with ink of strength s is 1 + 3 * (8 * row + column) + s, where s is 0 for a quarter
    to a half of full ink, 1 for up to three quarters, 2 for more. A digit has 15 to 40 words.

    Args:
        digits: [N, 8, 8] float32, ink from 0 to 1.
        length: Words of the longest sentence; 64 holds every digit.

    Returns:
        [N, length] int64, padded with 0 at the end.
    """
    ids = np.zeros((len(digits), length), dtype=np.int64)
    strength = np.minimum((digits.reshape(len(digits), 64) * 4.0).astype(np.int64) - 1, STRENGTHS - 1)
    for row, cells in zip(ids, strength, strict=True):
        inked = np.flatnonzero(cells >= 0)[:length]
        row[: len(inked)] = 1 + STRENGTHS * inked + cells[inked]
    return ids
