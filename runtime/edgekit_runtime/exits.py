"""Answering early: scores, the loop over exits, cascades, and the alarm for a certificate that no longer holds.

    all samples ──► step 0 ──► score ≥ threshold? ──yes──► answered by exit 0
                                  │ no (these rows only)
                                  ▼
                               step 1 ──► … ──► last step: the full answer

A step is the next piece of one student (`chain.Chain`) or the next larger student (`Cascade`): one loop serves both.
"""

from __future__ import annotations

import dataclasses
import math
import random
from collections.abc import Callable, Mapping, Sequence
from typing import Protocol

import numpy as np

from edgekit_runtime.errors import UsageError

Arrays = dict[str, np.ndarray]
Score = Callable[[np.ndarray], np.ndarray]
# Runs the next step on some rows of the step before (None: on all of them) and gives scores [rows, ..., classes].
Step = Callable[["np.ndarray | None"], np.ndarray]
NEVER = 2.0  # a threshold that no score reaches


def softmax(logits: np.ndarray) -> np.ndarray:
    """Softmax over the last axis, in float64."""
    shifted = np.exp(logits.astype(np.float64) - logits.max(-1, keepdims=True))
    total: np.ndarray = shifted / shifted.sum(-1, keepdims=True)
    return total


def _max_softmax(logits: np.ndarray) -> np.ndarray:
    total: np.ndarray = np.add.reduce(
        np.exp(logits - np.maximum.reduce(logits, -1, keepdims=True), dtype=np.float64), -1
    )
    return _weakest(1.0 / total)


def _margin(logits: np.ndarray) -> np.ndarray:
    two = np.sort(softmax(logits), -1)[..., -2:]
    return _weakest(two[..., -1] - two[..., 0])


def _certainty(logits: np.ndarray) -> np.ndarray:
    p = softmax(logits)
    entropy = -(p * np.log(np.maximum(p, 1e-300))).sum(-1)
    return _weakest(1.0 - entropy / np.log(max(p.shape[-1], 2)))


def _weakest(scores: np.ndarray) -> np.ndarray:
    """One score a sample: an answer of many parts (one a word) is as sure as its least sure part."""
    return scores if scores.ndim == 1 else scores.reshape(len(scores), -1).min(1)


# How sure an answer is, in [0, 1], from logits [samples, ..., classes].
SCORES: Mapping[str, Score] = {
    "max_softmax": _max_softmax,  # probability of the best class
    "margin": _margin,  # best less second best
    "certainty": _certainty,  # 1 - entropy / log(classes)
}


def score(rule: str, logits: np.ndarray) -> np.ndarray:
    """Scores [samples] of logits [samples, ..., classes].

    Raises:
        UsageError: There is no such rule.
    """
    if rule not in SCORES:
        raise UsageError(f"there is no score rule {rule!r}", remedy=f"one of: {', '.join(SCORES)}")
    return SCORES[rule](logits)


def spoken(logits: Sequence[np.ndarray], mixes: Sequence[Sequence[float]] = ()) -> list[np.ndarray]:
    """What each exit says, alone or mixed with those before it.

    Args:
        logits: Of each exit, the full answer last.
        mixes: For each exit the weights of all exits up to it; empty: each speaks for itself.
    """
    if not mixes:
        return list(logits)
    return [
        mixed(logits[: number + 1], weights) if any(weights[:-1]) else logits[number]
        for number, weights in enumerate(mixes)
    ]


def mixed(logits: Sequence[np.ndarray], weights: Sequence[float]) -> np.ndarray:
    """What the exits up to one say together: log of the weighted mean of their probabilities, as logits."""
    total = sum(weight * softmax(one) for weight, one in zip(weights, logits, strict=True))
    return np.log(np.maximum(total, 1e-30)).astype(np.float32)


@dataclasses.dataclass(frozen=True)
class Early:
    """Answers of one request.

    Attributes:
        answers: Scores [samples, ..., classes], each row from the exit it left at.
        exits: [samples] number of that exit; the last is the full answer.
    """

    answers: np.ndarray
    exits: np.ndarray


