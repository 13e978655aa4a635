"""Several callables timed in alternation in one process, so that a busy neighbour meets them all alike."""

from __future__ import annotations

import dataclasses
import random
import statistics
import time
from collections.abc import Callable, Mapping

import numpy as np


@dataclasses.dataclass(frozen=True)
class Timing:
    """Median and the 10th and 90th percentile of one callable, milliseconds; raw samples in order."""

    median_ms: float
    low_ms: float
    high_ms: float
    samples: tuple[float, ...]

    def __str__(self) -> str:
        return f"{self.median_ms:.3f} [{self.low_ms:.3f}, {self.high_ms:.3f}]"


# Runs in one turn. An application runs one graph again and again: the first run of a turn only brings its weights back
# into the caches that the others used, and is not counted.
TURN = 5


def alternate(
    callables: Mapping[str, Callable[[], object]],
    seconds: float = 10.0,
    seed: int = 0,
    clock: Callable[[], int] = time.perf_counter_ns,
) -> dict[str, Timing]:
    """Times each callable in turns, in an order drawn anew each round, until `seconds` are over.

    With `time.thread_time_ns` as the clock: the processor time of this thread, which others do not make longer.
    """
    rng = random.Random(seed)
    for call in callables.values():
        for _ in range(5):
            call()
    samples: dict[str, list[float]] = {name: [] for name in callables}
    end = time.monotonic() + seconds
    names = list(callables)
    while time.monotonic() < end or len(samples[names[0]]) < 20:
        rng.shuffle(names)
        for name in names:
            callables[name]()
            for _ in range(TURN - 1):
                start = clock()
                callables[name]()
                samples[name].append((clock() - start) / 1e6)
    return {
        name: Timing(statistics.median(s), *map(float, np.quantile(s, [0.1, 0.9])), tuple(s))
        for name, s in samples.items()
    }


def ratio(slow: Timing, fast: Timing, resamples: int = 1000) -> tuple[float, float, float]:
    """How many times faster `fast` is: ratio of medians with a 95 % bootstrap interval over rounds."""
    a, b = np.asarray(slow.samples), np.asarray(fast.samples)
    n = min(len(a), len(b))
    picks = np.random.default_rng(0).integers(0, n, (resamples, n))
    ratios = np.median(a[:n][picks], axis=1) / np.median(b[:n][picks], axis=1)
    low, high = np.quantile(ratios, [0.025, 0.975])
    return slow.median_ms / fast.median_ms, float(low), float(high)


def told(value: tuple[float, float, float]) -> str:
    return f"{value[0]:.2f}x [{value[1]:.2f}, {value[2]:.2f}]"
