"""Cascades between one device and one server: a cheaper student first, the full one here or there for the rest.

A cheaper student that takes other inputs than the full one encodes each request, too, before anything runs: its own
tokenizer or preprocessing is a part of what a cascade costs. The full student's is no part of any action: a request
that is answered without a cascade needs it just as well. A session has spent both when it chooses (`session.encode`
comes first), so that its own costs hold neither.
"""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Iterator, Sequence
from pathlib import Path

import msgspec

from edgekit.devices import DeviceProfile
from edgekit.planner.byte_work import slower_than_here
from edgekit.planner.times import Known, Times
from edgekit.profiler.around import encode_ms
from edgekit_runtime.adaptive import ActionCost, early, risk
from edgekit_runtime.adaptive.listed import Listed
from edgekit_runtime.bundle import Bundle, open_bundle
from edgekit_runtime.cascade import check_present, find_first
from edgekit_runtime.errors import EdgekitError, Refused, UsageError
from edgekit_runtime.manifest import Manifest

_TIMED_S = 0.02


@dataclasses.dataclass(frozen=True)
class First:
    """A cheaper student at hand.

    Attributes:
        bundle: Opened.
        times: Its times on the device.
    """

    bundle: Bundle
    times: Times

    def check(self, manifest: Manifest) -> None:
        """Refuses what no cascade was certified with.

        Raises:
            Refused: The full student has no cascade, or none with this bundle.
        """
        points = [point for point in manifest.operating_points if point.first is not None]
        if not points:
            raise Refused(
                f"{manifest.name} has no cascade", remedy="edgekit calibrate-exits BIG.edge --first SMALL.edge"
            )
        find_first(points, self.bundle)

    def certified(self, manifest: Manifest) -> list[tuple[str, str]]:
        """Bundle id and graph id, as the cascades name them."""
        told = [point.first for point in manifest.operating_points if point.first is not None]
        return [(one.bundle_id, one.graph) for one in told if one.bundle_id == self.bundle.bundle_id]

    def encode_ms(self, graph: str) -> float:
        """What its preprocessing takes on the device for one request: timed here, scaled; 0 where there is none."""
        try:
            here = encode_ms(self.bundle, self.bundle.graph(graph).inputs, _TIMED_S)
        except EdgekitError:  # it takes arrays as they are
            return 0.0
        return here * slower_than_here(self.times.profile)


def cascade(way: Listed, first: Sequence[First], known: Known, sending: Sequence[ActionCost]) -> Iterator[ActionCost]:
    """One certified cascade: all of it here, or with the rest on the server; nothing where a time is not known.

    Args:
        way: As listed: its first student is among `first`.
        first: Cheaper students at hand.
        known: Times of the full student.
        sending: Actions that send the inputs with every bit.
    """
    point = way.certified
    assert point is not None and point.first is not None
    small = next(one for one in first if one.bundle.bundle_id == point.first.bundle_id)
    full, served = known.on_device([point.of]), known.on_server([point.of])
    try:
        asked = small.times.of(small.bundle.graph(point.first.graph))
    except Refused:
        return
    before_ms = 0.0 if point.first.shared else small.encode_ms(point.first.graph)
    if way.last < 0 and full is not None:
        leave_ms = (before_ms + asked.ms, before_ms + asked.ms + full.ms)
        mean_ms, sd_ms = early.spent(leave_ms, point.exit_fractions)
        basis = asked.basis if asked.basis == full.basis else "predicted"
        cost = ActionCost(id=way.id, kind="cascade", head_ms=mean_ms, head_sd_ms=sd_ms, basis=basis)
        yield risk.losing(cost, point)
    elif way.last >= 0 and served is not None and sending:
        wire = min(sending, key=lambda row: row.bytes_up)
        cost = msgspec.structs.replace(
            wire,
            id=way.id if wire.codec == "none" else f"{way.id}:{wire.codec}",
            kind="cascade",
            head_ms=before_ms + asked.ms,
            head_sd_ms=asked.sd_ms,
            offload_fraction=early.going_on(point.exit_fractions, 0),
            basis=asked.basis if asked.basis == served.basis else "predicted",
        )
        yield risk.losing(cost, point)


@contextlib.contextmanager
def opened(paths: Sequence[Path], device: DeviceProfile, threads: int | None = None) -> Iterator[tuple[First, ...]]:
    """The cheaper students and their times on a device, as `price` takes them.

    Raises:
        Refused: There is no such bundle.
        UsageError: One is named twice.
    """
    with contextlib.ExitStack() as stack:
        found = [stack.enter_context(open_bundle(check_present(path))) for path in paths]
        if len({bundle.bundle_id for bundle in found}) < len(found):
            raise UsageError("--first names one bundle twice", remedy="name each once")
        yield tuple(First(bundle, Times(bundle, device, threads)) for bundle in found)
