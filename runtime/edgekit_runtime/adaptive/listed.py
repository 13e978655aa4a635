"""Every way in which one graph of a bundle can answer a request: the list that a session and a plan put prices on.

    manifest, graph ─► listed ─┬─ session: costs measured here      (`remote.offers`)
                               └─ plan, simulator: costs predicted  (`edgekit.planner`)

Both leave out what the list says cannot be, and then what the policy's `max_risk` does not allow (`risk`): what is
planned, a session can do, and the other way round. The lossless codec of what is sent is chosen by who prices it, by
its bytes; it is then told at the end of the id.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Iterator

import numpy as np

from edgekit_runtime import cascade, chain, codecs
from edgekit_runtime.adaptive import early, names
from edgekit_runtime.adaptive.actions import Kind
from edgekit_runtime.manifest import Action, Graph, Manifest, OperatingPoint, SplitPoint

OTHER_GRAPHS = "it was certified for other graphs than those of this bundle"


@dataclasses.dataclass(frozen=True)
class Listed:
    """One way to answer, without its cost.

    Attributes:
        id: Without the lossless codec of what is sent.
        kind: As `ActionCost` has it.
        point: Split point whose tensors are sent; None: the inputs, or nothing.
        depth: Its place in order of depth; -1: none.
        certified: Operating point in use; None: nobody leaves early.
        last: Number of the exit after which it hands over; -1: it does not.
        action: A codec that loses something, as measured at conversion; None: every bit is sent.
        why: Why it cannot be; empty: it can.
    """

    id: str
    kind: Kind
    point: SplitPoint | None = None
    depth: int = -1
    certified: OperatingPoint | None = None
    last: int = -1
    action: Action | None = None
    why: str = ""

    @property
    def evidence(self) -> OperatingPoint | Action | None:
        """What tells its loss of accuracy; None: it loses nothing."""
        return self.certified or self.action


def listed(manifest: Manifest, graph: str, first: Collection[tuple[str, str]] = ()) -> tuple[Listed, ...]:
    """All ways, the local one first, those that cannot be among them with the reason.

    Args:
        manifest: Of the bundle.
        graph: Id of the full graph that the action `local` runs.
        first: Bundle id and graph id of each first student at hand.
    """
    full = next(item for item in manifest.graphs if item.id == graph)
    cuts = tuple(_cuts(manifest, full))
    return (
        Listed(id="local", kind="local"),
        Listed(id="offload", kind="offload"),
        *_coded_inputs(manifest, graph),
        *(way for cut in cuts for way in (cut, *_int8(manifest, graph, cut))),
        *_exits(manifest, full, cuts),
        *_cascades(manifest, full, first),
        *_others(manifest, graph),
    )


def answer_of(manifest: Manifest, full: Graph) -> tuple[str, ...]:
    """The outputs that are a student's answer: all but what its early exits say."""
    said_early = {item.output for item in chain.exits_of(manifest, full.id)[:-1]}
    return tuple(tensor.name for tensor in full.outputs if tensor.name not in said_early)


def hands_over(point: OperatingPoint) -> bool:
    """Is the chain's full answer the tail's own, so that a tail elsewhere can give it?"""
    return not point.mixes or not any(point.mixes[-1][:-1])


def _others(manifest: Manifest, graph: str) -> Iterator[Listed]:
    """The other full graphs: a session runs one, and what it sends belongs to that."""
    for item in manifest.graphs:
        if item.role == "full" and item.id != graph:
            cuts = sum(point.of == item.id for point in manifest.split_points)
            certified = sum(point.of == item.id for point in manifest.operating_points)
            counted = ((cuts, "split point"), (certified, "operating point"))
            own = [f"{n} {what}{'s' if n > 1 else ''}" for n, what in counted if n]
            also = f", with its {' and '.join(own)}" if own else ""
            why = f"another graph than the one that runs{also}: --graph, or graph= names it"
            yield Listed(id=f"variant:{item.id}", kind="variant", why=why)


def _coded_inputs(manifest: Manifest, graph: str) -> Iterator[Listed]:
    for row in manifest.actions:
        if row.kind == "offload" and graph in row.graphs:
            yield Listed(id=f"offload:{row.codec}", kind="offload", action=row)


