"""Cascades: a cheaper student first, here; the full one for what that is not sure of, here or on the server."""

from __future__ import annotations

from collections.abc import Iterator

import msgspec

from edgekit_runtime.adaptive import ActionCost, early, names
from edgekit_runtime.cascade import FirstStudent, Paired, cascades_of, digest
from edgekit_runtime.manifest import OperatingPoint
from edgekit_runtime.remote import ways
from edgekit_runtime.remote.offer import Given, Local, Offer, certified, sent
from edgekit_runtime.remote.offer_exits import never
from edgekit_runtime.remote.offer_inputs import input_codecs, sending, whole_sha256
from edgekit_runtime.remote.weigh import measured


def cascades(given: Given, local: Local) -> Iterator[Offer]:
    """The offers of each cascade that is certified for this graph."""
    points = list(_usable(given, local))
    if not points:
        return
    first = given.first
    assert first is not None
    request = Paired(given.golden)
    request.first = first.golden(given.golden)
    first_ms, first_sd_ms, _ = measured(lambda: first.scores(request))
    for point in points:
        yield _here(given, local, point, first, first_ms)
        if early.going_on(point.exit_fractions, 0) > 0.0:  # else the plain cascade in disguise
            yield _handed_over(given, local, point, first, (first_ms, first_sd_ms))


def _usable(given: Given, local: Local) -> Iterator[OperatingPoint]:
    sha256 = given.bundle.graph(given.graph).sha256
    for point in cascades_of(given.bundle.manifest, given.graph):
        why = given.why_not(point.empirical_risk, point.risk) or never(point) or _unfit(given, local, point)
        assert point.first is not None
        if point.chain_sha256 != digest(point.first, sha256):
            why = "it was certified for other graphs than those of this bundle"
        if why:
            given.left_out[names.certified(point, given.graph)] = why
        else:
            yield point


def _unfit(given: Given, local: Local, point: OperatingPoint) -> str:
    """Why a cascade cannot be carried out; empty: it can."""
    first = point.first
    assert first is not None
    if given.first is None:
        return f"its first student was not named: first=PATH of {first.name}, bundle_id {first.bundle_id[:16]}…"
    if given.first.first.bundle_id != first.bundle_id or given.first.first.graph != first.graph:
        return f"it was certified with another first student: {first.graph} of {first.name}, {first.bundle_id[:16]}…"
    if local.answer != (point.output,):
        return f"the student answers {', '.join(local.answer)}, the cascade {point.output} only"
    return ""


def _here(given: Given, local: Local, point: OperatingPoint, first: FirstStudent, first_ms: float) -> Offer:
    leave_ms = (first_ms, first_ms + local.ms)
    mean_ms, sd_ms = early.spent(leave_ms, point.exit_fractions)
    name = names.certified(point, given.graph)
    cost = ActionCost(id=name, kind="cascade", head_ms=mean_ms, head_sd_ms=sd_ms, basis="measured")
    return Offer(certified(cost, point), ways.CascadeHere(first, local.run, point, leave_ms), point=point)


def _handed_over(
    given: Given, local: Local, point: OperatingPoint, first: FirstStudent, first_ms: tuple[float, float]
) -> Offer:
    row = min(input_codecs(given), key=lambda seen: seen.bytes)
    name = names.handed_over(point, given.graph)
    cost = sent(row, name, "cascade", head_ms=first_ms[0], tail_ms=local.served_ms, down=local.down_bytes)
    cost = msgspec.structs.replace(
        certified(cost, point), head_sd_ms=first_ms[1], offload_fraction=early.going_on(point.exit_fractions, 0)
    )
    way = ways.CascadeThenSend(first, sending(given), point, first_ms[0])
    chosen = dict.fromkeys(given.golden, row.codec)
    return Offer(cost, way, given.bundle.manifest.name, chosen, whole_sha256(given), point)
