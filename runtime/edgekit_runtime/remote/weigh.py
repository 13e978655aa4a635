"""Short measurements at opening: what a run takes here, and which codecs are worth offering."""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Callable, Iterable
from typing import Any

from edgekit_runtime import codecs

_BUDGET_S, _RUNS = 0.3, 7


def measured(call: Callable[[], Any]) -> tuple[float, float, Any]:
    """Median and spread of a few runs within a budget (ms), and what the last one gave. The first run warms up."""
    outputs = call()
    end = time.perf_counter() + _BUDGET_S
    samples: list[float] = []
    while len(samples) < _RUNS and (len(samples) < 2 or time.perf_counter() < end):
        start = time.perf_counter()
        outputs = call()
        samples.append((time.perf_counter() - start) * 1e3)
    middle = statistics.median(samples)
    return middle, 1.48 * statistics.median(abs(sample - middle) for sample in samples), outputs


def worth(rows: Iterable[codecs.Measured]) -> list[codecs.Measured]:
    """Codecs that nothing beats in both bytes and time, fewest bytes first."""
    best_ms, kept = math.inf, []
    for row in sorted(rows, key=lambda seen: (seen.bytes, seen.encode_ms)):
        if row.encode_ms + row.decode_ms < best_ms:
            best_ms = row.encode_ms + row.decode_ms
            kept.append(row)
    return kept
