"""Cascades between one device and one server: a cheaper student first, the full one here or there for the rest."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from pathlib import Path

import msgspec

from edgekit.devices import DeviceProfile
from edgekit.planner.times import Known, Times
from edgekit_runtime.adaptive import ActionCost, Policy, early, names, risk
from edgekit_runtime.bundle import Bundle, open_bundle
from edgekit_runtime.cascade import check_identity, check_present
from edgekit_runtime.errors import Refused
from edgekit_runtime.manifest import Manifest, OperatingPoint


def cascades(
    manifest: Manifest, first: tuple[Bundle, Times], known: Known, local: str, rows: Sequence[ActionCost]
) -> Iterator[ActionCost]:
    """Every certified cascade: all of it here, and with the rest on the server.

    Args:
        manifest: Of the full student.
        first: The cheaper student, and its times on the device.
        known: Times of the full student.
        local: Id of the graph of the action `local`.
        rows: The other actions: what the inputs take on the wire is read from those that send them.

    Raises:
        Refused: The cheaper student is another bundle than the cascades name, or nothing tells its time.
    """
    small, times = first
    sending = [row for row in rows if row.kind == "offload" and "@" not in row.codec]
    for point in _points(manifest, small):
        assert point.first is not None
        full = known.on_device([point.of])
        if full is None:
            continue
        asked = times.of(small.graph(point.first.graph))
        mean_ms, sd_ms = early.spent((asked.ms, asked.ms + full.ms), point.exit_fractions)
        here = ActionCost(
            id=names.certified(point, local),
            kind="cascade",
            head_ms=mean_ms,
            head_sd_ms=sd_ms,
            accuracy_drop=point.empirical_risk,
            accuracy_drop_high=point.risk,
            basis=asked.basis if asked.basis == full.basis else "predicted",
        )
        yield here
        served, going = known.on_server([point.of]), early.going_on(point.exit_fractions, 0)
        if served is None or not sending or going == 0.0:
            continue
        graph = next(graph for graph in manifest.graphs if graph.id == point.of)
        wire = min(sending, key=lambda row: row.bytes_up)
        yield msgspec.structs.replace(
            wire,
            id=names.handed_over(point, local) + ("" if wire.codec == "none" else f":{wire.codec}"),
            kind="cascade",
            head_ms=asked.ms,
            head_sd_ms=asked.sd_ms,
            offload_fraction=going,
            tail_ms=served.ms,
            tail_sd_ms=served.sd_ms,
            server_macs=graph.macs or 0,
            accuracy_drop=here.accuracy_drop,
            accuracy_drop_high=here.accuracy_drop_high,
            basis=asked.basis if asked.basis == served.basis else "predicted",
        )


def _points(manifest: Manifest, small: Bundle) -> list[OperatingPoint]:
    points = [point for point in manifest.operating_points if point.first is not None]
    if not points:
        raise Refused(
            f"{manifest.name} has no cascade",
            remedy="edgekit calibrate-exits BIG.edge --first SMALL.edge",
        )
    for point in points:
        assert point.first is not None
        check_identity(small, point.first)
    return points


@contextlib.contextmanager
def opened(path: Path | None, device: DeviceProfile) -> Iterator[tuple[Bundle, Times] | None]:
    """The cheaper student and its times on a device, as `actions_of` takes them; None where none was named.

    Raises:
        Refused: There is no such bundle.
    """
    if path is None:
        yield None
        return
    with open_bundle(check_present(path)) as small:
        yield small, Times(small, device)


def left_out(manifest: Manifest, policy: Policy) -> dict[str, str]:
    """Why the cascades of a bundle are not planned where its first student was not named, by action id."""
    return {
        names.certified(point, point.of): risk.why_not(point.empirical_risk, point.risk, policy)
        or f"its first student was not named: --first PATH of {point.first.name}, {point.first.bundle_id[:16]}…"
        for point in manifest.operating_points
        if point.first is not None
    }
