"""How long a graph takes on a device or on a server.

In this order (`Timed.basis` tells which):
    1. a measurement kept beside the bundle, of that device
    2. the prediction for its operators, traced on this machine (`edgekit.devices.predict`)
    3. where no engine of this machine runs the graph: its multiply-accumulates over the profile's median rate
"""

from __future__ import annotations

import dataclasses
import functools
import math
import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal

import msgspec

from edgekit.devices import DeviceProfile, Work, of_job, predict
from edgekit.planner.byte_work import serialise_ms, slower_than_here
from edgekit.profiler import targets
from edgekit_runtime import codecs
from edgekit_runtime.adaptive import ActionCost
from edgekit_runtime.bundle import Bundle, open_bundle
from edgekit_runtime.errors import EdgekitError, Refused, UsageError
from edgekit_runtime.machine import this_machine
from edgekit_runtime.manifest import Graph
from edgekit_runtime.measurement import Measurement

# Effective over peak rate of whole small networks where a profile knows peaks only.
_OF_PEAK = 0.3
_RUN_MS = 0.2
_RUN_TO_RUN = 0.05  # standard deviation over the time, where no samples tell it


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
        self._bundle = bundle
        cores = max(int(profile.hardware.cores.value), 1)
        # The multiprocessors of a card always work together.
        self.threads = cores if profile.kind == "gpu" else threads or cores
        here = this_machine().id
        names = {profile.name, here} if profile.name in ("local", here) else {profile.name}
        self._measured: dict[str, Measurement] = {}
        for row in bundle.measurements():
            p50 = row.latency_ms.p50
            before = self._measured.get(row.graph)
            if row.device not in names or p50 is None or row.verdict.kind == "invalid":
                continue
            if row.predicted and row.threads != self.threads:
                continue  # it is predicted anew, with as many threads as the pieces that it is compared with
            if before is None or (before.predicted, before.latency_ms.p50) > (row.predicted, p50):
                self._measured[row.graph] = row
        self._rate: dict[str, float] = {}
        self._found: dict[str, Timed | Refused] = {}

    def of(self, graph: Graph) -> Timed:
        """The time of one graph.

        Raises:
            Refused: It was not measured there, and the device does not run it, or nothing tells its time.
        """
        # Every split point asks for all pieces before and behind it.
        if graph.id not in self._found:
            try:
                self._found[graph.id] = self._find(graph)
            except Refused as error:
                self._found[graph.id] = error
        found = self._found[graph.id]
        if isinstance(found, Refused):
            raise found
        return found

    def _find(self, graph: Graph) -> Timed:
        row = self._measured.get(graph.id)
        if row is not None and row.latency_ms.p50 is not None:
            basis: Literal["measured", "predicted"] = "predicted" if row.predicted else "measured"
            return Timed(row.latency_ms.p50, _spread(row), basis)
        work = _traced(self._bundle.root, graph.id, graph.sha256)
        ms = self._rated_ms(graph) if work is None else self._predicted_ms(work)
        return Timed(ms, _RUN_TO_RUN * ms, "predicted")

    def _predicted_ms(self, work: Work) -> float:
        # The multiprocessors of a card always work together: they are no threads.
        threads = 1 if self.profile.kind == "gpu" else self.threads
        try:
            ms = predict(self.profile, work, threads=threads).latency_ms.p50
        except UsageError as error:
            raise Refused(f"{work.graph}: {error.message}", remedy=error.remedy) from error
        assert ms is not None  # a prediction always has one
        return ms

    def _rated_ms(self, graph: Graph) -> float:
        if graph.macs is None:
            raise Refused(
                f"{graph.id}: not measured on {self.profile.name}, and its multiply-accumulates are not known",
                remedy=f"edgekit profile BUNDLE --device {self.profile.name} --graph {graph.id}",
            )
        return graph.macs / self._gmacs_per_s(graph.precision) / 1e6 + self._run_ms()

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


class Known:
    """Summed times of graphs, None where one of them is not known."""

    def __init__(self, graphs: Mapping[str, Graph], device: Times, server: Times) -> None:
        self._graphs, self._device, self._server = graphs, device, server

    @functools.cached_property
    def _slower(self) -> tuple[float, float]:
        """How many times longer codecs take on the device and on the server; a profile is a file to be read."""
        return slower_than_here(self._device.profile), slower_than_here(self._server.profile)

    def on_device(self, ids: Sequence[str]) -> Timed | None:
        """Of graphs run one after the other on the device."""
        return self._sum(self._device, ids)

    def on_server(self, ids: Sequence[str]) -> Timed | None:
        """The same on the server."""
        return self._sum(self._server, ids)

    def serialise_ms(self, size_bytes: int) -> float:
        """Of a message's bytes on the device."""
        return serialise_ms(self._device.profile, size_bytes)

    def coded(self, plain: ActionCost, found: codecs.Measured) -> ActionCost:
        """An action with a codec that was timed here, as it is there; what it makes is serialised, too."""
        return msgspec.structs.replace(
            plain,
            encode_ms=self.serialise_ms(found.bytes) + found.encode_ms * self._slower[0],
            decode_ms=found.decode_ms * self._slower[1],
        )

    def _sum(self, times: Times, ids: Sequence[str]) -> Timed | None:
        try:
            rows = [times.of(self._graphs[name]) for name in ids]
        except Refused:
            return None
        basis = "measured" if all(row.basis == "measured" for row in rows) else "predicted"
        return Timed(sum(row.ms for row in rows), math.hypot(*(row.sd_ms for row in rows)), basis)  # type: ignore[arg-type]


@functools.lru_cache(maxsize=1024)  # device and server ask for the same graphs; a trace costs a run with the tracer
def _traced(bundle: Path, graph: str, sha256: str) -> Work | None:
    """What a graph does; None where no engine of this machine runs it. The hash tells a bundle made anew."""
    try:
        opened = open_bundle(bundle)
        jobs, _ = targets.plan([targets.of_graph(opened, opened.graph(graph))])
        return of_job(jobs[0])
    except EdgekitError:
        return None


def _spread(row: Measurement) -> float:
    samples = row.latency_ms.samples
    if len(samples) >= 8:
        quartiles = statistics.quantiles(samples, n=4)
        return (quartiles[2] - quartiles[0]) / 1.35  # of a normal distribution
    return _RUN_TO_RUN * (row.latency_ms.p50 or 0.0)
