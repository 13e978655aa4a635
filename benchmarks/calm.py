"""Is the machine as it was? A product that fits the caches and a walk over memory, timed beside what is measured.

Neighbours on the same host take caches, memory and shares of a core without showing as load here: processor times of
one graph then differ by a third from one minute to the next. What is compared with a calibration has to be measured
while the machine is as it was then. The reference knows nothing of what is measured.
"""

from __future__ import annotations

import time
from collections.abc import Callable

import numpy as np

LIMIT = 1.05  # times its own time beside the calibration
_BATCHES, _BATCH_S = 12, 0.004
_SIDE, _WALKED = 192, 1 << 20  # 0.4 MB, 8 MB


def reference_us() -> tuple[float, float]:
    """Processor time of the product and of the walk, in µs: the median of a few batches each."""
    side = np.full((_SIDE, _SIDE), 0.5, np.float32)
    walked = np.ones(_WALKED)
    return _median_us(lambda: side @ side), _median_us(walked.sum)


class Calm:
    """Says whether the machine is as it was when a reference was taken.

    Attributes:
        passes: Judged so far.
        disturbed: Of these.
    """

    def __init__(self, reference: tuple[float, float]) -> None:
        self._reference = reference
        self.passes = self.disturbed = 0

    def during(self, act: Callable[[], None]) -> bool:
        """Whether the machine was as it was before and after `act`."""
        before = self._holds()
        act()
        calm = before and self._holds()
        self.passes, self.disturbed = self.passes + 1, self.disturbed + (not calm)
        return calm

    def _holds(self) -> bool:
        return all(now <= LIMIT * then for now, then in zip(reference_us(), self._reference, strict=True))


def _median_us(call: Callable[[], object]) -> float:
    call()
    seen = []
    for _ in range(_BATCHES):
        runs, begin = 0, time.thread_time_ns()
        while (spent := time.thread_time_ns() - begin) < _BATCH_S * 1e9:
            call()
            runs += 1
        seen.append(spent / runs / 1e3)
    return float(np.median(seen))
