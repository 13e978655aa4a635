"""A meter over a sensor of power: it is read every few milliseconds and summed up by trapezoids."""

from __future__ import annotations

import itertools
import threading
import time
from collections.abc import Callable, Sequence

from edgekit.energy.meter import EnergyReading, Unreadable

INTERVAL_S = 0.02


def integrate(samples: Sequence[tuple[float, float]]) -> float:
    """Joules under (seconds, watts), by trapezoids.

    Raises:
        Unreadable: Fewer than two readings: no time has passed between them.
    """
    if len(samples) < 2:
        raise Unreadable("the work was over before the sensor could be read twice: measure for longer")
    pairs = itertools.pairwise(samples)
    return sum((after[0] - before[0]) * (after[1] + before[1]) / 2 for before, after in pairs)


class Sampled:
    """The meter.

    Args:
        watts: Reads the power now; raises `Unreadable`.
        method: As in `EnergyReading`.
        source: As in `EnergyReading`.
        covers: As in `EnergyReading`.
        interval_s: Time between readings.
        clock: Seconds, monotonic.
    """

    def __init__(
        self,
        watts: Callable[[], float],
        *,
        method: str,
        source: str,
        covers: str,
        interval_s: float = INTERVAL_S,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._watts, self._clock, self._interval_s = watts, clock, interval_s
        self._method, self._source, self._covers = method, source, covers
        self._done = threading.Event()

    def start(self) -> None:
        """Begins to read."""
        self._samples: list[tuple[float, float]] = []
        self._failure: Unreadable | None = None
        self._done.clear()
        self._take()
        self._reader = threading.Thread(target=self._read_on, daemon=True)
        self._reader.start()

    def stop(self) -> EnergyReading:
        """Ends, with one more reading."""
        self._done.set()
        self._reader.join()
        if self._failure is not None:
            raise self._failure
        self._take()
        return EnergyReading(
            joules=integrate(self._samples),
            seconds=self._samples[-1][0] - self._samples[0][0],
            method=self._method,
            source=self._source,
            covers=self._covers,
            samples=len(self._samples),
        )

    def _take(self) -> None:
        self._samples.append((self._clock(), self._watts()))

    def _read_on(self) -> None:
        while not self._done.wait(self._interval_s):
            try:
                self._take()
            except Unreadable as error:
                self._failure = error
                return
