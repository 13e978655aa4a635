"""Exits with certified thresholds: all of the chain here, or up to a split point and then its tail on the server."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping

import msgspec

from edgekit_runtime import chain
from edgekit_runtime.adaptive import ActionCost, early, names
from edgekit_runtime.engines.base import Arrays
from edgekit_runtime.exits import NEVER
from edgekit_runtime.manifest import OperatingPoint
from edgekit_runtime.remote import ways
from edgekit_runtime.remote.leaving import LeavingChain, hands_over
from edgekit_runtime.remote.offer import Given, Local, Offer, certified, sent
from edgekit_runtime.remote.offer_cuts import Cut, smallest, to_tail
from edgekit_runtime.remote.weigh import measured


def exits(given: Given, local: Local, cuts: Mapping[str, Cut]) -> Iterator[Offer]:
    """The offers of each operating point that holds for this graph.

    Args:
        given: What offers are made from.
        local: The local run.
        cuts: By id of the split point.
    """
    points = list(_usable(given))
    if not points:
        return
    opened = LeavingChain(given.bundle, given.graph, engine=given.engine, threads=given.threads)
    given.opened.append(opened)
    if local.answer != (opened.exits[-1].output,):
        said = f"the student answers {', '.join(local.answer)}, its exits {opened.exits[-1].output} only"
        given.left_out.update({names.certified(point, given.graph): said for point in points})
        return
    leave_ms = _ways_out(opened, given.golden)
    for point in points:
        yield _here(given, opened, point, leave_ms)
        yield from _handed_over(given, local, opened, point, leave_ms, cuts)


def _usable(given: Given) -> Iterator[OperatingPoint]:
    ids, digest = chain.chain_of(given.bundle.manifest, given.graph)
    for point in given.bundle.manifest.operating_points:
        if point.of != given.graph or not point.in_depth:
            continue
        why = given.why_not(point.empirical_risk, point.risk) or never(point)
        if point.graph_chain != ids or point.chain_sha256 not in ("", digest):
            why = "it was certified for other graphs than those of this bundle"
        if why:
            given.left_out[names.certified(point, given.graph)] = why
        else:
            yield point


def _here(given: Given, opened: LeavingChain, point: OperatingPoint, leave_ms: list[float]) -> Offer:
    mean_ms, sd_ms = early.spent(leave_ms, point.exit_fractions)
    name = names.certified(point, given.graph)
    cost = ActionCost(id=name, kind="exit", head_ms=mean_ms, head_sd_ms=sd_ms, basis="measured")
    return Offer(certified(cost, point), ways.EarlyHere(opened, point, leave_ms), point=point)


def _handed_over(
    given: Given,
    local: Local,
    opened: LeavingChain,
    point: OperatingPoint,
    leave_ms: list[float],
    cuts: Mapping[str, Cut],
) -> Iterator[Offer]:
    for last, item in enumerate(opened.exits[:-1]):
        cut = cuts.get(item.after)
        going = early.going_on(point.exit_fractions, last)
        if cut is None or going in (0.0, 1.0):
            continue  # no tail there, or one of the two plain actions in disguise
        name = names.handed_over(point, given.graph, cut.point)
        if not hands_over(point):
            given.left_out[name] = "its exits are mixed into the full answer, which a tail alone does not give"
            continue
        mean_ms, sd_ms = early.spent(leave_ms[: last + 1], point.exit_fractions)
        row = smallest(given, cut)
        cost = sent(row, name, "exit", head_ms=mean_ms, tail_ms=cut.tail_ms, down=local.down_bytes)
        cost = msgspec.structs.replace(certified(cost, point), head_sd_ms=sd_ms, offload_fraction=going)
        offer = to_tail(given, cut, cost, ways.EarlyThenSend(opened, point, last, leave_ms))
        yield dataclasses.replace(offer, point=point)


def never(point: OperatingPoint) -> str:
    """Why nobody would leave early; empty: some do."""
    return "" if any(share > 0 for share in point.exit_fractions[:-1]) else "no exit is sure enough at this risk"


def _ways_out(opened: LeavingChain, golden: Arrays) -> list[float]:
    """Time until each exit, the full answer last, ms: by thresholds that all or none of the scores reach."""
    count = len(opened.exits)
    found: list[float] = []
    for number in range(count):
        thresholds = [NEVER] * number + [0.0] * (count - number)
        found.append(measured(lambda given=thresholds: opened.infer(golden, given))[0])  # type: ignore[misc]
    return found
