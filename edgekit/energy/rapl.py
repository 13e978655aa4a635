"""Intel's and AMD's energy counters (RAPL) through the kernel's powercap.

    intel-rapl:0        package-0     counts once; what lies inside it (core, uncore, dram on some) is not added again
    intel-rapl:0:0      core          ⊂ package-0
    intel-rapl:0:1      dram          beside the cores, but listed inside: added where its package is counted
    intel-rapl:1        psys          the whole platform ⊃ every package: alone where it is there

A counter wraps at `max_energy_range_uj`: a fast package does so within minutes, and between two readings it must be
read at least once a round (`WATCH_S`), which a thread does.
"""

from __future__ import annotations

import dataclasses
import os
import threading
import time
from collections.abc import Callable
from pathlib import Path

from edgekit.energy.files import number, text
from edgekit.energy.meter import EnergyReading, Unreadable

POWERCAP = Path("sys/class/powercap")
WATCH_S = 5.0  # 65 kJ at 300 W wrap in 218 s; the oldest 32-bit counters (15.3 uJ steps) in about a minute at 1 kW


@dataclasses.dataclass(frozen=True)
class Domain:
    """One counter: its folder, its name, and where it starts again."""

    folder: Path
    name: str
    range_uj: float


def domains(root: Path) -> list[Domain]:
    """The counters that together count everything once, of those that can be read now.

    `psys` holds the packages, so it stands alone; without it the packages, each with the DRAM beside its cores. Cores
    and uncore lie inside a package. A domain of a second driver (`intel-rapl-mmio`) shows the same package again.
    """
    found = []
    for folder in sorted((root / POWERCAP).glob("intel-rapl:*")):
        name = text(folder / "name")
        if name and os.access(folder / "energy_uj", os.R_OK):
            found.append(Domain(folder, name, number(folder / "max_energy_range_uj")))
    platform = [domain for domain in found if domain.name == "psys"]
    if platform:
        return platform[:1]
    packages = [domain for domain in found if domain.name.startswith("package")]
    counted = {domain.folder.name for domain in packages}
    memory = [domain for domain in found if domain.name == "dram" and _parent(domain) in counted]
    return packages + memory


def locked(root: Path) -> str:
    """Counters that are there but may not be read (since 2020 only root may); empty: none."""
    folder = root / POWERCAP
    files = [path / "energy_uj" for path in folder.glob("intel-rapl:*")]
    return str(folder / "intel-rapl:*" / "energy_uj") if any(not os.access(path, os.R_OK) for path in files) else ""


def find(root: Path) -> Rapl | None:
    """The meter; None where no counter can be read."""
    counted = domains(root)
    return Rapl(counted) if counted else None


def difference_uj(before: float, after: float, range_uj: float) -> float:
    """What a counter counted between two readings less than a round apart."""
    return after - before if after >= before else after + range_uj - before


class Rapl:
    """The meter over some counters."""

    def __init__(self, counted: list[Domain], clock: Callable[[], float] = time.monotonic) -> None:
        self._counted = counted
        self._clock = clock
        self._done = threading.Event()
        self._lock = threading.Lock()

    def start(self) -> None:
        """Begins, and watches for wraps."""
        self._total_uj, self._readings = 0.0, 1
        self._last = [self._read(domain) for domain in self._counted]
        self._begin = self._clock()
        self._done.clear()
        self._watcher = threading.Thread(target=self._watch, daemon=True)
        self._watcher.start()

    def stop(self) -> EnergyReading:
        """Ends."""
        seconds = self._clock() - self._begin
        self.take()
        self._done.set()
        self._watcher.join()
        names = ", ".join(domain.name for domain in self._counted)
        return EnergyReading(
            joules=self._total_uj / 1e6,
            seconds=seconds,
            method=f"RAPL {names}",
            source="powercap energy_uj of " + ", ".join(domain.folder.name for domain in self._counted),
            covers="whole platform" if self._counted[0].name == "psys" else "processor packages with their memory",
            samples=self._readings,
        )

    def take(self) -> None:
        """Reads every counter and adds what it counted since."""
        with self._lock:
            for index, domain in enumerate(self._counted):
                now = self._read(domain)
                self._total_uj += difference_uj(self._last[index], now, domain.range_uj)
                self._last[index] = now
            self._readings += 1

    def _watch(self) -> None:
        while not self._done.wait(WATCH_S):
            try:
                self.take()
            except Unreadable:
                return  # the last reading in `stop` says so

    def _read(self, domain: Domain) -> float:
        return number(domain.folder / "energy_uj")


def _parent(domain: Domain) -> str:
    return domain.folder.name.rsplit(":", 1)[0]
