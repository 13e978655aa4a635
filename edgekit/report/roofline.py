"""How far an operator is from what the device can do: its rate below the roofs of arithmetic and of memory.

An operator that does w multiply-accumulates a byte can run at most at min(peak, w x bandwidth) (Williams, Waterman and
Patterson, 2009). Roofs come from the device's profile (`device_profiles/`): peak multiply-accumulates a cycle of one
core at the clock held under load, and the bandwidth of main memory. Small operators read caches and may lie above the
memory's roof; the arithmetic roof holds everywhere.
"""

from __future__ import annotations

import dataclasses
import importlib
import importlib.util
from typing import Any

from edgekit_runtime.errors import EdgekitError
from edgekit_runtime.measurement import Measurement, OpCost


@dataclasses.dataclass(frozen=True)
class Roof:
    """What a device can do at most.

    Attributes:
        gmacs_per_s: Billions of multiply-accumulates a second of one core, by precision.
        gb_per_s: Main memory, one thread; None where it is not known.
        source: Where the figures come from.
    """

    gmacs_per_s: dict[str, float]
    gb_per_s: float | None
    source: str

    def limit(self, precision: str, macs_per_byte: float, threads: int = 1) -> float | None:
        """The largest rate in GMAC/s for so much work a byte; None where the precision has no peak."""
        peak = self.gmacs_per_s.get(precision)
        if peak is None:
            return None
        return min(peak * threads, macs_per_byte * self.gb_per_s) if self.gb_per_s else peak * threads


def roof_of(device: str) -> Roof | None:
    """The roofs of a device as its profile tells; None where there is no profile, or it names no peak."""
    if importlib.util.find_spec("edgekit.devices") is None:
        return None
    devices = importlib.import_module("edgekit.devices")
    try:
        profile = devices.load(device)
    except EdgekitError:  # no such profile, or one that is not to be trusted
        return None
    return from_profile(profile)


def from_profile(profile: Any) -> Roof | None:
    """The roofs of a device profile (`edgekit.devices.DeviceProfile`)."""
    clock_ghz = profile.hardware.clock_mhz.value / 1e3
    peaks = {peak.precision: peak.macs_per_cycle.value * clock_ghz for peak in profile.peaks}
    memory = [row.gb_per_s.value for row in profile.bandwidth if row.working_set_bytes is None]
    return Roof(peaks, memory[0] if memory else None, f"device profile {profile.name}") if peaks else None


@dataclasses.dataclass(frozen=True)
class Placed:
    """One operator against the roofs: work a byte, rate in GMAC/s, and the part of its own roof it reaches."""

    op: OpCost
    macs_per_byte: float
    gmacs_per_s: float
    of_roof: float | None


def place(measurement: Measurement, roof: Roof | None) -> list[Placed]:
    """The operators whose work, bytes and time are known, the longest first."""
    found = []
    for op in sorted(measurement.ops, key=lambda op: -(op.ms or 0.0)):
        if not (op.ms and op.macs and op.bytes):
            continue
        intensity, rate = op.macs / op.bytes, op.macs / op.ms / 1e6
        precision = "int8" if op.int8 else "fp16" if measurement.precision == "fp16" else "fp32"
        limit = roof.limit(precision, intensity, measurement.threads) if roof else None
        found.append(Placed(op, intensity, rate, rate / limit if limit else None))
    return found
