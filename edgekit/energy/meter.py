"""What a meter is, and which one this machine has."""

from __future__ import annotations

from pathlib import Path
from typing import Protocol

from edgekit_runtime.manifest import Base


class EnergyReading(Base, frozen=True, kw_only=True):
    """What a meter saw between `start` and `stop`.

    Attributes:
        joules: Energy of all that the meter sees, idle share included.
        seconds: Time between the two.
        method: How it was read, for example `RAPL package-0`.
        source: What stands behind it: files, a formula, a device.
        covers: What the figure is the energy of, for example `processor package`.
        samples: Readings that the figure rests on (a counter: two).
        resolution_joules: Smallest step the meter can show; None where it does not tell.
    """

    joules: float
    seconds: float
    method: str
    source: str
    covers: str
    samples: int = 2
    resolution_joules: float | None = None

    @property
    def watts(self) -> float:
        """Mean power."""
        return self.joules / self.seconds


class Unreadable(Exception):
    """A sensor that is there gave nothing usable: the figure is left out, with this reason."""


class Meter(Protocol):
    """Any meter, inside the machine or on its supply.

    An external one takes part by these two methods: `edgekit.energy.trace.Replay` is one.
    """

    def start(self) -> None:
        """Begins. Raises `Unreadable` when the sensor gives nothing."""
        ...

    def stop(self) -> EnergyReading:
        """Ends. Raises `Unreadable` when the sensor gave nothing usable meanwhile."""
        ...


def meter_for_this_machine(root: Path = Path("/"), *, gpu: bool = False) -> Meter | None:
    """The best meter of this machine: of its supply before one of its processor.

    Args:
        root: Where `sys` and `proc` lie; tests give a recorded tree.
        gpu: The work runs on an NVIDIA card.

    Returns:
        A meter that can be read now; None where there is none (`why_none` tells what was looked for).
    """
    from edgekit.energy import hwmon, nvml, pi5, rapl

    if gpu:
        return nvml.find()
    return pi5.find(root) or hwmon.find(root) or rapl.find(root)


def why_none(root: Path = Path("/")) -> str:
    """Why `meter_for_this_machine` found nothing, in words a person can act on."""
    from edgekit.energy import rapl

    locked = rapl.locked(root)
    if locked:
        return f"RAPL is there but may not be read: sudo chmod a+r {locked}"
    return "no energy sensor: neither a PMIC, an INA or other power sensor in hwmon, nor a readable RAPL counter"
