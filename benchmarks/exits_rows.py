"""A row of the page `exits`: what leaves where at a certified risk, and how long a request takes."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

import msgspec
import numpy as np

from benchmarks.page import target
from edgekit_converters.exits.certify import Samples, certify, common_path, exact_binomial, outcome

RISK, CONFIDENCE = 0.01, 0.95
REDRAWS = 500
TIMED, ROUNDS = 200, 5
Request = Callable[[int], object]
Early = Callable[[Sequence[float], int], object]

HEADER = (
    "student",
    "graphs",
    "samples",
    "risk",
    "full, µs",
    "early, µs",
    "ratio",
    "target",
    "",
    "disagreement",
    "left at each exit",
    "thresholds of all samples",
    "risk exceeded",
    "allowed",
    "",
)


class Times(msgspec.Struct, frozen=True):
    """Mean time of a request, µs: by the full model, and with exits."""

    full_us: float
    early_us: float


class Row(msgspec.Struct, frozen=True):
    """One student at one risk.

    Attributes:
        name: Of the student.
        chain: Of its graph.
        wanted: Largest ratio of times that meets the target.
        n: Samples.
        risk: That is certified.
        disagreement: With the full model, over all parts, each with the thresholds of the others.
        fractions: Share of the samples that left at each exit, in the same way.
        thresholds: Certified on all samples.
        exceeded: Share of re-drawn calibration sets whose thresholds have more than the risk on the population.
        times: None where nothing was timed.
    """

    name: str
    chain: str
    wanted: float
    n: int
    risk: float
    disagreement: float
    fractions: tuple[float, ...]
    thresholds: tuple[float, ...]
    exceeded: float
    times: Times | None

    def cells(self) -> tuple[object, ...]:
        """As the page has them."""
        slack = 0.05 + 3 * (0.05 * 0.95 / REDRAWS) ** 0.5
        timed: tuple[object, ...] = ("-", "-", "not timed", f"≤ {self.wanted:.1f}x", "-")
        if self.times is not None:
            full, early = self.times.full_us, self.times.early_us
            met = target(f"≤ {self.wanted:.1f}x", early <= self.wanted * full)
            timed = (f"{full:.0f}", f"{early:.0f}", f"{early / full:.2f}x", *met)
        return (
            self.name,
            self.chain,
            self.n,
            f"{self.risk:.4f}",
            *timed,
            f"{self.disagreement:.4f}",
            " ".join(f"{share:.0%}" for share in self.fractions),
            " ".join("never" if one > 1 else f"{one:.3f}" for one in self.thresholds[:-1]),
            f"{self.exceeded:.1%}",
            *target(f"≤ {slack:.1%}", self.exceeded <= slack),
        )


def measured(
    name: tuple[str, str],
    wanted: float,
    samples: Samples,
    calls: tuple[Sequence[Request], Early] | None,
    risk: float = RISK,
) -> Row:
    """Certificate of one student, and time.

    Args:
        name: Of the student, and of its graph.
        wanted: Largest ratio that meets the target.
        samples: Scores and losses of all held-back samples.
        calls: Ways to run the full model on one of them, of which the fastest counts, and what runs one of them at
            thresholds; None: nothing is timed.
        risk: To certify.
    """
    path = common_path(len(samples.scores))
    order = np.random.default_rng(0).permutation(samples.n)
    times, losses, left = [], [], np.zeros(len(samples.scores))
    parts = folds(samples.n)
    for fold in range(parts):
        test = order[fold::parts]
        certified = certify(samples.rows(np.setdiff1d(order, test)), path, risk, CONFIDENCE)
        lost, fractions = outcome(samples.rows(test), certified.thresholds)
        losses.append(lost)
        left += np.asarray(fractions) * len(test)
        if calls is not None:
            whole, early = calls
            runs = (*whole, lambda i, t=certified.thresholds, early=early: early(t, i))
            times.append(_times(runs, test[: max(TIMED // parts, 1)]))
    return Row(
        name=name[0],
        chain=name[1],
        wanted=wanted,
        n=samples.n,
        risk=risk,
        disagreement=float(np.concatenate(losses).mean()),
        fractions=tuple(map(float, left / samples.n)),
        thresholds=certify(samples, path, risk, CONFIDENCE).thresholds,
        exceeded=_exceeded(samples, path, risk),
        times=_mean(times) if times else None,
    )


def _mean(times: Sequence[np.ndarray]) -> Times:
    *wholes, early_us = np.concatenate(times, axis=1).mean(1)
    return Times(float(min(wholes)), float(early_us))


def _times(calls: Sequence[Request], numbers: Sequence[int]) -> np.ndarray:
    """Least time of each request by each call, all in alternation, µs [calls, requests]."""
    found = np.full((len(calls), len(numbers)), np.inf)
    for _ in range(ROUNDS):
        for at, number in enumerate(numbers):
            for row, call in enumerate(calls):
                start = time.perf_counter_ns()
                call(int(number))
                found[row, at] = min(found[row, at], (time.perf_counter_ns() - start) / 1e3)
    return found


def folds(n: int) -> int:
    """Parts of n samples: 5, or 20 where only that leaves enough for a certificate that bears one loss."""
    return 5 if exact_binomial(1, n - -(-n // 5), RISK) <= 1 - CONFIDENCE else 20


def smallest_risk(n: int) -> float:
    """What n samples less one part can certify at all: nothing may be lost, (1 - ε)^m ≤ δ."""
    left = n - -(-n // folds(n))
    # A hair more, so that rounding does not refuse it.
    return (1 - (1 - CONFIDENCE) ** (1 / left)) * 1.0001


def _exceeded(samples: Samples, path: np.ndarray, risk: float) -> float:
    """Share of re-drawn calibration sets whose thresholds have more than the risk on the whole population."""
    true = np.array([outcome(samples, thresholds)[0].mean() for thresholds in path])
    rng = np.random.default_rng(1)
    count = 0
    for _ in range(REDRAWS):
        step = certify(samples.rows(rng.integers(0, samples.n, samples.n)), path, risk, CONFIDENCE).step
        count += step >= 0 and true[step] > risk
    return float(count / REDRAWS)
