"""Exits: which place an early answer stands on. Pure.

    image ──► s ──► s ──┬──► s ──► s ──┬──► s ──► the full answer    trunk: all that leads to the full answer
                        └─► head ─► A  └─► head ─► B                 branch: what leads to an exit and is no trunk

The exit stands on the earliest place where everything that its branch reads of the trunk crosses, or is made of what
crosses without multiplying (a padded copy of it).
"""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Mapping, Sequence, Set

from edgekit_converters.cut.flow import Flow, Place, Step, copied, trunk
from edgekit_runtime.errors import UsageError


@dataclasses.dataclass(frozen=True)
class Branch:
    """An exit on its place.

    Attributes:
        output: Name of the student's output.
        place: Where it branches off the trunk.
        macs: Multiply-accumulates of the branch alone.
    """

    output: str
    place: Place
    macs: int


def branches(flow: Flow, exits: Sequence[str], legal: Sequence[Place]) -> tuple[Branch, ...]:
    """The early exits of a student on their places.

    Args:
        flow: The whole graph.
        exits: Outputs in order of depth; the last is the full answer.
        legal: Legal places of the trunk.

    Raises:
        UsageError: Exits that are not in order of depth, or one that depends on no split point.
    """
    main = trunk(flow, exits[-1])
    light = copied(flow)
    on_trunk = {step.name for step in main.steps}
    crossing = {name for step in main.steps if step.name not in light for name in step.outputs}
    found: list[Branch] = []
    for output in exits[:-1]:
        steps = trunk(flow, output).steps
        own = [step for step in steps if step.name not in on_trunk and step.name not in light]
        read = {name for step in own for name in step.inputs if name in crossing}
        read |= {output} & crossing
        if not read:
            raise UsageError(
                f"the exit {output!r} depends on no split point: it is computed from the inputs alone",
                remedy="name outputs that branch off the way to the last one, or make it a student of its own",
            )
        free = {name: step for step in main.steps if not (step.macs or step.fixed) for name in step.outputs}
        places = [place for place in legal if all(_follows(name, place, free, flow) for name in read)]
        if not places:
            raise UsageError(
                f"the exit {output!r} reads {', '.join(sorted(read))}, which cross together at no split point",
                remedy="let an exit branch off one tensor of the student",
            )
        place = min(places, key=lambda p: _preference(p, read))
        found.append(Branch(output, place, sum(step.macs for step in own)))
    _in_order(found, exits)
    return tuple(found)


def _preference(place: Place, read: Set[str]) -> tuple[int, bool, int, int, tuple[str, ...]]:
    """Few tensors; what the branch reads crosses itself; early. Where it is made of what crosses: with as little work
    before it as can be (an exit in front of a rare cluster must not run the cluster), and then as late as can be.
    """
    direct = read <= set(place.tensors)
    depth = len(place.steps_before)
    return len(place.tensors), not direct, place.macs_before, depth if direct else -depth, place.tensors


def _follows(name: str, place: Place, free: Mapping[str, Step], flow: Flow) -> bool:
    """Whether the branch can have a tensor at a place: it crosses there, or costs nothing to make of what crosses."""
    if name in place.tensors or name in flow.inputs:
        return True
    return name in free and all(_follows(given, place, free, flow) for given in free[name].inputs)


def _in_order(found: Sequence[Branch], exits: Sequence[str]) -> None:
    for branch, after in itertools.pairwise(found):
        if not branch.place.steps_before < after.place.steps_before:
            raise _disorder(exits, f"{after.output} does not lie deeper than {branch.output}")
    for branch in found:
        if branch.macs > branch.place.macs_after:
            raise _disorder(
                exits, f"from where {branch.output} branches off, the last one, {exits[-1]}, takes less work than it"
            )


def _disorder(exits: Sequence[str], why: str) -> UsageError:
    return UsageError(
        f"--exits {','.join(exits)} is not in order of depth: {why}",
        remedy="name the outputs from the shallowest to the full answer",
    )
