"""What others take of this device, and its battery: read from the system, at most twice a second."""

from __future__ import annotations

import os
import time
from typing import Any, Protocol

_EVERY_S = 0.5


class LoadProbe(Protocol):
    """Reads the device."""

    def read(self) -> tuple[float, float | None]:
        """Utilisation by others of the cores that a run would use (0 to 1), and the battery (0 to 1, or None)."""


class SystemProbe:
    """The system's own counters, this process left out.

    Others slow a run of `threads` threads down only as far as they hold more cores than the run leaves free.
    """

    def __init__(self, threads: int = 1) -> None:
        import psutil

        self._psutil, self._process = psutil, psutil.Process()
        # Cores that this process may use: one pinned to a core feels whoever is there, however many others are free.
        self._allowed = _affinity(self._process)
        self._cores = len(self._allowed) if self._allowed else psutil.cpu_count() or 1
        self._threads = min(threads, self._cores)
        self._at_s, self._busy_s, self._own_s = time.monotonic(), *self._counters()
        self._last: tuple[float, float | None] = (0.0, None)

    def read(self) -> tuple[float, float | None]:
        """The last reading, or a new one when that is older than half a second."""
        now = time.monotonic()
        if now - self._at_s >= _EVERY_S:
            busy, own = self._counters()
            others = max(busy - self._busy_s - (own - self._own_s), 0.0) / (now - self._at_s)
            held = (others - (self._cores - self._threads)) / self._threads
            self._at_s, self._busy_s, self._own_s = now, busy, own
            self._last = (min(max(held, 0.0), 0.95), self._battery())
        return self._last

    def _counters(self) -> tuple[float, float]:
        mine = self._process.cpu_times()
        if not self._allowed:
            return _busy_s(self._psutil.cpu_times()), mine.user + mine.system
        each = self._psutil.cpu_times(percpu=True)
        busy = sum(_busy_s(each[core]) for core in self._allowed if core < len(each))
        return busy, mine.user + mine.system

    def _battery(self) -> float | None:
        sensor = getattr(self._psutil, "sensors_battery", None)
        found = sensor() if sensor else None
        return None if found is None or found.power_plugged else found.percent / 100


def _affinity(process: Any) -> tuple[int, ...]:
    """Numbers of the cores that a process may run on; () where all are open to it or the system does not tell."""
    try:
        allowed = tuple(process.cpu_affinity())
    except (AttributeError, OSError, NotImplementedError):  # macOS has none
        return ()
    return () if len(allowed) == os.cpu_count() else allowed


def _busy_s(times: Any) -> float:
    """Seconds of work in one reading of the counters. Linux counts guests in user time, too."""
    idle = times.idle + getattr(times, "iowait", 0.0)
    return float(sum(times) - idle - getattr(times, "guest", 0.0) - getattr(times, "guest_nice", 0.0))
