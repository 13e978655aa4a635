"""Which of the places a student is cut at: what the person asked, the exits, and what was proven. Pure."""

from __future__ import annotations

import dataclasses
import difflib
import re
from collections.abc import Mapping, Sequence

from edgekit_converters.cut.branches import Branch, branches
from edgekit_converters.cut.flow import Flow, Place, nested, places, trunk, undominated
from edgekit_converters.cut.names import like, named
from edgekit_runtime.errors import UsageError

AUTO, ALL, NONE = "auto", "all", "none"
_FEW = re.compile(r"auto:([1-9][0-9]*)")


@dataclasses.dataclass(frozen=True)
class Map:
    """Every place of one graph.

    Attributes:
        kept: Legal and beaten by none, in order of depth.
        rest: All others, each with the reason.
        branches: The early exits on their places.
    """

    kept: tuple[Place, ...]
    rest: tuple[Place, ...]
    branches: tuple[Branch, ...] = ()


def survey(flow: Flow, exits: Sequence[str], known: Sequence[Place] = ()) -> Map:
    """Finds, thins out and names the places of a graph.

    Args:
        flow: The graph.
        exits: Outputs in order of depth, the full answer last; empty for a student without exits.
        known: Named places of another graph of the same student; without them the steps' own names tell.
    """
    main = trunk(flow, exits[-1]) if exits else flow
    found = places(main)
    kept, rest = undominated(main, found)
    kept = named(main, kept)
    rest = named(main, rest, {place.name for place in kept})
    if known:
        kept = like(kept, known)
        taken = {place.name for place in kept}
        rest = like(rest, [place for place in known if place.name not in taken], taken)
    if not exits:
        return Map(kept, rest)
    legal = [place for place in found if not place.reason]
    names = {place.tensors: place for place in (*rest, *kept)}
    found_branches = branches(flow, exits, legal)
    return Map(kept, rest, tuple(dataclasses.replace(b, place=names[b.place.tensors]) for b in found_branches))


def few(wanted: Sequence[str]) -> int | None:
    """How many places are to stand for all (`auto:5`); None where that was not asked."""
    found = _FEW.fullmatch(wanted[0]) if len(wanted) == 1 else None
    return int(found[1]) if found else None


def choose(surveyed: Map, wanted: Sequence[str]) -> tuple[Place, ...]:
    """The places to cut at, in order of depth, each wholly behind the one before.

    Args:
        surveyed: What `survey` gave.
        wanted: `auto`, `all`, `none`, or names of places. `auto:5` is `auto` here: which places stand for all is known
            when the pieces have run. The places of exits are always cut.

    Raises:
        UsageError: A name that no place has (the nearest are named), or places that lie beside each other.
    """
    exits = tuple({branch.place.tensors: branch.place for branch in surveyed.branches}.values())
    if tuple(wanted) in ((), (NONE,)):
        asked: tuple[Place, ...] = ()
    elif tuple(wanted) == (AUTO,) or few(wanted):
        asked = surveyed.kept
    elif tuple(wanted) == (ALL,):
        asked = (*surveyed.kept, *(place for place in surveyed.rest if _is_legal(place)))
    else:
        asked = tuple(_find(surveyed, name) for name in wanted)
        chosen = nested(tuple({place.tensors: place for place in (*exits, *asked)}.values()))
        lost = [place.name for place in asked if place.tensors not in {other.tensors for other in chosen}]
        if lost:
            raise UsageError(
                f"--split-points: {', '.join(lost)} lies beside another one of {','.join(wanted)}, not behind it",
                remedy="cut at one of them",
            )
    first = nested(exits)
    rest = [p for p in asked if p.tensors not in {e.tensors for e in first} and _fits(p, first)]
    return nested_with(first, rest)


def replaced(chosen: Sequence[Place], surveyed: Map, stand_ins: Mapping[str, str]) -> dict[str, str]:
    """The chosen places that another chosen one stands for, by name, each with the reason; those of exits stay."""
    names = {place.name for place in chosen}
    exits = {branch.place.name for branch in surveyed.branches}
    return {
        name: f"{stand_ins[name]} stands for it"
        for name in sorted(names - exits)
        if stand_ins.get(name, name) in names - {name}
    }


def nested_with(first: Sequence[Place], rest: Sequence[Place]) -> tuple[Place, ...]:
    """`nested`, where the places in `first` stay whatever the others are."""
    series = [*first, *(place for place in nested(rest) if _fits(place, first))]
    return tuple(sorted(series, key=lambda place: len(place.steps_before)))


def _fits(place: Place, others: Sequence[Place]) -> bool:
    mine = place.steps_before
    return all(mine < other.steps_before or mine > other.steps_before for other in others)


def _is_legal(place: Place) -> bool:
    # Beaten places are in `rest` with a reason too; what makes a place illegal is told by its own words.
    return place.macs_before > 0 and place.macs_after > 0 and not place.illegal


def _find(surveyed: Map, name: str) -> Place:
    every = [*surveyed.kept, *(place for place in surveyed.rest if not place.illegal)]
    for place in every:
        if name == place.name:
            return place
    for place in every:
        if name in place.ends:
            return place
    blocked = next((place for place in surveyed.rest if name in (place.name, *place.ends)), None)
    if blocked is not None:
        raise UsageError(f"--split-points: {name} cannot be cut: {blocked.reason}", remedy="choose another place")
    known = list(dict.fromkeys([p.name for p in every] + [end for p in every for end in p.ends]))
    near = difflib.get_close_matches(name, known, n=3, cutoff=0.4)
    hint = f"nearest: {', '.join(near)}; " if near else ""
    raise UsageError(
        f"--split-points: there is no split point {name!r}",
        remedy=hint + f"{len(surveyed.kept)} are found: {', '.join(place.name for place in surveyed.kept)}",
    )
