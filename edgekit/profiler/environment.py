"""What this machine tells about its state while measuring; None where it does not tell."""

from __future__ import annotations

import dataclasses
import os
import platform
from pathlib import Path

import psutil

from edgekit_runtime.measurement import Environment

_GOVERNOR = Path("/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor")
_PI_THROTTLED = Path("/sys/devices/platform/soc/soc:firmware/get_throttled")
_X86_THROTTLES = Path("/sys/devices/system/cpu/cpu0/thermal_throttle/package_throttle_count")
# Sensors that stand for the processor, by the names their drivers give.
_CPU_SENSORS = ("coretemp", "k10temp", "zenpower", "cpu_thermal", "cpu-thermal", "soc_thermal", "acpitz")


@dataclasses.dataclass(frozen=True)
class Before:
    """The machine when measuring begins; later readings are compared with it.

    Attributes:
        throttles: As `throttle_state` says.
        swapped_out: Bytes swapped out so far.
        load: Load average of one minute; None where the system has none.
    """

    throttles: int | None = None
    swapped_out: int = 0
    load: float | None = None


def before() -> Before:
    """Reads the machine before measuring."""
    load = os.getloadavg()[0] if hasattr(os, "getloadavg") else None
    return Before(throttle_state(), int(psutil.swap_memory().sout), load)


def read(throttles_before: int | None = None) -> Environment:
    """The machine now.

    Args:
        throttles_before: What `throttle_state` said before measuring.
    """
    frequency = _clock_mhz()
    now = throttle_state()
    return Environment(
        cpu=cpu_name(),
        governor=_text(_GOVERNOR),
        clock_mhz=frequency,
        temperature_c=_temperature(),
        throttled=None if now is None else now != (throttles_before or 0),
        load=os.getloadavg()[0] if hasattr(os, "getloadavg") else None,
        swap=int(psutil.swap_memory().used),
    )


def cpu_name() -> str:
    """The processor's name as the machine gives it, with the number of logical cores."""
    name = ""
    for line in (_text(Path("/proc/cpuinfo")) or "").splitlines():
        key, _, value = line.partition(":")
        if key.strip() in {"model name", "Model", "Hardware"}:
            name = value.strip()
            break
    board = (_text(Path("/proc/device-tree/model")) or "").strip("\0")
    name = board or name or platform.processor() or platform.machine()
    return f"{name}, {psutil.cpu_count() or 1} cores, {platform.machine()}"


def throttle_state() -> int | None:
    """A number that changes when the machine throttles: the Pi's current bits, or Intel's counter; None: not told."""
    pi = _text(_PI_THROTTLED)
    if pi is not None:
        return int(pi, 16) & 0xF
    count = _text(_X86_THROTTLES)
    return None if count is None else int(count)


def sensors() -> list[dict[str, object]]:
    """Temperature and power sensors of this machine, for `edgekit doctor`."""
    found: list[dict[str, object]] = []
    for chip, readings in _temperatures().items():
        found += [{"kind": "temperature", "name": chip, "value_c": reading.current} for reading in readings[:1]]
    for domain in sorted(Path("/sys/class/powercap").glob("intel-rapl:*")):
        readable = os.access(domain / "energy_uj", os.R_OK)
        found.append({"kind": "energy", "name": _text(domain / "name") or domain.name, "readable": readable})
    return found


def _temperature() -> float | None:
    temperatures = _temperatures()
    for chip in _CPU_SENSORS:
        if temperatures.get(chip):
            return float(temperatures[chip][0].current)
    return None


def _temperatures() -> dict[str, list[psutil._ntuples.shwtemp]]:
    return dict(psutil.sensors_temperatures()) if hasattr(psutil, "sensors_temperatures") else {}


def _clock_mhz() -> float | None:
    try:
        frequency = psutil.cpu_freq()
    except (OSError, NotImplementedError, AttributeError):  # psutil's three ways to say: this platform does not tell
        return None
    return float(frequency.current) if frequency and frequency.current else None


def _text(path: Path) -> str | None:
    try:
        return path.read_text(errors="replace").strip()
    except OSError:
        return None
