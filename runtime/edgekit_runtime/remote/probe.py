"""What others take of this device, and its battery: read from the system, at most twice a second."""

from __future__ import annotations

import time
from typing import Protocol

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
        self._cores, self._threads = psutil.cpu_count() or 1, threads
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
        times, mine = self._psutil.cpu_times(), self._process.cpu_times()
        busy = sum(times) - times.idle - getattr(times, "iowait", 0.0)
        # Linux counts guests in user time, too.
        busy -= getattr(times, "guest", 0.0) + getattr(times, "guest_nice", 0.0)
        return busy, mine.user + mine.system

    def _battery(self) -> float | None:
        sensor = getattr(self._psutil, "sensors_battery", None)
        found = sensor() if sensor else None
        return None if found is None or found.power_plugged else found.percent / 100
