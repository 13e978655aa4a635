"""How long a graph takes on a device or on a server.

In this order: a measurement kept beside the bundle, of that device; what a profile gives for the graph's
multiply-accumulates (`Times.basis` tells which).
"""

from __future__ import annotations

import dataclasses
import statistics
from typing import Literal

from edgekit.devices import DeviceProfile
from edgekit_runtime.bundle import Bundle
from edgekit_runtime.errors import Refused
from edgekit_runtime.machine import this_machine
from edgekit_runtime.manifest import Graph
from edgekit_runtime.measurement import Measurement

# Effective over peak rate of whole small networks where a profile knows peaks only.
_OF_PEAK = 0.3
_RUN_MS = 0.2


@dataclasses.dataclass(frozen=True)
class Timed:
    """Milliseconds of one inference, standard deviation from run to run, and where they come from."""

    ms: float
    sd_ms: float
    basis: Literal["measured", "predicted"]


class Times:
    """Times of a bundle's graphs on one machine.

    Attributes:
        profile: Of the machine.
        threads: It runs with.
    """

    def __init__(self, bundle: Bundle, profile: DeviceProfile, threads: int | None = None) -> None:
        self.profile = profile
        self.threads = threads or max(int(profile.hardware.cores.value), 1)
        here = this_machine().id
        names = {profile.name, here} if profile.name in ("local", here) else {profile.name}
        self._measured: dict[str, Measurement] = {}
        for row in bundle.measurements():
            p50 = row.latency_ms.p50
            before = self._measured.get(row.graph)
            if row.device not in names or p50 is None or row.verdict.kind == "invalid":
                continue
            if before is None or (before.predicted, before.latency_ms.p50) > (row.predicted, p50):
                self._measured[row.graph] = row
        self._rate: dict[str, float] = {}

    def of(self, graph: Graph) -> Timed:
        """The time of one graph.

        Raises:
            Refused: It was not measured there, and its MACs or the profile's rates are not known.
        """
        row = self._measured.get(graph.id)
        if row is not None and row.latency_ms.p50 is not None:
            basis: Literal["measured", "predicted"] = "predicted" if row.predicted else "measured"
            return Timed(row.latency_ms.p50, _spread(row), basis)
        if graph.macs is None:
            raise Refused(
                f"{graph.id}: not measured on {self.profile.name}, and its multiply-accumulates are not known",
                remedy=f"edgekit profile BUNDLE --device {self.profile.name} --graph {graph.id}",
            )
        ms = graph.macs / self._gmacs_per_s(graph.precision) / 1e6 + self._run_ms()
        return Timed(ms, 0.05 * ms, "predicted")

    def _run_ms(self) -> float:
        known = [row.run_us.value / 1e3 for row in self.profile.overheads]
        return max(known, default=_RUN_MS)

    def _gmacs_per_s(self, precision: str) -> float:
        if precision not in self._rate:
            self._rate[precision] = self._find_rate(precision)
        return self._rate[precision]

    def _find_rate(self, precision: str) -> float:
        rates = [row.gmacs_per_s.value for row in self.profile.rates if row.precision == precision]
        if rates:
            return statistics.median(rates)
        peak = self.profile.peak_gmacs_per_s(precision, self.threads) or self.profile.peak_gmacs_per_s(
            "fp32", self.threads
        )
        if not peak:
            raise Refused(
                f"the profile {self.profile.name} knows no rate for {precision}",
                remedy=f"edgekit profile BUNDLE --device {self.profile.name}, or edgekit devices --calibrate there",
            )
        return _OF_PEAK * peak


def _spread(row: Measurement) -> float:
    samples = row.latency_ms.samples
    if len(samples) >= 8:
        quartiles = statistics.quantiles(samples, n=4)
        return (quartiles[2] - quartiles[0]) / 1.35  # of a normal distribution
    return 0.05 * (row.latency_ms.p50 or 0.0)
