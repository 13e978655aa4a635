"""Runs of a session that stand on its device, and what one more of them costs those behind it.

The clock is the caller's, as everywhere in this folder.
"""

from __future__ import annotations

import math

_NEARLY_FULL, _PRICE, _GAP_WEIGHT, _LONGEST_GAP_S = 0.8, 2.0, 0.1, 10.0


class DeviceQueue:
    """Not thread-safe: the session holds a lock.

    Attributes:
        gap_s: Mean time between two requests; infinite before the second.
    """

    def __init__(self) -> None:
        self._runs = 0  # waiting ones included
        self._free_s = -math.inf  # when the device is expected to be free of them
        self._asked_s: float | None = None
        self.gap_s = math.inf

    def asked(self, now_s: float) -> None:
        """A request has come: follows the time between two of them."""
        if self._asked_s is not None:
            gap_s = min(max(now_s - self._asked_s, 0.0), _LONGEST_GAP_S)
            self.gap_s = gap_s if self.gap_s == math.inf else self.gap_s + _GAP_WEIGHT * (gap_s - self.gap_s)
        self._asked_s = now_s

    def begin(self, now_s: float, expected_ms: float) -> None:
        """A run begins, or waits for those before it."""
        self._runs += 1
        self._free_s = max(self._free_s, now_s) + expected_ms / 1e3

    def end(self) -> None:
        """A run has ended."""
        self._runs = max(self._runs - 1, 0)
        if not self._runs:
            self._free_s = -math.inf

    def wait_ms(self, now_s: float) -> float:
        """How long a run that came now would wait; 0 where none stands."""
        return max((self._free_s - now_s) * 1e3, 0.0)

    def full(self, run_ms: float) -> bool:
        """Would runs of this length take the device for nearly all of the time between two requests?"""
        return run_ms > _NEARLY_FULL * self.gap_s * 1e3

    def price(self, wait_ms: float, run_ms: float) -> float:
        """What a run is charged for those behind it, as a fraction of its time: a full device's queue does not drain.

        Whoever joins it delays all that follow, which one request's own time does not show (Naor 1969).

        Args:
            wait_ms: As `wait_ms` says.
            run_ms: The quickest run that is allowed, as the device is now.
        """
        return _PRICE * min(wait_ms / run_ms, 1.0) if self.full(run_ms) else 0.0
