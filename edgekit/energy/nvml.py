"""NVIDIA cards through NVML (the package `nvidia-ml-py`, or whatever brings the module `pynvml`).

The counter of total energy (Volta and newer) is read at both ends. Older cards only tell their power, which is sampled;
large ones watch it a fraction of the time (on some, 25 ms of each 100 ms), so short work is not seen truly.
"""

from __future__ import annotations

import time
from typing import Any

from edgekit.energy.meter import EnergyReading, Meter, Unreadable
from edgekit.energy.sampled import Sampled


def find(library: Any = None, index: int = 0) -> Meter | None:
    """The meter of one card; None where there is no library or no card.

    Args:
        library: Something like the module `pynvml`; None: the module itself.
        index: Number of the card.
    """
    if library is None:
        try:
            import pynvml
        except ImportError:
            return None
        library = pynvml
    try:
        library.nvmlInit()
        card = library.nvmlDeviceGetHandleByIndex(index)
        name = _text(library.nvmlDeviceGetName(card))
    except library.NVMLError:
        return None
    try:
        library.nvmlDeviceGetTotalEnergyConsumption(card)
    except library.NVMLError:
        return Sampled(
            lambda: _watts(library, card),
            method=f"NVML power of {name}",
            source="nvmlDeviceGetPowerUsage, sampled",
            covers="graphics card",
        )
    return _Counter(library, card, name)


class _Counter:
    """The card's own counter of energy, in millijoules."""

    def __init__(self, library: Any, card: Any, name: str) -> None:
        self._library, self._card, self._name = library, card, name

    def start(self) -> None:
        self._before, self._begin = self._read(), time.monotonic()

    def stop(self) -> EnergyReading:
        seconds = time.monotonic() - self._begin
        return EnergyReading(
            joules=(self._read() - self._before) / 1e3,
            seconds=seconds,
            method=f"NVML energy counter of {self._name}",
            source="nvmlDeviceGetTotalEnergyConsumption",
            covers="graphics card",
            resolution_joules=1e-3,
        )

    def _read(self) -> float:
        try:
            return float(self._library.nvmlDeviceGetTotalEnergyConsumption(self._card))
        except self._library.NVMLError as error:
            raise Unreadable(f"NVML: {error}") from error


def _watts(library: Any, card: Any) -> float:
    try:
        return float(library.nvmlDeviceGetPowerUsage(card)) / 1e3
    except library.NVMLError as error:
        raise Unreadable(f"NVML: {error}") from error


def _text(name: Any) -> str:
    return name.decode(errors="replace") if isinstance(name, bytes) else str(name)
