"""The actions of a bundle between this device and a server, with costs measured here as far as they can be.

    offer_inputs    offload[:CODEC]                 the inputs to the server; jpeg@Q and webp@Q: pictures, lossy
    offer_cuts      split:PLACE[:CODEC]             the head here, the tail there; int8-row: lossy
    offer_exits     exit:RISK                       the chain with exits here, thresholds certified for this risk
                    exit:RISK:split:PLACE[:CODEC]   exits up to a place here, the tail there for whoever is not sure
    offer_cascades  cascade:RISK                    a cheaper student first, here, certified for this risk
                    cascade:RISK:offload[:CODEC]    the cheaper student here, the full one there for whoever is not sure

and `local`, the whole student here. An action that may lose accuracy is offered where that was measured and the
policy's `max_risk` allows it; why another is not, is told (`Offered.left_out`). What the server takes is not known
before it has answered: it is assumed to be a few times quicker than this device, and the first replies correct that
(`adaptive.estimators`).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Iterator, Mapping

from edgekit_runtime.adaptive import ActionCost
from edgekit_runtime.adaptive.listed import answer_of
from edgekit_runtime.remote import ways
from edgekit_runtime.remote.offer import FRAMING_BYTES, Closes, Given, Local, Offer, Run
from edgekit_runtime.remote.offer_cascades import cascades
from edgekit_runtime.remote.offer_cuts import cuts, splits
from edgekit_runtime.remote.offer_exits import exits
from edgekit_runtime.remote.offer_inputs import offloads
from edgekit_runtime.remote.weigh import measured


@dataclasses.dataclass(frozen=True)
class Offered:
    """What a session can do.

    Attributes:
        offers: The local one first.
        answer: Names of the outputs that every one of them gives.
        left_out: Action id to the reason why it is not among them.
        opened: Chains that the ways use.
    """

    offers: tuple[Offer, ...]
    answer: tuple[str, ...]
    left_out: Mapping[str, str]
    opened: tuple[Closes, ...]


def offers(given: Given, run: Run) -> Offered:
    """All actions, the local one first.

    Args:
        given: What they are made from.
        run: The local run.
    """
    try:
        ms, sd_ms, outputs = measured(lambda: run(given.golden))
        down_bytes = sum(array.nbytes for array in outputs.values()) + FRAMING_BYTES
        local = Local(run, ms, sd_ms, _answer(given, outputs), down_bytes)
        found = tuple(_each(given, local))
    except BaseException:
        for piece in given.opened:
            piece.close()
        raise
    return Offered(found, local.answer, given.left_out, tuple(given.opened))


def _each(given: Given, local: Local) -> Iterator[Offer]:
    cost = ActionCost(id="local", kind="local", head_ms=local.ms, head_sd_ms=local.sd_ms, basis="measured")
    yield Offer(cost, ways.Here(local.run, local.answer))
    yield from offloads(given, local)
    found = {cut.point.id: cut for cut in cuts(given, local)}
    for cut in found.values():
        yield from splits(given, local, cut)
    yield from exits(given, local, found)
    yield from cascades(given, local)


def _answer(given: Given, outputs: Iterable[str]) -> tuple[str, ...]:
    """The student's answer among the outputs of its run."""
    wanted = answer_of(given.bundle.manifest, given.bundle.graph(given.graph))
    return tuple(name for name in outputs if name in wanted)
