"""Every way in which a bundle can answer a request, with its cost between one device and one server.

The list is the session's own (`edgekit_runtime.adaptive.listed`); here each way gets its predicted price. What has
none, and what the list says cannot be, is left out with the reason.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from typing import Literal

import msgspec

from edgekit.planner.cascades import First, cascade
from edgekit.planner.times import Known, Times
from edgekit.planner.wires import INPUTS, Wires, wires
from edgekit_runtime import codecs
from edgekit_runtime.adaptive import ActionCost, early, risk
from edgekit_runtime.adaptive.listed import Listed, listed
from edgekit_runtime.bundle import Bundle
from edgekit_runtime.errors import Refused, UsageError
from edgekit_runtime.machine import this_machine
from edgekit_runtime.manifest import Graph, Manifest, OperatingPoint
from edgekit_runtime.remote.pieces import first_sample

Basis = Literal["measured", "predicted"]

FRAMING_BYTES = 300  # of a request and of an answer: HTTP/2, gRPC and the V2 message around the tensors


@dataclasses.dataclass(frozen=True)
class Priced:
    """What a bundle offers between a device and a server.

    Attributes:
        graph: Id of the full graph that runs on the device.
        actions: The local one first.
        left_out: Action id to the reason why it is not among them. What a policy's `max_risk` forbids is still in.
    """

    graph: str
    actions: tuple[ActionCost, ...]
    left_out: Mapping[str, str]


@dataclasses.dataclass(frozen=True)
class _Given:
    bundle: Bundle
    graph: Graph
    known: Known
    wires: Wires
    down: int
    first: Sequence[First]

    @property
    def manifest(self) -> Manifest:
        return self.bundle.manifest


def price(bundle: Bundle, device: Times, server: Times, first: Sequence[First] = (), graph: str = "") -> Priced:
    """All actions of a bundle, as a session on that device offers them to that server.

    Args:
        bundle: Opened.
        device: Times of the device; what is timed here (codecs) is scaled by the same profile.
        server: Times of the server.
        first: Cheaper students of the bundle's cascades, with their times on the device.
        graph: Id of the full graph that runs on the device; empty: the quickest there whose gate passed.

    Raises:
        Refused: The graph, or every one, has no known time on the device; or `first` names what no cascade does.
        UsageError: There is no such full graph.
    """
    manifest = bundle.manifest
    known = Known({item.id: item for item in manifest.graphs}, device, server)
    own = _own(manifest, known, device, graph)
    for one in first:
        one.check(manifest)
    seen = wires(bundle, own.id)
    down = FRAMING_BYTES + seen.bytes_of(manifest.outputs)
    given = _Given(bundle, own, known, seen, down, first)
    rows: list[ActionCost] = []
    left_out: dict[str, str] = {}
    names = [pair for one in first for pair in one.certified(manifest)]
    for way in listed(manifest, own.id, names):
        found = way.why or list(_priced(given, way))
        if isinstance(found, str):
            left_out[way.id] = found + (_time(known, way, device) if way.kind == "variant" else "")
        else:
            rows += found
            if not found:
                left_out[way.id] = _without(given, way, device, server)
    return Priced(own.id, tuple(rows), left_out)


def _own(manifest: Manifest, known: Known, device: Times, name: str) -> Graph:
    """The graph that runs on the device."""
    full = [graph for graph in manifest.graphs if graph.role == "full"]
    if name and name not in {graph.id for graph in full}:
        raise UsageError(f"there is no full graph {name!r}", remedy=f"it has: {', '.join(graph.id for graph in full)}")
    times = {graph.id: known.on_device([graph.id]) for graph in full if name in ("", graph.id)}
    timed = {graph: found.ms for graph, found in times.items() if found is not None}
    if not timed:
        raise Refused(
            f"{name or 'no full graph'} has {'no' if name else 'a'} known time on {device.profile.name}",
            remedy=_measure(device.profile.name),
        )
    failed = {row.graph for row in manifest.quality if row.gate == "failed"}
    passed = [graph for graph in timed if graph not in failed] or list(timed)
    best = min(passed, key=timed.__getitem__)
    return next(graph for graph in full if graph.id == best)


def _measure(device: str) -> str:
    """How times of a device become known."""
    if device in ("local", this_machine().id):
        return "edgekit profile BUNDLE, or edgekit devices --calibrate, or plan for another device: --device pi4"
    return f"edgekit profile BUNDLE --device {device}"


def _priced(given: _Given, way: Listed) -> Iterator[ActionCost]:
    """The action, one for each lossless codec that is worth it where the inputs are sent; nothing where no time is."""
    if way.kind == "local":
        found = given.known.on_device([given.graph.id])
        if found is not None:
            yield ActionCost(id=way.id, kind="local", head_ms=found.ms, head_sd_ms=found.sd_ms, basis=found.basis)
    elif way.kind == "offload":
        yield from _offloads(given, way)
    elif way.kind == "cascade":
        yield from cascade(way, given.first, given.known, list(_whole(given)))
    elif way.point is None:
        yield from _exits_here(given, way)
    else:
        yield from _cut(given, way)


def _exits_here(given: _Given, way: Listed) -> Iterator[ActionCost]:
    """A chain of segments and exits on the device."""
    assert way.certified is not None
    found = _ways_out(given, way.certified)
    if found is not None:
        mean_ms, sd_ms = early.spent(found[0], way.certified.exit_fractions)
        cost = ActionCost(id=way.id, kind="exit", head_ms=mean_ms, head_sd_ms=sd_ms, basis=found[1])
        yield risk.losing(cost, way.certified)


def _ways_out(given: _Given, point: OperatingPoint) -> tuple[list[float], Basis] | None:
    """Time until each exit and until the full answer, ms, and where it is from; None where one is not known."""
    roles = {graph.id: graph.role for graph in given.manifest.graphs}
    spent_ms, leave_ms = 0.0, []
    basis: Basis = "measured"
    for name in point.graph_chain:
        found = given.known.on_device([name])
        if found is None:
            return None
        spent_ms += found.ms
        basis = basis if found.basis == "measured" else "predicted"
        if roles[name] == "exit":
            leave_ms.append(spent_ms)
    return [*leave_ms, spent_ms], basis


def _whole(given: _Given) -> Iterator[ActionCost]:
    """The inputs to the server, with every bit: as they are, and with each codec that is worth it."""
    served = given.known.on_server([given.graph.id])
    if served is None:
        return
    plain = ActionCost(
        id="offload",
        kind="offload",
        offload_fraction=1.0,
        bytes_down=given.down,
        tail_ms=served.ms,
        tail_sd_ms=served.sd_ms,
        server_macs=given.graph.macs or 0,
        basis=served.basis,
    )
    for row in given.wires.lossless(INPUTS, given.wires.bytes_of(given.manifest.inputs)):
        yield _sent(given, plain, row)


def _offloads(given: _Given, way: Listed) -> Iterator[ActionCost]:
    plain = list(_whole(given))
    if way.action is None or not plain:
        yield from sorted(plain, key=lambda row: -row.bytes_up)
        return
    golden = first_sample(given.manifest, given.bundle.golden_inputs())
    pictures = [array for array in golden.values() if codecs.takes(way.action.codec, array)]
    if not pictures or codecs.missing(way.action.codec):
        return
    row = codecs.measure(way.action.codec, pictures)
    others = sum(array.nbytes for array in golden.values() if not codecs.takes(row.codec, array))
    cost = _sent(
        given, msgspec.structs.replace(plain[0], id="offload"), dataclasses.replace(row, bytes=row.bytes + others)
    )
    if cost.bytes_up < min(one.bytes_up for one in plain):
        yield risk.losing(cost, way.action)


def _cut(given: _Given, way: Listed) -> Iterator[ActionCost]:
    """The head here and the tail there, for all or for whoever no exit on the way is sure of."""
    point, known, seen = way.point, given.known, given.wires
    assert point is not None
    head, tail = known.on_device(point.before), known.on_server(point.after)
    if head is None or tail is None:
        return
    graphs = {graph.id: graph for graph in given.manifest.graphs}
    if way.action is not None:
        row = seen.int8(given.manifest, point)
    else:
        row = min(seen.lossless(point.id, seen.crossing(given.manifest, point)), key=lambda one: one.bytes)
    cost = ActionCost(
        id=way.id if way.action is None else way.id.removesuffix(f":{way.action.codec}"),
        kind=way.kind,
        head_ms=head.ms,
        head_sd_ms=head.sd_ms,
        offload_fraction=1.0,
        bytes_down=given.down,
        tail_ms=tail.ms,
        tail_sd_ms=tail.sd_ms,
        server_macs=sum(graphs[name].macs or 0 for name in point.after),
        split_point=point.place or point.id,
        depth=way.depth,
        basis=head.basis if head.basis == tail.basis else "predicted",
    )
    cost = risk.losing(_sent(given, cost, row), way.evidence)
    if way.certified is None:
        yield cost
        return
    left = _ways_out(given, way.certified)
    if left is not None:
        mean_ms, sd_ms = early.spent(left[0][: way.last + 1], way.certified.exit_fractions)
        yield msgspec.structs.replace(
            cost,
            head_ms=mean_ms,
            head_sd_ms=sd_ms,
            offload_fraction=early.going_on(way.certified.exit_fractions, way.last),
            basis=cost.basis if cost.basis == left[1] else "predicted",
        )


def _sent(given: _Given, plain: ActionCost, row: codecs.Measured) -> ActionCost:
    """An action with a codec that was timed here, as it is there."""
    coded = given.known.coded(plain, row)
    return msgspec.structs.replace(
        coded,
        id=plain.id if row.codec == "none" else f"{plain.id}:{row.codec}",
        codec=row.codec,
        bytes_up=row.bytes + FRAMING_BYTES,
    )


def _without(given: _Given, way: Listed, device: Times, server: Times) -> str:
    """Why a way that could be has no price."""
    here = _pieces(given, way)
    there = way.point.after if way.point is not None else (given.graph.id,)
    lacking = next((name for name in here if given.known.on_device([name]) is None), None)
    if lacking is not None:
        return f"{lacking} has no known time on {device.profile.name}"
    lacking = next((name for name in there if given.known.on_server([name]) is None), None)
    if lacking is not None:
        return f"{lacking} has no known time on {server.profile.name}"
    if way.action is not None and codecs.missing(way.action.codec):
        return f"{way.action.codec} is not installed here: {codecs.missing(way.action.codec)}"
    return "a lossless codec sends no more bytes"


def _pieces(given: _Given, way: Listed) -> Sequence[str]:
    """Graphs that run on the device."""
    if way.kind == "exit" and way.certified is not None:
        return way.certified.graph_chain
    return way.point.before if way.point is not None else ()


def _time(known: Known, way: Listed, device: Times) -> str:
    """What another graph would take on the device."""
    found = known.on_device([way.id.partition(":")[2]])
    return f" ({found.ms:.2f} ms on {device.profile.name})" if found is not None else ""
