"""Thresholds that hold a risk: P(risk ≤ ε) ≥ 1 - δ. Pure statistics on arrays.

    path:   never exit ──► … ──► exit a little ──► … ──► exit often       fixed before the data are seen
    test:   p ≤ δ          …     p ≤ δ             p > δ  stop            certified: the last one before

Every step of the path is a vector of thresholds, one an exit. Fixed-sequence testing (Angelopoulos et al. 2021, Learn
Then Test, 2110.01052, sec. 3.1) tests H: risk > ε from the safest to the riskiest step and stops at the first that is
not rejected. The first true H met is rejected with probability at most δ, so with 1 - δ all steps before it hold the
risk.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence

import numpy as np

from edgekit_runtime.exits import NEVER

Floats = np.ndarray


@dataclasses.dataclass(frozen=True)
class Samples:
    """What a chain's exits did on data.

    Attributes:
        scores: [exits, samples] how sure each exit is. The last exit is the full answer.
        losses: [exits, samples] loss in [0, 1] of answering at that exit; 0 for the full answer.
    """

    scores: Floats
    losses: Floats

    @property
    def n(self) -> int:
        """Number of samples."""
        return int(self.scores.shape[1])

    def rows(self, chosen: Floats) -> Samples:
        """Some of the samples."""
        return Samples(self.scores[:, chosen], self.losses[:, chosen])


@dataclasses.dataclass(frozen=True)
class Certified:
    """What was certified for one risk.

    Attributes:
        thresholds: One an exit, the last 0. All others `NEVER` where nothing could be certified.
        step: Number of the step of the path.
        p_value: Of that step; 1 where nothing was certified.
        empirical_risk: Mean loss on the samples.
        exit_fractions: Share of the samples that left at each exit.
        reason: Why nothing could be certified; empty otherwise.
    """

    thresholds: tuple[float, ...]
    step: int
    p_value: float
    empirical_risk: float
    exit_fractions: tuple[float, ...]
    reason: str = ""


def exact_binomial(errors: int, n: int, risk: float) -> float:
    """P-value of H: risk > ε for a 0/1 loss: the chance of so few errors if the risk were ε."""
    from scipy.special import bdtr

    return 1.0 if errors >= n else float(bdtr(errors, n, risk))


def hoeffding_bentkus(mean: float, n: int, risk: float) -> float:
    """P-value of H: risk > ε for a loss in [0, 1] with mean R̂ on n samples.

    min(exp(-n h(min(R̂, ε), ε)), e · P(Binom(n, ε) ≤ ⌈n R̂⌉)), h the relative entropy of two coins (Bates et al. 2021,
    2101.02703, prop. 3 and 4).
    """
    from scipy.special import bdtr

    a = min(mean, risk)
    entropy = (a * math.log(a / risk) if a > 0 else 0.0) + (
        (1 - a) * math.log((1 - a) / (1 - risk)) if a < 1 and risk < 1 else 0.0
    )
    # The product can lie a rounding error below a whole number of losses, and above it: both count as that number.
    errors = math.ceil(round(n * mean, 9))
    bentkus = math.e * (1.0 if errors >= n else float(bdtr(errors, n, risk)))
    return min(math.exp(-n * entropy), bentkus, 1.0)


def p_value(losses: Floats, risk: float) -> float:
    """The exact binomial p-value where every loss is 0 or 1, else Hoeffding and Bentkus."""
    n = len(losses)
    if np.isin(losses, (0.0, 1.0)).all():
        return exact_binomial(int(losses.sum()), n, risk)
    return hoeffding_bentkus(float(losses.mean()), n, risk)


def samples_needed(risk: float, confidence: float) -> int:
    """The smallest n with which a risk can be certified at all: with no loss seen, (1 - ε)^n ≤ δ."""
    return math.ceil(math.log(1 - confidence) / math.log1p(-risk))


def left_at(samples: Samples, thresholds: Sequence[float]) -> Floats:
    """[samples] the exit each leaves at."""
    sure = samples.scores >= np.asarray(thresholds)[:, None]
    sure[-1] = True
    return np.asarray(sure.argmax(0))


def outcome(samples: Samples, thresholds: Sequence[float]) -> tuple[Floats, tuple[float, ...]]:
    """The loss of each sample, and the share of samples that left at each exit."""
    exits = left_at(samples, thresholds)
    count = np.bincount(exits, minlength=len(samples.scores))
    return samples.losses[exits, np.arange(samples.n)], tuple(float(c) / samples.n for c in count)


def common_path(exits: int, steps: int = 240) -> Floats:
    """[steps, exits]: one threshold for all exits, falling from 1 - 1e-6 in even steps of its logit. Needs no data."""
    logits = np.linspace(math.log(1e6), -6.0, steps)
    path = np.repeat((1 / (1 + np.exp(-logits)))[:, None], exits, 1)
    path[:, -1] = 0.0
    return path


def fitted_path(samples: Samples, steps: int = 240) -> Floats:
    """[steps or more, exits]: for a rising error rate µ, the lowest threshold of each exit with which it errs at µ.

    Exits that are surer than they should be get a higher threshold than the others. An exit that hardly errs on these
    samples opens all at once: there the path comes down by the common one, so that the test finds where to stop. The
    samples must not be those that the path is tested on.
    """
    rates = np.concatenate(([0.0], np.geomspace(1e-4, 1.0, steps)))  # the first one opens no exit
    path = np.full((len(rates), len(samples.scores)), NEVER)
    for exit_, (scores, losses) in enumerate(zip(samples.scores[:-1], samples.losses[:-1], strict=True)):
        order = np.argsort(-scores, kind="stable")
        ranked = scores[order]
        rate = (np.cumsum(losses[order]) + 0.5) / (np.arange(samples.n) + 1.0)
        whole = np.append(ranked[:-1] != ranked[1:], True)  # equal scores leave together
        for step, allowed in enumerate(rates):
            good = np.flatnonzero((rate <= allowed) & whole)
            if len(good):
                path[step, exit_] = ranked[good[-1]]
    path[:, -1] = 0.0
    opening = 1 + np.flatnonzero(((path[1:] < NEVER) & (path[:-1] >= NEVER)).any(1))
    slow = [np.clip(common_path(path.shape[1]), path[step], path[step - 1]) for step in opening]
    return np.concatenate(
        [part for pair in zip(np.split(path, opening), [*slow, path[:0]], strict=True) for part in pair]
    )


def certify(samples: Samples, path: Floats, risk: float, confidence: float) -> Certified:
    """Walks the path as far as the risk is certified.

    Args:
        samples: Drawn as the requests will be, and not seen when the path was made.
        path: [steps, exits], each step exits at least as often as the one before.
        risk: ε, the mean loss that may not be exceeded.
        confidence: 1 - δ.
    """
    delta = 1 - confidence
    needed = samples_needed(risk, confidence)
    never = (*(NEVER for _ in path[0][:-1]), 0.0)
    best = Certified(never, -1, 1.0, 0.0, outcome(samples, never)[1])
    if samples.n < needed:
        why = (
            f"{samples.n} samples are too few: a risk of {risk:g} at confidence {confidence:g} needs at least {needed}"
        )
        return dataclasses.replace(best, reason=why)
    known: tuple[bytes, float] | None = None
    for number, thresholds in enumerate(path):
        losses, fractions = outcome(samples, thresholds)
        key = losses.tobytes()
        p = known[1] if known is not None and known[0] == key else p_value(losses, risk)
        known = (key, p)
        if p > delta:
            break
        best = Certified(tuple(map(float, thresholds)), number, p, float(losses.mean()), fractions)
    if best.step < 0:
        why = (
            f"already the most careful thresholds lose {float(outcome(samples, path[0])[0].mean()):.4f} of {samples.n}"
        )
        return dataclasses.replace(
            best, reason=f"{why}: too much to certify {risk:g}; more samples or better exits help"
        )
    return best
