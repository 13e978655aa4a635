"""Cascades: a cheaper student first, here; the full one for what that is not sure of, here or on the server."""

from __future__ import annotations

from collections.abc import Iterator

import msgspec

from edgekit_runtime.adaptive import ActionCost, early, risk
from edgekit_runtime.adaptive.listed import Listed
from edgekit_runtime.cascade import FirstStudent, Paired
from edgekit_runtime.remote import ways
from edgekit_runtime.remote.offer import Given, Local, Offer, sent
from edgekit_runtime.remote.offer_inputs import input_codecs, sending, whole_sha256
from edgekit_runtime.remote.weigh import measured


def cascades(given: Given, local: Local) -> Iterator[Offer]:
    """The offers of each cascade that is certified for this graph."""
    timed: dict[str, tuple[float, float]] = {}
    for way in given.ways:
        if way.kind != "cascade":
            continue
        assert given.first is not None and way.certified is not None and way.certified.first is not None
        first = given.first[way.certified.first.bundle_id]
        if first.first.bundle_id not in timed:
            timed[first.first.bundle_id] = _first_ms(given, first)
        first_ms = timed[first.first.bundle_id]
        yield (
            _here(local, way, first, first_ms[0]) if way.last < 0 else _handed_over(given, local, way, first, first_ms)
        )


def _first_ms(given: Given, first: FirstStudent) -> tuple[float, float]:
    """Median and spread of the small student's run. What `encode` takes is spent before there is anything to choose."""
    request = Paired(given.golden)
    request.first = {first.first.bundle_id: first.golden(given.golden)}
    return measured(lambda: first.scores(request))[:2]


def _here(local: Local, way: Listed, first: FirstStudent, first_ms: float) -> Offer:
    point = way.certified
    assert point is not None
    leave_ms = (first_ms, first_ms + local.ms)
    mean_ms, sd_ms = early.spent(leave_ms, point.exit_fractions)
    cost = ActionCost(id=way.id, kind="cascade", head_ms=mean_ms, head_sd_ms=sd_ms, basis="measured")
    return Offer(risk.losing(cost, point), ways.CascadeHere(first, local.run, point, leave_ms), point=point)


def _handed_over(given: Given, local: Local, way: Listed, first: FirstStudent, first_ms: tuple[float, float]) -> Offer:
    point = way.certified
    assert point is not None
    row = min(input_codecs(given), key=lambda seen: seen.bytes)
    cost = sent(row, way.id, "cascade", head_ms=first_ms[0], tail_ms=local.served_ms, down=local.down_bytes)
    cost = msgspec.structs.replace(
        risk.losing(cost, point), head_sd_ms=first_ms[1], offload_fraction=early.going_on(point.exit_fractions, 0)
    )
    act = ways.CascadeThenSend(first, sending(given), point, first_ms[0])
    chosen = dict.fromkeys(given.golden, row.codec)
    return Offer(cost, act, given.bundle.manifest.name, chosen, whole_sha256(given), point)
