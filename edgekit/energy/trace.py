"""A recorded trace of an external meter, in the format of EEMBC's and MLPerf Tiny's energy runner.

    byte 0      0xf1
    1 .. 4      float32, samples a second
    5 ..        float32 each, microjoules within one sample

Beside it stand the times at which the board pulled its marker line: every second one begins a window of work.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path

import msgspec
import numpy as np

from edgekit.energy.meter import EnergyReading, Unreadable
from edgekit_runtime.errors import Refused

MAGIC = 0xF1


@dataclasses.dataclass(frozen=True)
class Trace:
    """Energy over time.

    Attributes:
        rate_hz: Samples a second.
        microjoules: Energy of each sample.
    """

    rate_hz: float
    microjoules: np.ndarray

    def window(self, begin_s: float, end_s: float) -> EnergyReading:
        """The energy between two times; a sample counts with the share of it that lies within.

        Raises:
            Unreadable: The window is empty or leaves the trace.
        """
        first, last = begin_s * self.rate_hz, end_s * self.rate_hz
        if not 0 <= first < last <= len(self.microjoules):
            raise Unreadable(f"the window {begin_s:g} to {end_s:g} s is not within the trace")
        total = np.concatenate([[0.0], np.cumsum(self.microjoules, dtype=np.float64)])
        ends = np.interp([first, last], np.arange(len(total)), total)
        return EnergyReading(
            joules=float(ends[1] - ends[0]) / 1e6,
            seconds=end_s - begin_s,
            method="recorded trace of an external meter",
            source=f"{self.rate_hz:g} samples a second",
            covers="whatever the meter fed",
            samples=int(last) - int(first),
        )


def read(path: Path) -> Trace:
    """Reads a trace.

    Raises:
        Refused: It is no such file.
    """
    data = path.read_bytes()
    if len(data) < 9 or data[0] != MAGIC or (len(data) - 5) % 4:
        raise Refused(f"{path.name} is no energy trace: it begins with 0xf1 and holds float32 values")
    rate = float(np.frombuffer(data, "<f4", 1, 1)[0])
    values = np.frombuffer(data, "<f4", offset=5)
    if not rate > 0 or not np.isfinite(values).all():
        raise Refused(f"{path.name} is no energy trace: its rate or its values are no numbers")
    return Trace(rate, values)


def windows(timestamps: Path) -> list[tuple[float, float]]:
    """Begin and end of each window of work, in seconds.

    The first mark is the start of the recording, then each window has two.
    """
    marks = msgspec.json.decode(timestamps.read_bytes(), type=list[float])
    return list(zip(marks[1::2], marks[2::2], strict=True))


class Replay:
    """A recorded window as a meter: what an external meter looks like to the profiler, and its fake in tests."""

    def __init__(self, trace: Trace, begin_s: float, end_s: float) -> None:
        self._trace, self._begin_s, self._end_s = trace, begin_s, end_s

    def start(self) -> None:
        """Nothing to do: it was recorded."""

    def stop(self) -> EnergyReading:
        """The window."""
        return self._trace.window(self._begin_s, self._end_s)