def answer_early(
    steps: Sequence[Step],
    thresholds: Sequence[float],
    *,
    rule: str = "max_softmax",
    mixes: Sequence[Sequence[float]] = (),
) -> Early:
    """Runs the steps in order; rows that are sure enough leave, the rest go on.

    Args:
        steps: In order of cost. Each is told which rows of the step before go on.
        thresholds: One a step. The last is not looked at: who comes so far is answered there.
        rule: Key of `SCORES`.
        mixes: For each step the weights of all steps up to it; empty: each speaks for itself.

    Raises:
        UsageError: Another number of thresholds than of steps, or an unknown rule.
    """
    if len(thresholds) != len(steps):
        raise UsageError(f"{len(thresholds)} thresholds for {len(steps)} exits", remedy="give one an exit")
    first = steps[0](None)
    if len(first) == 1:  # one sample leaves or stays as a whole: no rows to keep apart
        return _answer_one(first, steps, thresholds, rule, mixes)
    exits, active = np.zeros(len(first), np.int64), np.arange(len(first))
    answers: np.ndarray | None = None
    seen: list[np.ndarray] = []
    keep: np.ndarray | None = None
    for number, (step, threshold) in enumerate(zip(steps, thresholds, strict=True)):
        logits = step(keep) if number else first
        seen = [*(one if keep is None else one[keep] for one in seen), logits] if mixes else []
        said = _said(logits, seen, mixes, number)
        sure = np.ones(len(said), bool) if number == len(steps) - 1 else score(rule, said) >= threshold
        if answers is None:
            answers = np.empty((len(first), *said.shape[1:]), said.dtype)
        left = active[sure]
        answers[left], exits[left] = said[sure], number
        if sure.all():
            break
        keep = np.flatnonzero(~sure) if sure.any() else None
        active = active[~sure]
    assert answers is not None
    return Early(answers, exits)


def _answer_one(
    first: np.ndarray,
    steps: Sequence[Step],
    thresholds: Sequence[float],
    rule: str,
    mixes: Sequence[Sequence[float]],
) -> Early:
    logits, seen, last = first, [first], len(steps) - 1
    for number in range(len(steps)):
        if number:
            logits = steps[number](None)
            seen.append(logits)
        said = _said(logits, seen, mixes, number)
        if number == last or _score_one(rule, said) >= thresholds[number]:
            break
    return Early(said, _NUMBERS[number] if number < len(_NUMBERS) else np.full(1, number))


# The exit of a single sample, made once: [0], [1], ...
_NUMBERS = tuple(np.full(1, number) for number in range(16))
# Up to so many classes Python's own numbers are faster than numpy's arrays.
_FEW = 64


def _score_one(rule: str, logits: np.ndarray) -> float:
    if rule == "max_softmax" and logits.ndim == 2 and logits.shape[1] <= _FEW:
        row = logits[0].tolist()
        top = max(row)
        return 1.0 / sum([math.exp(value - top) for value in row])
    return float(score(rule, logits)[0])


def _said(logits: np.ndarray, seen: Sequence[np.ndarray], mixes: Sequence[Sequence[float]], number: int) -> np.ndarray:
    return mixed(seen, mixes[number]) if mixes and any(mixes[number][:-1]) else logits


class Runs(Protocol):
    """What a cascade needs of a student: a session, or a chain."""

    def run(self, inputs: Mapping[str, object]) -> Arrays:
        """Runs one request."""
        ...


