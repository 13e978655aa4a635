"""Task metrics: each turns outputs and labels into one number, from sufficient statistics a sample.

A metric gives a statistic for every sample (`per_sample`) and a function from the mean of those statistics to the
number (`finish`), so that a paired bootstrap over samples costs a matrix product and never runs the student again.
`labels` is None where the person has none: then the reference's own outputs stand in as the truth.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import Literal

import numpy as np

from edgekit_converters.named import find_named
from edgekit_runtime.errors import Refused, UsageError

PerSample = Callable[[Sequence[np.ndarray], Sequence[np.ndarray]], np.ndarray]


@dataclasses.dataclass(frozen=True)
class Metric:
    """A task metric.

    Attributes:
        name: As in `--metric`.
        higher_is_better: Direction.
        per_sample: (outputs, truths) -> statistics [n, k].
        finish: Mean statistics [..., k] -> value [...].
        truth: Turns a reference output into a stand-in label where there are none; None: needs labels.
        labels: What a label is: `class` (whole numbers below the size of the output's last axis, one for each of its
            rows; below 0: not known), `score` (one number), `value` (numbers as many as the output's), `any`.
    """

    name: str
    higher_is_better: bool
    per_sample: PerSample
    finish: Callable[[np.ndarray], np.ndarray]
    truth: Callable[[np.ndarray], np.ndarray] | None = None
    labels: Literal["class", "score", "value", "any"] = "any"


def _first(statistics: np.ndarray) -> np.ndarray:
    return statistics[..., 0]


def _column(values: Sequence[float]) -> np.ndarray:
    return np.asarray(values, np.float64)[:, None]


def holds_labels(output: np.ndarray) -> bool:
    """Whether an output holds labels (tokens, in 32 or 64 bits) and no scores, which an int8 graph gives in 8 bits."""
    return output.dtype.kind in "iu" and output.dtype.itemsize >= 4


def _classes(outputs: Sequence[np.ndarray]) -> list[np.ndarray]:
    return [_argmax_truth(output).ravel() for output in outputs]


def _top1(outputs: Sequence[np.ndarray], truths: Sequence[np.ndarray]) -> np.ndarray:
    """Share of right labels a sample; for token outputs over the tokens whose label is 0 or more (at least one)."""
    rows = []
    for guess, truth in zip(_classes(outputs), truths, strict=True):
        label = np.asarray(truth).ravel()
        known = label >= 0
        rows.append(float(np.mean(guess[: label.size][known] == label[known])))
    return _column(rows)


def _f1(outputs: Sequence[np.ndarray], truths: Sequence[np.ndarray]) -> np.ndarray:
    """Micro F1 over all classes but 0 (the negative class, or "outside" of a tagger): TP, FP, FN a sample."""
    rows = []
    for guess, truth in zip(_classes(outputs), truths, strict=True):
        label = np.asarray(truth).ravel()
        known = label >= 0
        found, real = guess[: label.size][known], label[known]
        hit = float(np.sum((found == real) & (real > 0)))
        rows.append((hit, float(np.sum(found > 0)) - hit, float(np.sum(real > 0)) - hit))
    return np.asarray(rows, np.float64)


def _f1_value(mean: np.ndarray) -> np.ndarray:
    hit, wrong, missed = mean[..., 0], mean[..., 1], mean[..., 2]
    return 2 * hit / np.maximum(2 * hit + wrong + missed, 1e-12)


def _qwk(outputs: Sequence[np.ndarray], truths: Sequence[np.ndarray]) -> np.ndarray:
    """Moments for quadratic weighted kappa: 1 - E[(x-y)^2] / E over independent x, y (Cohen 1968)."""
    x = np.asarray([np.rint(_score(output)) for output in outputs])
    y = np.asarray([float(np.ravel(truth)[0]) for truth in truths])
    return np.stack([(x - y) ** 2, x, x * x, y, y * y], axis=1)


def _score(output: np.ndarray) -> float:
    return float(np.argmax(output)) if output.size > 1 else float(np.ravel(output)[0])


def _qwk_value(mean: np.ndarray) -> np.ndarray:
    expected = mean[..., 2] + mean[..., 4] - 2 * mean[..., 1] * mean[..., 3]
    return 1 - mean[..., 0] / np.maximum(expected, 1e-12)


def _mse(outputs: Sequence[np.ndarray], truths: Sequence[np.ndarray]) -> np.ndarray:
    return _column(
        [
            float(np.mean((o - np.asarray(t, o.dtype).reshape(o.shape)) ** 2))
            for o, t in zip(outputs, truths, strict=True)
        ]
    )


def cosine(left: np.ndarray, right: np.ndarray) -> float:
    """Cosine of two arrays taken as vectors; 1 when both are zero."""
    a, b = np.ravel(left).astype(np.float64), np.ravel(right).astype(np.float64)
    norm = float(np.linalg.norm(a) * np.linalg.norm(b))
    return float(a @ b) / norm if norm else float(np.array_equal(a, b))


def _cosine(outputs: Sequence[np.ndarray], truths: Sequence[np.ndarray]) -> np.ndarray:
    return _column([cosine(output, truth) for output, truth in zip(outputs, truths, strict=True)])


def _perplexity(outputs: Sequence[np.ndarray], truths: Sequence[np.ndarray]) -> np.ndarray:
    """Negative log-likelihood and number of tokens a sample."""
    rows = []
    for output, truth in zip(outputs, truths, strict=True):
        logits = output.reshape(-1, output.shape[-1]).astype(np.float64)
        label = np.asarray(truth).ravel().astype(np.int64)
        known = label >= 0
        logits = logits - logits.max(axis=-1, keepdims=True)
        log = logits - np.log(np.exp(logits).sum(axis=-1, keepdims=True))
        rows.append((-float(log[: label.size][known, label[known]].sum()), float(known.sum())))
    return np.asarray(rows, np.float64)


def _perplexity_value(mean: np.ndarray) -> np.ndarray:
    return np.exp(mean[..., 0] / np.maximum(mean[..., 1], 1e-12))


def edit_distance(left: Sequence[int], right: Sequence[int]) -> int:
    """Levenshtein distance."""
    row = list(range(len(right) + 1))
    for i, a in enumerate(left, start=1):
        before, row[0] = row[0], i
        for j, b in enumerate(right, start=1):
            before, row[j] = row[j], min(row[j] + 1, row[j - 1] + 1, before + (a != b))
    return row[-1]


def _cer(outputs: Sequence[np.ndarray], truths: Sequence[np.ndarray]) -> np.ndarray:
    """Edits and characters of the truth a sample; id 0 is padding."""
    rows = []
    for guess, truth in zip(_classes(outputs), truths, strict=True):
        real = [int(x) for x in np.ravel(truth) if x > 0]
        rows.append((edit_distance([int(x) for x in guess if x > 0], real), len(real)))
    return np.asarray(rows, np.float64)


def _ratio(mean: np.ndarray) -> np.ndarray:
    return mean[..., 0] / np.maximum(mean[..., 1], 1e-12)


def _argmax_truth(reference: np.ndarray) -> np.ndarray:
    """The label of each row of scores; decoded tokens are labels already."""
    return reference if holds_labels(reference) else np.argmax(reference, axis=-1)


def _itself(reference: np.ndarray) -> np.ndarray:
    return reference


METRICS: dict[str, Metric] = {
    metric.name: metric
    for metric in (
        Metric("top1", True, _top1, _first, _argmax_truth, "class"),
        Metric("f1", True, _f1, _f1_value, _argmax_truth, "class"),
        Metric("qwk", True, _qwk, _qwk_value, None, "score"),
        Metric("mse", False, _mse, _first, _itself, "value"),
        Metric("cosine", True, _cosine, _first, _itself, "value"),
        Metric("perplexity", False, _perplexity, _perplexity_value, _argmax_truth, "class"),
        Metric("cer", False, _cer, _ratio, _argmax_truth, "class"),
    )
}


def find_metric(name: str) -> Metric:
    """The metric of that name, or the person's own `module:function`.

    The function takes (output, label) of one sample as arrays and returns a number; its attribute `direction` is
    "higher" or "lower".

    Raises:
        UsageError: An unknown name, or a function without a direction.
        Refused: The function cannot be imported.
    """
    if name in METRICS:
        return METRICS[name]
    if ":" not in name:
        raise UsageError(f"metric {name!r} is not known", remedy=f"one of {', '.join(METRICS)}, or module:function")
    function = find_named(name)
    direction = getattr(function, "direction", None)
    if direction not in ("higher", "lower"):
        raise UsageError(f"metric {name} has no direction", remedy='set FUNCTION.direction = "higher" or "lower"')

    def per_sample(outputs: Sequence[np.ndarray], truths: Sequence[np.ndarray]) -> np.ndarray:
        try:
            return _column([float(function(output, truth)) for output, truth in zip(outputs, truths, strict=True)])
        except Exception as error:  # the person's own code: whatever it raises is shown to them
            raise Refused(
                f"metric {name} raised {type(error).__name__}: {error}",
                remedy="it takes (output, label) of one sample as arrays and returns a number",
            ) from error

    return Metric(name, direction == "higher", per_sample, _first)
