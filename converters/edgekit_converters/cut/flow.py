"""Where a graph may be cut: a pure function over a small description of it.

    image ──► conv ──► relu ──┬──► conv ──► add ──► …      a place: a set of steps ("before") that holds everything
                              └───────────────▲            its steps need; the tensors made before and read after cross

Steps of shapes, masks and inputs alone (no weights, nothing that depends on a step with weights) are copied into the
tail instead of sending what they give; the inputs they read are then inputs of the tail, and are billed.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping, Sequence

MOST_TENSORS = 3
# Two branches are looked at together when they lie at most this many steps apart in the order of execution.
_WINDOW = 128


@dataclasses.dataclass(frozen=True)
class Step:
    """One operator.

    Attributes:
        name: Unique; tells where it stands in the student (`layer1.0.conv1/Conv`).
        inputs: Names of the tensors read, constants left out.
        outputs: Names of the tensors made.
        macs: Multiply-accumulates for one sample of the example's size.
        fixed: It reads weights, or may not be run twice: never copied into a tail.
    """

    name: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    macs: int = 0
    fixed: bool = False


@dataclasses.dataclass(frozen=True)
class Flow:
    """A graph as cutting sees it.

    Attributes:
        steps: In an order in which they can run.
        inputs: Names of the student's inputs.
        outputs: Names of its answers.
        bytes: On the wire for one sample of the example's size, by tensor; int8 where the tensor is a float.
        closed: Tensors that cannot cross, each with the reason.
    """

    steps: tuple[Step, ...]
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    bytes: Mapping[str, int]
    closed: Mapping[str, str] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True)
class Place:
    """A place between two steps.

    Attributes:
        tensors: What crosses, in the order it is made.
        tail_inputs: Inputs that the tail needs again.
        bytes: Of both on the wire, one sample.
        macs_before: Multiply-accumulates before it.
        macs_after: Those after it.
        steps_before: Names of the steps before it.
        name: Of the place; see `names.py`. Empty until it has one.
        ends: Modules of the student that are whole here: other names a person may use.
        reason: Why it is not used; empty when it is.
        illegal: It may not be used at all; else another place is better.
    """

    tensors: tuple[str, ...]
    tail_inputs: tuple[str, ...]
    bytes: int
    macs_before: int
    macs_after: int
    steps_before: frozenset[str]
    name: str = ""
    ends: tuple[str, ...] = ()
    reason: str = ""
    illegal: bool = False


def copied(flow: Flow) -> frozenset[str]:
    """Names of the steps that may run in both head and tail: they depend on inputs alone and cost nothing."""
    light = set(flow.inputs)
    found = set()
    for step in flow.steps:
        if not step.fixed and not step.macs and all(name in light for name in step.inputs):
            light.update(step.outputs)
            found.add(step.name)
    return frozenset(found)


def places(flow: Flow, most: int = MOST_TENSORS) -> tuple[Place, ...]:
    """Every place where at most `most` tensors separate what is before from what is after.

    Complete for one and two tensors; three are found where two steps, or all steps without two, leave three.
    Of the places right behind and right before each step, those that may not be used are returned with the reason.

    Returns:
        In order of depth (MACs before, then number of steps before).
    """
    graph = _Graph(flow)
    found: dict[int, Place] = {}
    for before in graph.candidates():
        if before and before != graph.all and before not in found:
            found[before] = graph.place(before, most)
    main = {graph.ancestors[index] for index in range(graph.count)}
    main |= {graph.all & ~graph.descendants[index] for index in range(graph.count)}
    kept = [place for before, place in found.items() if not place.reason or before in main]
    return tuple(sorted(kept, key=_depth))


class _Graph:
    """The steps that are not copied, as bit sets."""

    def __init__(self, flow: Flow) -> None:
        light = copied(flow)
        self.flow = flow
        self.light = [step for step in flow.steps if step.name in light]
        self.steps = [step for step in flow.steps if step.name not in light]
        self.count = len(self.steps)
        self.all = (1 << self.count) - 1
        maker = {name: index for index, step in enumerate(self.steps) for name in step.outputs}
        self.readers: dict[str, int] = {}
        self.parents = [0] * self.count
        for index, step in enumerate(self.steps):
            for name in step.inputs:
                if name in maker:
                    self.parents[index] |= 1 << maker[name]
                    self.readers[name] = self.readers.get(name, 0) | 1 << index
        self.answers = {name: maker[name] for name in flow.outputs if name in maker}
        self.ancestors = [0] * self.count
        for index in range(self.count):
            self.ancestors[index] = 1 << index | _union(self.ancestors, self.parents[index])
        children = [0] * self.count
        for index in range(self.count):
            for parent in _bits(self.parents[index]):
                children[parent] |= 1 << index
        self.descendants = [0] * self.count
        for index in reversed(range(self.count)):
            self.descendants[index] = 1 << index | _union(self.descendants, children[index])
        self.light_needs = self._light_needs()

    def candidates(self) -> Iterator[int]:
        """Sets of steps that hold everything their steps need."""
        for a in range(self.count):
            yield self.ancestors[a]
            yield self.all & ~self.descendants[a]
            for b in range(a + 1, min(self.count, a + _WINDOW)):
                if not self.ancestors[b] >> a & 1:
                    yield self.ancestors[a] | self.ancestors[b]
                    yield self.all & ~(self.descendants[a] | self.descendants[b])

    def place(self, before: int, most: int) -> Place:
        after = self.all & ~before
        inside = [self.steps[index] for index in _bits(before)]
        tensors = tuple(name for step in inside for name in step.outputs if self.readers.get(name, 0) & after)
        inputs = self._inputs_read(after)
        early = [name for name, index in self.answers.items() if before >> index & 1]
        reason = ""
        shut = [f"{name}: {self.flow.closed[name]}" for name in tensors if name in self.flow.closed]
        if len(tensors) > most:
            reason = f"{len(tensors)} tensors cross here, at most {most} may: {', '.join(tensors)}"
        elif not tensors:
            reason = "nothing crosses here: what is before is not needed after"
        elif shut:
            reason = "; ".join(shut)
        elif early:
            reason = f"the answer {', '.join(early)} is given before"
        macs = sum(step.macs for step in inside)
        return Place(
            tensors=tensors,
            tail_inputs=inputs,
            bytes=sum(self.flow.bytes.get(name, 0) for name in (*tensors, *inputs)),
            macs_before=macs,
            macs_after=sum(step.macs for step in self.steps) - macs,
            steps_before=frozenset(step.name for step in inside),
            reason=reason,
            illegal=bool(reason),
        )

    def _inputs_read(self, after: int) -> tuple[str, ...]:
        # An answer that copied steps make is the tail's to give, too.
        read = set[str]().union(*(self.light_needs.get(n, ()) for n in self.flow.outputs if n not in self.answers))
        for index in _bits(after):
            for name in self.steps[index].inputs:
                read |= self.light_needs.get(name, frozenset())
        return tuple(name for name in self.flow.inputs if name in read)

    def _light_needs(self) -> dict[str, frozenset[str]]:
        """The inputs behind each input and each tensor that copied steps make."""
        needs = {name: frozenset({name}) for name in self.flow.inputs}
        for step in self.light:
            behind = frozenset[str]().union(*(needs[name] for name in step.inputs))
            needs.update(dict.fromkeys(step.outputs, behind))
        return needs


def _bits(mask: int) -> Iterator[int]:
    while mask:
        low = mask & -mask
        yield low.bit_length() - 1
        mask ^= low


def _union(sets: Sequence[int], mask: int) -> int:
    total = 0
    for index in _bits(mask):
        total |= sets[index]
    return total


def undominated(flow: Flow, found: Sequence[Place]) -> tuple[tuple[Place, ...], tuple[Place, ...]]:
    """Drops the places that another one beats.

    Beaten are: a place with more bytes than one that lies no later; a place with the bytes and MACs of another one
    behind which fewer steps are left. Of the places before the first MAC one stays (a split there is little more than
    sending the inputs, so it beats only places where more tensors cross), and one behind the last MAC if what follows
    still makes the answer smaller.

    Args:
        flow: The graph.
        found: What `places` gave for it.

    Returns:
        The legal places that stay, and all others with their reasons, both in order of depth.
    """
    dropped = [place for place in found if place.reason]
    legal = [place for place in found if not place.reason]
    answer = sum(flow.bytes.get(name, 0) for name in flow.outputs)
    begin = min(
        (p for p in legal if not p.macs_before), key=lambda p: (len(p.tensors), -len(p.steps_before)), default=None
    )
    end = [p for p in legal if p.macs_before and not p.macs_after and _sent(flow, p) > answer]
    finish = min(end, key=lambda p: (len(p.tensors), -len(p.steps_before)), default=None)
    pool = [place for place in legal if place.macs_before and place.macs_after]
    kept = []
    for place in legal:
        reason = next((_why(other, place) for other in pool if _beats(other, place)), "")
        if place is begin or place is finish:
            reason = ""
        elif not place.macs_before:
            reason = "nothing is multiplied before it, and there is another such place"
        elif not place.macs_after:
            reason = "nothing is multiplied after it"
        elif begin and _beats(begin, place) and len(begin.tensors) < len(place.tensors):
            reason = _why(begin, place)
        if reason:
            dropped.append(dataclasses.replace(place, reason=reason))
        else:
            kept.append(place)
    return tuple(kept), tuple(sorted(dropped, key=_depth))


def _sent(flow: Flow, place: Place) -> int:
    return sum(flow.bytes.get(name, 0) for name in place.tensors)


def _depth(place: Place) -> tuple[int, int, tuple[str, ...]]:
    return place.macs_before, len(place.steps_before), place.tensors


def _beats(other: Place, place: Place) -> bool:
    if other.bytes < place.bytes:
        return other.macs_before <= place.macs_before
    same = other.bytes == place.bytes and other.macs_before == place.macs_before
    return same and (len(other.steps_before), other.tensors) > (len(place.steps_before), place.tensors)


def _why(better: Place, place: Place) -> str:
    if better.bytes == place.bytes:
        return f"{', '.join(better.tensors)} has the same bytes and MACs and leaves fewer steps"
    return f"{', '.join(better.tensors)} crosses with {better.bytes} bytes and no later"


def nested(found: Sequence[Place]) -> tuple[Place, ...]:
    """Places of which each lies wholly behind the one before: what one chain can be cut at.

    Where two lie beside each other, the one with fewer tensors stays, then the earlier one.
    """
    series: list[Place] = []
    for place in sorted(found, key=lambda p: (len(p.tensors), len(p.steps_before), p.tensors)):
        mine = place.steps_before
        if all(mine < other.steps_before or mine > other.steps_before for other in series):
            series.append(place)
    return tuple(sorted(series, key=lambda p: len(p.steps_before)))


def trunk(flow: Flow, answer: str) -> Flow:
    """The steps that lead to one answer, and no others."""
    wanted = {answer}
    steps = []
    for step in reversed(flow.steps):
        if wanted.intersection(step.outputs):
            steps.append(step)
            wanted.update(step.inputs)
    return dataclasses.replace(flow, steps=tuple(reversed(steps)), outputs=(answer,))