class Cascade:
    """Separate students in order of cost: the cheap one answers what it is sure of, the next one the rest.

    Args:
        students: Sessions or chains; the last one's answer is the full answer.
        outputs: For each the name of the output that holds its scores.
        thresholds: One a student; the last is not looked at.
        rule: Key of `SCORES`.
    """

    def __init__(
        self, students: Sequence[Runs], outputs: Sequence[str], thresholds: Sequence[float], rule: str = "max_softmax"
    ) -> None:
        if not len(students) == len(outputs) == len(thresholds):
            raise UsageError(
                f"{len(students)} students, {len(outputs)} outputs, {len(thresholds)} thresholds",
                remedy="give one output and one threshold a student",
            )
        self._students, self._outputs, self._thresholds, self._rule = students, outputs, thresholds, rule

    def run(self, inputs: Sequence[Mapping[str, np.ndarray]]) -> Early:
        """Answers a batch.

        Args:
            inputs: For each student its own arrays, samples first, the samples in the same order.
        """
        rows: list[np.ndarray | None] = [None]

        def step(student: Runs, name: str, arrays: Mapping[str, np.ndarray]) -> Step:
            def run(keep: np.ndarray | None) -> np.ndarray:
                if keep is not None:
                    rows[0] = keep if rows[0] is None else rows[0][keep]
                chosen = rows[0]
                given = arrays if chosen is None else {key: value[chosen] for key, value in arrays.items()}
                return student.run(given)[name]

            return run

        steps = [step(*each) for each in zip(self._students, self._outputs, inputs, strict=True)]
        return answer_early(steps, self._thresholds, rule=self._rule)


# Share of early answers that a session checks against the full one where it is not told otherwise.
CHECK_FRACTION = 0.02


class DriftAlarm:
    """Notices that exits differ from the full answer more often than the certificate allows.

    A share of the requests that leave early is also run to the end. Their disagreements feed a betting martingale
    (Waudby-Smith and Ramdas 2024, 2010.09686, sec. 4): while the risk is at most `risk`, its capital exceeds 1/alpha
    with probability at most alpha, however long one watches (Ville's inequality). When it does, exits are closed.

    Args:
        risk: Certified share of wrong early answers over all requests.
        exit_fraction: Share of requests that left early when it was certified; disagreements are watched among them.
        sampled: Share of early answers that are checked.
        alpha: Probability of a false alarm, ever.
        seed: Of the choice of requests.
    """

    def __init__(
        self,
        risk: float,
        exit_fraction: float = 1.0,
        *,
        sampled: float = CHECK_FRACTION,
        alpha: float = 0.01,
        seed: int = 0,
    ) -> None:
        if not 0 < risk < 1 or not 0 < exit_fraction <= 1 or not 0 < sampled <= 1 or not 0 < alpha < 1:
            raise UsageError(
                f"a drift alarm with risk {risk}, exit_fraction {exit_fraction}, sampled {sampled}, alpha {alpha}",
                remedy="each lies between 0 and 1",
            )
        self._mean = min(risk / exit_fraction, 0.999)
        self._limit = 1.0 / alpha
        self._sampled = sampled
        self._random = random.Random(seed)
        # Bets on a mean of twice and of five times the certified one, half of the capital on each.
        self._bets = [self._growth(times) for times in (2.0, 5.0)]
        self._capital = [0.5, 0.5]
        self.checked = 0
        self.disagreed = 0.0
        self.closed = False

    def _growth(self, times: float) -> float:
        """The Kelly bet against mean m when it truly is `times` m: lambda = (p - m) / (m (1 - m))."""
        m = self._mean
        return (min(times * m, 0.999) - m) / (m * (1 - m)) * 0.999

    def wants(self) -> bool:
        """Whether this early answer should be checked against the full one."""
        return not self.closed and self._random.random() < self._sampled

    def tell(self, agreed: float) -> bool:
        """Takes one check in and returns whether exits are closed now.

        Args:
            agreed: Whether the answers were the same; of an answer of many parts, the share of them that was.
        """
        loss = 1.0 - float(agreed)
        self.checked += 1
        self.disagreed += loss
        for index, bet in enumerate(self._bets):
            self._capital[index] *= max(1.0 + bet * (loss - self._mean), 0.0)
        self.closed = self.closed or sum(self._capital) >= self._limit
        return self.closed
