"""Exits with certified thresholds: all of the chain here, or up to a split point and then its tail on the server."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping

import msgspec

from edgekit_runtime.adaptive import ActionCost, early, risk
from edgekit_runtime.adaptive.listed import Listed
from edgekit_runtime.engines.base import Arrays
from edgekit_runtime.exits import NEVER
from edgekit_runtime.remote import ways
from edgekit_runtime.remote.leaving import LeavingChain
from edgekit_runtime.remote.offer import Given, Local, Offer, sent
from edgekit_runtime.remote.offer_cuts import Cut, smallest, to_tail
from edgekit_runtime.remote.weigh import measured


def exits(given: Given, local: Local, cuts: Mapping[str, Cut]) -> Iterator[Offer]:
    """The offers of each operating point that holds for this graph.

    Args:
        given: What offers are made from.
        local: The local run.
        cuts: By id of the split point.
    """
    wanted = [way for way in given.ways if way.kind == "exit"]
    if not wanted:
        return
    opened = LeavingChain(given.bundle, given.graph, engine=given.engine, threads=given.threads)
    given.opened.append(opened)
    leave_ms = _ways_out(opened, given.golden)
    for way in wanted:
        if way.point is None:
            yield _here(opened, way, leave_ms)
        else:
            yield _handed_over(given, local, opened, way, leave_ms, cuts[way.point.id])


def _here(opened: LeavingChain, way: Listed, leave_ms: list[float]) -> Offer:
    point = way.certified
    assert point is not None
    mean_ms, sd_ms = early.spent(leave_ms, point.exit_fractions)
    cost = ActionCost(id=way.id, kind="exit", head_ms=mean_ms, head_sd_ms=sd_ms, basis="measured")
    return Offer(risk.losing(cost, point), ways.EarlyHere(opened, point, leave_ms), point=point)


def _handed_over(
    given: Given, local: Local, opened: LeavingChain, way: Listed, leave_ms: list[float], cut: Cut
) -> Offer:
    point, last = way.certified, way.last
    assert point is not None
    mean_ms, sd_ms = early.spent(leave_ms[: last + 1], point.exit_fractions)
    cost = sent(smallest(given, cut), way.id, "exit", head_ms=mean_ms, tail_ms=cut.tail_ms, down=local.down_bytes)
    going = early.going_on(point.exit_fractions, last)
    cost = msgspec.structs.replace(risk.losing(cost, point), head_sd_ms=sd_ms, offload_fraction=going)
    offer = to_tail(given, cut, cost, ways.EarlyThenSend(opened, point, last, leave_ms))
    return dataclasses.replace(offer, point=point)


def _ways_out(opened: LeavingChain, golden: Arrays) -> list[float]:
    """Time until each exit, the full answer last, ms: by thresholds that all or none of the scores reach."""
    count = len(opened.exits)
    found: list[float] = []
    for number in range(count):
        thresholds = [NEVER] * number + [0.0] * (count - number)
        found.append(measured(lambda given=thresholds: opened.infer(golden, given))[0])  # type: ignore[misc]
    return found
