"""Energy of an inference, with where the figure comes from: measured, modelled, or unavailable with the reason.

              meter.start()                     meter.stop() -> EnergyReading
                   │       work, work, work          │
    sensor ────────┴─────────────────────────────────┴────────► joules, gross
    idle   ▁▁▁▁▁▁▁▁▁▁▁▁▁▁▁▁▁▁▁▁▁▁▁▁▁▁▁▁▁▁▁▁▁▁▁▁▁▁▁▁▁▁▁           idle power * time is taken off: net

    edgekit.energy.meter_for_this_machine()             -> a meter, or None with nothing to read
    edgekit.energy.for_measurement(reading, runs)       -> the `energy` of a measurement document
    edgekit.energy.modelled(profile, latency_ms)        -> the same for a device that is not at hand

A sensor that is not there is `unavailable`, never 0.
"""

from __future__ import annotations

from edgekit.energy.document import for_measurement, metered, modelled, unavailable
from edgekit.energy.meter import EnergyReading, Meter, Unreadable, meter_for_this_machine, why_none
from edgekit.energy.relative import Proxy, proxy

__all__ = [
    "EnergyReading",
    "Meter",
    "Proxy",
    "Unreadable",
    "for_measurement",
    "meter_for_this_machine",
    "metered",
    "modelled",
    "proxy",
    "unavailable",
    "why_none",
]
