"""Do labels fit the output they judge? Decided before anything is converted. Pure."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from edgekit_converters.verify.metrics import Metric, holds_labels
from edgekit_runtime.errors import Refused


def check_labels(metric: Metric, labels: np.ndarray, outputs: Sequence[np.ndarray], origin: str) -> None:
    """Compares labels with the student's answers.

    Args:
        metric: What they will be used for.
        labels: One entry a sample, of any shape.
        outputs: The student's output for each sample.
        origin: Where the labels came from, for errors.

    Raises:
        Refused: They are no numbers, not of the kind or number that the metric takes, outside the output's classes, or
            not one of them is known.
    """
    if metric.labels == "any":
        return
    kinds = "iub" if metric.labels == "class" else "iubf"
    if labels.dtype.kind not in kinds:
        raise Refused(
            f"{origin}: labels are {labels.dtype}; {metric.name} takes {_TAKES[metric.labels]}", remedy=_REMEDY
        )
    if labels.dtype.kind == "f" and not np.isfinite(labels).all():
        raise Refused(f"{origin}: labels hold NaN or infinity", remedy="remove those samples")
    for index, (label, output) in enumerate(zip(labels, outputs, strict=True)):
        problem = _PROBLEMS[metric.labels](np.ravel(label), output)
        if problem:
            raise Refused(
                f"{origin}: labels do not fit the output: sample {index} has {problem}; "
                f"{metric.name} takes {_TAKES[metric.labels]}",
                remedy=_REMEDY,
            )
    if metric.labels == "class" and not (labels >= 0).any():
        raise Refused(
            f"{origin}: labels are all below 0, which means not known: there is nothing to judge",
            remedy="leave labels out to judge by agreement with the student",
        )


def _class_problem(label: np.ndarray, output: np.ndarray) -> str:
    if holds_labels(output):  # decoded tokens: labels as they stand, at most as many
        return "" if label.size <= output.size else f"{label.size} tokens for at most {output.size}"
    rows, classes = output.size // output.shape[-1] if output.ndim else 1, output.shape[-1] if output.ndim else 1
    if label.size > rows:
        return f"{label.size} labels for {rows} row{'s' if rows > 1 else ''} of scores"
    if label.size and label.max() >= classes:
        return f"label {int(label.max())}, and the output has {classes} classes (0 to {classes - 1})"
    return ""


def _score_problem(label: np.ndarray, output: np.ndarray) -> str:
    if label.size != 1:
        return f"{label.size} labels"
    if output.size > 1 and not 0 <= label[0] < output.size:
        return f"label {label[0]:g}, and the output has {output.size} classes (0 to {output.size - 1})"
    return ""


def _value_problem(label: np.ndarray, output: np.ndarray) -> str:
    return "" if label.size == output.size else f"{label.size} numbers for an output of {output.size}"


_PROBLEMS = {"class": _class_problem, "score": _score_problem, "value": _value_problem}
_TAKES = {
    "class": "whole numbers: the index of the class, one for each row of scores, below 0 where it is not known",
    "score": "one number a sample",
    "value": "as many numbers a sample as the output has",
}
_REMEDY = "mend the array `labels`, or name the metric it is meant for (--metric)"
