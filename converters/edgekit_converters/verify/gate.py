"""The quality gate: does a graph lose more of its metric than the person allows? Pure.

    drop = reference - value   (higher is better; the other way round where lower is)

The interval is a paired percentile bootstrap over samples (Efron and Tibshirani 1993, ch. 13): the same resample serves
reference and graph, so that what both get wrong cancels. The gate holds for the point estimate; the interval says how
sure that is.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from edgekit_converters.data import Samples
from edgekit_converters.verify.metrics import METRICS, Metric
from edgekit_runtime.errors import Refused, UsageError
from edgekit_runtime.manifest import Quality

RESAMPLES = 2000
# Fewer samples than this cannot say anything about a group of their own.
MIN_SLICE = 8


def parse_max_drop(text: str | float) -> tuple[float, bool]:
    """Reads `--max-drop`: `0.01` is absolute, `1%` relative to the reference's value.

    Returns:
        The limit and whether it is relative.

    Raises:
        UsageError: No number or percentage, or one below 0.
    """
    relative = isinstance(text, str) and text.endswith("%")
    try:
        limit = float(text[:-1]) / 100 if isinstance(text, str) and relative else float(text)
    except ValueError as error:
        raise UsageError(f"--max-drop {text!r} is not a number or a percentage", remedy="0.01 or 1%") from error
    if not limit >= 0:
        raise UsageError(f"--max-drop {text} would ask int8 to be better than fp32", remedy="0 or more: 0.01 or 1%")
    return limit, relative


def choose_metric(outputs: Sequence[np.ndarray], labels: np.ndarray | None) -> Metric:
    """The metric where the person named none.

    Integer labels mean classes; float labels a regression. Without labels the reference is the truth: by its label
    where the output looks like class scores (2 to 256 numbers), by its direction otherwise.
    """
    if labels is not None:
        return METRICS["top1" if labels.dtype.kind in "iub" else "mse"]
    width = outputs[0].shape[-1] if outputs[0].ndim else 1
    return METRICS["top1" if 2 <= width <= 256 else "cosine"]


def judge(
    graph: str,
    metric: Metric,
    reference: Sequence[np.ndarray],
    outputs: Sequence[np.ndarray],
    data: Samples,
    max_drop: tuple[float, bool],
) -> tuple[Quality, ...]:
    """Judges one graph on all samples, and on every group the person named.

    Args:
        graph: Graph id.
        metric: The task's metric.
        reference: The student's own outputs, one array a sample.
        outputs: The graph's outputs on the same samples.
        data: Labels (see `labels.check_labels`) and groups. Samples without a known label do not count.
        max_drop: From `parse_max_drop`.

    Raises:
        Refused: The metric needs labels and there are none.
    """
    rows = list(range(len(reference)))
    if data.labels is not None:
        truths = list(data.labels)
        if metric.labels == "class":  # a sample without a known label is neither right nor wrong
            rows = [row for row, truth in enumerate(truths) if (np.asarray(truth) >= 0).any()]
    elif metric.truth is not None:
        truths = [metric.truth(output) for output in reference]
    else:
        raise Refused(f"metric {metric.name} needs labels", remedy="put an array `labels` into the evaluation file")
    truths = [truths[row] for row in rows]
    before, after = (metric.per_sample([given[row] for row in rows], truths) for given in (reference, outputs))
    groups: dict[str, np.ndarray] = {"all": np.arange(len(before))}
    if data.slices is not None:
        named = data.slices[rows]
        groups |= {str(name): np.flatnonzero(named == name) for name in sorted(set(named))}
    return tuple(
        _quality(graph, name, metric, before[rows], after[rows], labels=data.labels is not None, max_drop=max_drop)
        for name, rows in groups.items()
    )


def _quality(
    graph: str,
    group: str,
    metric: Metric,
    before: np.ndarray,
    after: np.ndarray,
    *,
    labels: bool,
    max_drop: tuple[float, bool],
) -> Quality:
    sign = 1.0 if metric.higher_is_better else -1.0
    reference, value = float(metric.finish(before.mean(0))), float(metric.finish(after.mean(0)))
    drop = sign * (reference - value)
    low, high = _interval(metric, before, after, sign)
    limit, relative = max_drop
    allowed = limit * abs(reference) if relative else limit
    n = len(before)
    passed = drop <= allowed or (group != "all" and n < MIN_SLICE)
    sure = (
        "the interval excludes a larger drop" if high <= allowed else f"{n} samples cannot exclude a drop of {high:.4f}"
    )
    reason = f"drop {drop:.4f} [{low:.4f}, {high:.4f}] against {allowed:.4f} allowed; {sure}"
    if group != "all" and n < MIN_SLICE:
        reason = f"{n} samples are too few to judge this group (needs {MIN_SLICE})"
    return Quality(
        graph=graph,
        slice=group,
        metric=metric.name if labels else f"{metric.name} against the fp32 student",
        higher_is_better=metric.higher_is_better,
        reference=reference,
        value=value,
        drop=drop,
        interval_95=(low, high),
        n=n,
        labels=labels,
        gate="passed" if passed else "failed",
        reason=reason,
    )


def _interval(metric: Metric, before: np.ndarray, after: np.ndarray, sign: float) -> tuple[float, float]:
    n = len(before)
    weights = np.random.default_rng(0).multinomial(n, np.full(n, 1 / n), size=RESAMPLES) / n
    drops = sign * (metric.finish(weights @ before) - metric.finish(weights @ after))
    low, high = np.quantile(drops, [0.025, 0.975])
    return float(low), float(high)
