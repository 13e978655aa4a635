"""The head here and the tail on the server, cut at a split point."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator

import msgspec

from edgekit_runtime import chain, codecs
from edgekit_runtime.adaptive import ActionCost, names, risk
from edgekit_runtime.engines.base import Arrays
from edgekit_runtime.manifest import SplitPoint
from edgekit_runtime.remote import ways
from edgekit_runtime.remote.offer import SERVER_GAIN, Given, Local, Offer, sent
from edgekit_runtime.remote.pieces import tail_sha256
from edgekit_runtime.remote.weigh import measured, worth


@dataclasses.dataclass(frozen=True)
class Cut:
    """A split point whose tail gives the whole answer, and what was seen of it here."""

    point: SplitPoint
    depth: int
    head: chain.Chain
    head_ms: float
    values: Arrays
    tail_ms: float


def cuts(given: Given, local: Local) -> Iterator[Cut]:
    """The split points of the graph in order of depth, each with its head open."""
    for way in given.ways:
        point = way.point
        if point is None or way.kind != "split" or way.action is not None:
            continue
        head = chain.Chain(given.bundle, given.graph, stop=point.id, engine=given.engine, threads=given.threads)
        given.opened.append(head)
        head_ms, _, values = measured(lambda head=head: head.run(given.golden))  # type: ignore[misc]
        share = max(1 - head_ms / max(local.ms, 1e-6), 0.05)
        yield Cut(point, way.depth, head, head_ms, values, share * local.ms / SERVER_GAIN)


def splits(given: Given, local: Local, cut: Cut) -> Iterator[Offer]:
    """What crosses with the smallest lossless codec, and as int8 where that was measured."""
    for way in given.ways:
        if way.kind != "split" or way.point is not cut.point:
            continue
        action = way.action
        row = smallest(given, cut) if action is None else codecs.measure(action.codec, cut.values.values())
        yield to_tail(given, cut, risk.losing(_cost(given, local, cut, row), action), ways.Head(cut.head))


def smallest(given: Given, cut: Cut) -> codecs.Measured:
    """The lossless codec that makes fewest bytes of what crosses."""
    rows = worth(codecs.measure(name, cut.values.values()) for name in given.lossless)
    return min(rows, key=lambda seen: seen.bytes)


def to_tail(given: Given, cut: Cut, cost: ActionCost, way: ways.Way) -> Offer:
    """An offer that calls the tail behind a split point."""
    cost = msgspec.structs.replace(cost, split_point=names.place(cut.point), depth=cut.depth)
    sha256 = tail_sha256(given.bundle, cut.point) if given.ours else ""
    model = f"{given.bundle.manifest.name}.tail.{cut.point.id}"
    return Offer(cost, way, model, dict.fromkeys(cut.values, cost.codec), sha256)


def _cost(given: Given, local: Local, cut: Cut, row: codecs.Measured) -> ActionCost:
    name = names.cut(cut.point, given.graph)
    return sent(row, name, "split", head_ms=cut.head_ms, tail_ms=cut.tail_ms, down=local.down_bytes)
