"""Statistics a person can stand behind: pure functions from samples to figures, intervals and verdicts.

Nothing here assumes a distribution: latencies are skewed, have several modes and depend on their neighbours in time.
Percentiles are printed only where the sample supports them, medians come with an interval from order statistics, and
ratios of two graphs are resampled by process, because two processes of one graph differ more than two runs of one.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from statistics import NormalDist
from typing import Literal

import numpy as np

from edgekit.profiler.sequential import ALPHA, t_quantile
from edgekit_runtime.measurement import Latency, Verdict

PERCENTILES: dict[str, float] = {"p50": 0.50, "p90": 0.90, "p95": 0.95, "p99": 0.99, "p99.9": 0.999}

NOISY_SPREAD = 0.10  # IQR over median: a warning above
INVALID_SPREAD = 0.25  # ... and a bad measurement above
NOISY_DRIFT = 0.05  # median of the second half against the first
NOISY_FOREIGN_CORES = 0.15  # CPU time of others while measuring, in cores
NOISY_PROCESSES = 0.10  # medians of fresh processes: largest against smallest
FEWEST_TRIMMED = 6  # rounds of a comparison from which its outer quarters are left out of the mean

CompareVerdict = Literal["faster", "slower", "no_difference_shown", "too_noisy"]


def minimum_samples(fraction: float, confidence: float = 0.99) -> int:
    """Smallest sample that supports a percentile, with the largest value discarded.

    It is the smallest n for which, were the true percentile above all but the largest of n values, at most one value
    beyond it would be seen with probability below 1 - confidence: n (1-p) p^(n-1) + p^n < 1 - confidence. (The rule
    of MLPerf's early stopping, with one query over the limit.)

    Args:
        fraction: The percentile as a fraction, 0.99 for p99.
        confidence: Confidence that the printed figure is not below the true one.

    Returns:
        11 for p50, 64 for p90, 130 for p95, 662 for p99, 6636 for p99.9 at the default confidence.
    """
    low, high = 2, 4
    while _at_most_one_beyond(fraction, high) >= 1 - confidence:
        low, high = high, high * 2
    while low < high:
        middle = (low + high) // 2
        if _at_most_one_beyond(fraction, middle) < 1 - confidence:
            high = middle
        else:
            low = middle + 1
    return low


def _at_most_one_beyond(fraction: float, n: int) -> float:
    return n * (1 - fraction) * fraction ** (n - 1) + fraction**n


MINIMA: dict[str, int] = {name: minimum_samples(fraction) for name, fraction in PERCENTILES.items()}


def percentile(samples: Sequence[float], name: str) -> float | None:
    """The percentile by nearest rank (p50: the median), or None where the sample does not support it."""
    n = len(samples)
    if n < MINIMA[name]:
        return None
    if name == "p50":
        return float(np.median(samples))
    rank = math.ceil(PERCENTILES[name] * n)
    return float(np.sort(np.asarray(samples))[rank - 1])


def withheld(n: int, names: Sequence[str] = ("p50", "p90", "p99")) -> dict[str, str]:
    """The percentiles that n samples do not support, each with the reason."""
    return {name: f"needs {MINIMA[name]} samples, has {n}" for name in names if n < MINIMA[name]}


def median_interval(samples: Sequence[float], confidence: float = 0.95) -> tuple[float, float] | None:
    """Distribution-free interval of the median from binomial order statistics.

    The j-th smallest and j-th largest value, with the largest j for which P(Binomial(n, 1/2) < j) <= (1-confidence)/2.

    Returns:
        The two values, in the samples' unit; None when n is too small (below 6 for 95 %).
    """
    return percentile_interval(samples, 0.5, confidence)


def percentile_interval(
    samples: Sequence[float], fraction: float, confidence: float = 0.95
) -> tuple[float, float] | None:
    """Distribution-free interval of a percentile from binomial order statistics.

    Of n ordered values, the j-th and the k-th with the largest j for which P(Binomial(n, p) < j) <= (1-confidence)/2
    and the smallest k for which P(Binomial(n, p) >= k) <= (1-confidence)/2 (David and Nagaraja, Order Statistics, 7.1).

    Returns:
        The two values, in the samples' unit; None when n is too small for one of them.
    """
    n = len(samples)
    if n == 0:
        return None
    cumulative = _binomial_cdf(n, fraction)  # [i] = P(at most i values lie below the percentile)
    tail = (1 - confidence) / 2
    low = int(np.searchsorted(cumulative, tail, side="right"))  # 1-based rank; 0: none
    high = int(np.searchsorted(cumulative, 1 - tail, side="left")) + 1
    if low == 0 or high > n:
        return None
    ordered = np.sort(np.asarray(samples))
    return float(ordered[low - 1]), float(ordered[high - 1])


def _binomial_cdf(n: int, fraction: float) -> np.ndarray:
    k = np.arange(n + 1)
    # log C(n, k) by the running sum of log((n - k + 1) / k): no factorial of a large number.
    log_choose = np.concatenate([[0.0], np.cumsum(np.log(n - k[1:] + 1) - np.log(k[1:]))])
    return np.cumsum(np.exp(log_choose + k * math.log(fraction) + (n - k) * math.log1p(-fraction)))


def spread(samples: Sequence[float]) -> float:
    """Interquartile range over the median (a fraction)."""
    q1, q2, q3 = np.percentile(samples, [25, 50, 75])
    return float((q3 - q1) / q2) if q2 > 0 else 0.0


def drift(samples: Sequence[float]) -> float:
    """Median of the second half over that of the first, less 1. Samples are in order of time."""
    half = len(samples) // 2
    if half == 0:
        return 0.0
    first, second = float(np.median(samples[:half])), float(np.median(samples[half:]))
    return second / first - 1 if first > 0 else 0.0


def steady(window_medians: Sequence[float], tolerance: float = 0.03) -> bool:
    """Whether warm-up is over: the last three windows lie within `tolerance` of each other and none is a new low."""
    if len(window_medians) < 3:
        return False
    last = window_medians[-3:]
    return max(last) <= min(last) * (1 + tolerance)


def summarise(runs: Sequence[Sequence[float]]) -> Latency:
    """Latency of one graph from the samples of one or several fresh processes.

    An interval is that of the pooled percentile, widened until it covers that of every process that supports one: the
    spread between processes is part of what is not known.

    Args:
        runs: Samples in ms, one sequence a process, in order of time.
    """
    pooled = [value for run in runs for value in run]
    intervals = {name: _interval(runs, pooled, name) for name in ("p50", "p90", "p99")}
    return Latency(
        p50=percentile(pooled, "p50"),
        p90=percentile(pooled, "p90"),
        p95=percentile(pooled, "p95"),
        p99=percentile(pooled, "p99"),
        mean=float(np.mean(pooled)) if pooled else None,
        n=len(pooled),
        samples=tuple(pooled),
        interval_95=intervals["p50"],
        interval_95_p90=intervals["p90"],
        interval_95_p99=intervals["p99"],
        processes=tuple(len(run) for run in runs),
    )


def _interval(runs: Sequence[Sequence[float]], pooled: Sequence[float], name: str) -> tuple[float, float] | None:
    if len(pooled) < MINIMA[name]:
        return None
    interval = percentile_interval(pooled, PERCENTILES[name])
    if interval is None:
        return None
    seen = [percentile(run, name) for run in runs]
    each = [value for value in seen if value is not None]
    return min([interval[0], *each]), max([interval[1], *each])


def assess(
    runs: Sequence[Sequence[float]],
    *,
    threads: int = 1,
    cores: int = 1,
    foreign_cores: float | None = None,
    became_steady: bool = True,
    remarks: Sequence[str] = (),
) -> Verdict:
    """May a person stand behind these samples?

    Args:
        runs: Samples in ms, one sequence a process, in order of time.
        threads: Threads the graph ran on.
        cores: Cores of the machine.
        foreign_cores: CPU time of other processes while sampling, in cores; None where the machine does not tell.
        became_steady: Whether warm-up ended by itself.
        remarks: Further observations that make the result noisy (throttling, swapping).
    """
    noisy, invalid = list(remarks), []
    pooled = [value for run in runs for value in run]
    if len(pooled) < MINIMA["p50"]:
        invalid.append(
            f"{len(pooled)} samples are too few for a median (needs {MINIMA['p50']}); use a longer --duration"
        )
        return Verdict(kind="invalid", reasons=(*invalid, *noisy))
    wide = max(spread(run) for run in runs if len(run) > 1)
    if wide > INVALID_SPREAD:
        invalid.append(f"the samples spread by {wide:.0%} of the median (IQR; above {INVALID_SPREAD:.0%} is bad)")
    elif wide > NOISY_SPREAD:
        noisy.append(f"the samples spread by {wide:.0%} of the median (IQR; above {NOISY_SPREAD:.0%} is noisy)")
    moved = max((drift(run) for run in runs if len(run) >= 2 * MINIMA["p50"]), key=abs, default=0.0)
    if abs(moved) > NOISY_DRIFT:
        noisy.append(f"the median drifted by {moved:+.0%} from the first half to the second")
    medians = [float(np.median(run)) for run in runs if len(run) >= MINIMA["p50"]]
    if len(medians) > 1 and max(medians) > min(medians) * (1 + NOISY_PROCESSES):
        noisy.append(f"fresh processes differ: medians from {min(medians):.3g} to {max(medians):.3g} ms")
    if foreign_cores is not None and foreign_cores > NOISY_FOREIGN_CORES:
        shared = foreign_cores + threads > cores + NOISY_FOREIGN_CORES
        text = f"other processes used {foreign_cores:.1f} of {cores} cores"
        (invalid if shared else noisy).append(f"{text}, more than this graph left free" if shared else text)
    if not became_steady:
        noisy.append("the latency was still changing when warm-up ended")
    kind: Literal["sound", "noisy", "invalid"] = "invalid" if invalid else "noisy" if noisy else "sound"
    return Verdict(kind=kind, reasons=(*invalid, *noisy))


def ratio_interval(
    rounds: Sequence[tuple[Sequence[float], Sequence[float]]],
    *,
    alpha: float = ALPHA,
    seed: int = 0,
    resamples: int = 2000,
) -> tuple[float, float, float]:
    """Ratio of the medians of A and B with an interval at 1 - alpha: a cluster bootstrap of the trimmed mean of rounds.

    A round is one pair of fresh processes that took turns; its figures are the latencies of adjacent blocks, so what
    the machine did in that second touches both. Now and then something slows one process for a whole round by tens of
    per cent; from six rounds on, the lowest and the highest quarter of rounds are left out of the mean (with fewer
    there is nothing to leave out). What holds in less than a quarter of processes is thus not seen.

    Rounds are drawn with replacement, and block pairs within a drawn round. The percentiles are widened to Student's t
    (the expanded percentile interval of Hesterberg, 2015, section 5.3), because with a handful of rounds the plain
    ones are too narrow.

    Args:
        rounds: For each pair of processes: latencies of A and of B in ms, one entry a pair of blocks.
        alpha: How often the interval may miss the truth: 0.05 for 95 %, less for one look of several.
        seed: Seed of the resampling.
        resamples: Number of bootstrap resamples.

    Returns:
        Ratio (A over B: below 1 A is faster), lower end, upper end.
    """
    logs = [np.log(np.asarray(a, dtype=float)) - np.log(np.asarray(b, dtype=float)) for a, b in rounds]
    count = len(logs)
    if count < 2:
        raise ValueError("a ratio needs at least two rounds of fresh processes to have an interval")
    generator = np.random.default_rng(seed)
    inner = np.stack([np.median(log[generator.integers(0, len(log), (resamples, len(log)))], axis=1) for log in logs])
    drawn = generator.integers(0, count, (resamples, count))
    cut = count // 4 if count >= FEWEST_TRIMMED else 0
    means = np.sort(inner[drawn, np.arange(resamples)[:, None]], axis=1)[:, cut : count - cut].mean(axis=1)
    t = t_quantile(1 - alpha / 2, count - 1)
    tail = NormalDist().cdf(-math.sqrt(count / (count - 1)) * t)
    low, high = np.quantile(means, [tail, 1 - tail])
    mean, error = trimmed_mean([float(np.median(log)) for log in logs], cut)
    # With a few rounds the bootstrap cannot reach as far out as t does: take the wider of the two.
    t = t_quantile(1 - alpha / 2, count - 2 * cut - 1)
    low, high = min(float(low), mean - t * error), max(float(high), mean + t * error)
    return math.exp(mean), math.exp(low), math.exp(high)


def trimmed_mean(values: Sequence[float], cut: int) -> tuple[float, float]:
    """Mean without the `cut` lowest and highest values, and its standard error (Tukey and McLaughlin, Sankhya A, 1963).

    The error is that of the winsorised values: those left out count as the next one that stays. Student's t for it has
    one degree of freedom less than values stay.
    """
    ordered = np.sort(np.asarray(values, dtype=float))
    count = len(ordered)
    pulled = ordered.clip(ordered[cut], ordered[count - cut - 1])
    error = float(np.std(pulled, ddof=1)) * math.sqrt(count) / (count - 2 * cut)
    return float(ordered[cut : count - cut].mean()), error


def decide(interval: tuple[float, float], margin: float, resolution: float = 0.10) -> CompareVerdict:
    """The verdict of a comparison.

    Args:
        interval: 95 % interval of the ratio A over B.
        margin: Equivalence margin (a fraction): a difference counts only when the interval excludes 1 +- margin.
        resolution: An interval that reaches further than this from its middle could hide a difference worth knowing:
            then the honest answer is that the machine is too noisy.
    """
    low, high = interval
    if low > 1 + margin:
        return "slower"
    if high < 1 / (1 + margin):
        return "faster"
    if math.sqrt(high / low) > 1 + max(resolution, margin):
        return "too_noisy"
    return "no_difference_shown"
