"""How good the students themselves are on their held-back data, with an interval."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from benchmarks.cells import Held
from edgekit.students.sampling import Arrays, run
from edgekit_converters.data import Samples
from edgekit_converters.verify.metrics import METRICS, Metric

# Samples that one forward pass takes at most.
TOGETHER = 64
RESAMPLES = 2000


def held(module: torch.nn.Module, data: Samples, metric: str, output: str, *, together: bool = True) -> Held | None:
    """Judges a student in torch on its labelled data.

    Args:
        module: The student.
        data: Held-back samples.
        metric: A key of the converters' metrics.
        output: The judged output.
        together: Whether the student has a batch axis, the first of every input.

    Returns:
        Value and 95 % percentile bootstrap interval over samples; None without labels.
    """
    if data.labels is None:
        return None
    found = answers(module, data.inputs) if together else [run(module, sample) for sample in data.inputs]
    return from_outputs([answer[output] for answer in found], data.labels, METRICS[metric])


def from_outputs(outputs: Sequence[np.ndarray], labels: np.ndarray, metric: Metric) -> Held:
    """Value and interval from the answer to each sample. Samples without a known class do not count. Pure."""
    rows = [row for row, label in enumerate(labels) if metric.labels != "class" or bool((np.asarray(label) >= 0).any())]
    statistics = metric.per_sample([outputs[row] for row in rows], [labels[row] for row in rows])
    n = len(rows)
    weights = np.random.default_rng(0).multinomial(n, np.full(n, 1 / n), size=RESAMPLES) / n
    low, high = np.quantile(metric.finish(weights @ statistics), [0.025, 0.975])
    return Held(metric.name, float(metric.finish(statistics.mean(0))), (float(low), float(high)), n)


def answers(module: torch.nn.Module, samples: Sequence[Arrays]) -> list[Arrays]:
    """The student's outputs for each sample, samples of one shape together."""
    alike: dict[tuple[object, ...], list[int]] = {}
    for row, sample in enumerate(samples):
        alike.setdefault(tuple((name, array.shape) for name, array in sample.items()), []).append(row)
    found: list[Arrays] = [{} for _ in samples]
    for rows in alike.values():
        for start in range(0, len(rows), TOGETHER):
            part = rows[start : start + TOGETHER]
            batch = {name: np.concatenate([samples[row][name] for row in part]) for name in samples[part[0]]}
            for name, array in run(module, batch).items():
                for row, one in zip(part, np.split(array, len(part)), strict=True):
                    found[row][name] = one
    return found