def _cuts(manifest: Manifest, full: Graph) -> Iterator[Listed]:
    graphs, answer = {item.id: item for item in manifest.graphs}, answer_of(manifest, full)
    for depth, point in enumerate(chain.split_points(manifest, full.id)):
        there = {tensor.name for name in point.after for tensor in graphs[name].outputs}
        why = "" if there.issuperset(answer) else "its tail does not give the whole answer"
        yield Listed(id=names.cut(point, full.id), kind="split", point=point, depth=depth, why=why)


def _int8(manifest: Manifest, graph: str, cut: Listed) -> Iterator[Listed]:
    """int8 on a float wire, where conversion has measured what it costs."""
    assert cut.point is not None
    row = next((row for row in manifest.actions if row.id == f"split:{cut.point.id}:{codecs.INT8_ROW}"), None)
    again = [tensor.dtype for tensor in manifest.inputs if tensor.name in cut.point.tail_inputs]
    crossing = [*(tensor.dtype for tensor in cut.point.tensors), *again]
    if row is not None or any(np.dtype(dtype).kind == "f" for dtype in crossing):
        why = cut.why or ("" if row else "what it costs in accuracy was not measured at this place")
        yield dataclasses.replace(cut, id=f"{cut.id}:{codecs.INT8_ROW}", action=row, why=why)


def _exits(manifest: Manifest, full: Graph, cuts: Collection[Listed]) -> Iterator[Listed]:
    """Exits here, and up to each split point with an exit, the tail there for whoever is not sure."""
    ids, digest = chain.chain_of(manifest, full.id)
    answer, exits = answer_of(manifest, full), chain.exits_of(manifest, full.id)
    open_at = {cut.point.id: cut for cut in cuts if cut.point is not None and not cut.why}
    for point in manifest.operating_points:
        # A stream that ends early saves steps, not a part of a request: requests are what is priced.
        if point.of != full.id or not point.in_depth:
            continue
        why = _never(point)
        if point.graph_chain != ids or point.chain_sha256 not in ("", digest):
            why = OTHER_GRAPHS
        elif not why and exits and answer != (exits[-1].output,):
            why = f"the student answers {', '.join(answer)}, its exits {exits[-1].output} only"
        yield Listed(id=names.certified(point, full.id), kind="exit", certified=point, why=why)
        for last, item in enumerate(exits[:-1] if not why else ()):
            cut = open_at.get(item.after)
            if cut is not None and early.going_on(point.exit_fractions, last) not in (0.0, 1.0):
                yield _handed_over(full.id, point, last, cut)  # else no tail there, or a plain action in disguise


def _handed_over(graph: str, point: OperatingPoint, last: int, cut: Listed) -> Listed:
    mixed = "its exits are mixed into the full answer, which a tail alone does not give"
    return Listed(
        id=names.handed_over(point, graph, cut.point),
        kind="exit",
        point=cut.point,
        depth=cut.depth,
        certified=point,
        last=last,
        why="" if hands_over(point) else mixed,
    )


def _cascades(manifest: Manifest, full: Graph, first: Collection[tuple[str, str]]) -> Iterator[Listed]:
    """A cheaper student first, here; the full one here, or on the server, for whoever is not sure."""
    points = cascade.cascades_of(manifest, full.id)
    named = len({point.first.name for point in points if point.first is not None}) > 1
    for point in points:
        why = _never(point) or _unfit(manifest, full, point, first)
        yield Listed(id=names.certified(point, full.id, named=named), kind="cascade", certified=point, why=why)
        if not why and early.going_on(point.exit_fractions, 0) > 0.0:  # else the plain cascade in disguise
            name = names.handed_over(point, full.id, named=named)
            yield Listed(id=name, kind="cascade", certified=point, last=0)


def _unfit(manifest: Manifest, full: Graph, point: OperatingPoint, first: Collection[tuple[str, str]]) -> str:
    """Why a cascade cannot be carried out; empty: it can."""
    own, answer = point.first, answer_of(manifest, full)
    assert own is not None
    if point.chain_sha256 != cascade.digest(own, full.sha256):
        return OTHER_GRAPHS
    if (own.bundle_id, own.graph) not in first:
        told = f"its first student was not named: --first PATH, or first=PATH of {own.name}, {own.bundle_id[:16]}…"
        return told if not first else f"{told}; another one was"
    if answer != (point.output,):
        return f"the student answers {', '.join(answer)}, the cascade {point.output} only"
    return ""


def _never(point: OperatingPoint) -> str:
    """Why nobody would leave early; empty: some do."""
    return "" if any(share > 0 for share in point.exit_fractions[:-1]) else "no exit is sure enough at this risk"
