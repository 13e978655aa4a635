"""What a student is trained and judged on."""

from __future__ import annotations

import dataclasses

import numpy as np

from edgekit.students.vocabulary import Vocabulary

Arrays = dict[str, np.ndarray]


@dataclasses.dataclass(frozen=True)
class Task:
    """Arrays named as the arguments of `forward`, samples first; labels int64.

    Attributes:
        train: Training samples. The calibration samples are the first of them.
        held: The held-back set: judged on, never trained or calibrated on.
        vocabulary: Of a text student.
        calibration: Samples to calibrate on; None: the first training samples.
        slices: [N] a group a held-back sample, for which the quality gate holds too.
        judged: Labels the converted student is judged on, where they are not those it learns from.
        preprocess: Text of the `preprocess.toml` that makes the same inputs on a device; may be empty.
        metric: What int8 is judged by where that is not accuracy; may be empty.
    """

    train: Arrays
    labels: np.ndarray
    held: Arrays
    held_labels: np.ndarray
    vocabulary: Vocabulary | None = None
    calibration: Arrays | None = None
    slices: np.ndarray | None = None
    judged: np.ndarray | None = None
    preprocess: str = ""
    metric: str = ""
