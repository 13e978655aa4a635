"""The operators of a TFLite subgraph as the units that cutting sees: the same ones in every rung of a ladder.

    rung t16:    x ──► UNPACK ─► IF ─► IF ─► … 16 of them ─► PACK ──► y        before: as many operators as words
    rung t32:    x ──► UNPACK ─► IF ─► IF ─► … 32 of them ─► PACK ──► y
    every rung:  x ──► LOOP ──► y                                              after: one unit, whatever the length

A recurrent layer is written as one call of its step after the other (`passes.step_recurrent`); nothing is cut inside of
it. Every second row of a tensor is taken by `STRIDED_SLICE`, or where the length is even by `RESHAPE ─► SLICE ─►
RESHAPE` (`passes.every_nth`): both are one unit. Units come in the order in which a walk from the outputs meets them,
so that two rungs whose files list the same operators in another order agree as well.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from edgekit_converters.tflite.flatbuffer import Model, operators
from edgekit_runtime.errors import Refused

LOOP, EVERY_OTHER = "LOOP", "STRIDED_SLICE"


@dataclasses.dataclass(frozen=True)
class Unit:
    """What is never cut inside of.

    Attributes:
        kind: Of the operator; `LOOP` for a recurrent layer's steps with what takes their input apart and puts their
            answers together, `STRIDED_SLICE` for both forms of one.
        operators: In order of execution.
        inputs: Indexes of the tensors it reads and does not make, constants among them.
        outputs: Indexes of the tensors it makes; of a loop those that are read behind it.
    """

    kind: str
    operators: tuple[Any, ...]
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]


def units(model: Model, subgraph: Any) -> list[Unit]:
    """The units that lead to a subgraph's outputs, in an order in which they can run.

    Raises:
        Refused: Something between two steps of a loop goes around the loop's own state.
    """
    listed = list(operators(model, subgraph))
    readers = _count([i for _, operator in listed for i in _given(operator)] + [int(i) for i in subgraph.outputs])
    several = [(LOOP, loop) for loop in _loops(listed)] + [(EVERY_OTHER, part) for part in _slices(listed, readers)]
    inside = {number for _, members in several for number in members}
    alone = [(kind, {number}) for number, (kind, _) in enumerate(listed) if number not in inside]
    made = [_unit(kind, [listed[n][1] for n in sorted(members)], readers) for kind, members in (*alone, *several)]
    return _in_order(made, [int(index) for index in subgraph.outputs])


def _given(operator: Any) -> list[int]:
    return [int(index) for index in operator.inputs if int(index) >= 0]


def _made(operator: Any) -> list[int]:
    return [int(index) for index in operator.outputs]


def _count(indexes: Iterable[int]) -> dict[int, int]:
    found: dict[int, int] = {}
    for index in indexes:
        found[index] = found.get(index, 0) + 1
    return found


def _loops(listed: Sequence[tuple[str, Any]]) -> list[set[int]]:
    """Numbers of the operators of each loop: calls of one step that hand each other the state, UNPACK and PACK."""
    calls = {
        number: int(operator.builtinOptions.thenSubgraphIndex)
        for number, (kind, operator) in enumerate(listed)
        if kind == "IF" and operator.builtinOptions.thenSubgraphIndex == operator.builtinOptions.elseSubgraphIndex
    }
    makers = {index: number for number, (_, operator) in enumerate(listed) for index in _made(operator)}
    loop_of: dict[int, set[int]] = {}
    for number, body in calls.items():  # in order of execution: the call before is known already
        before = [makers.get(index, -1) for index in _given(listed[number][1])]
        mine = {number}
        for other in before:
            if calls.get(other, -1) == body:
                mine |= loop_of[other]
        for member in mine:
            loop_of[member] = mine
    loops = [set(loop) for loop in {id(loop): loop for loop in loop_of.values()}.values()]
    for loop in loops:
        loop |= _around(listed, loop, makers)
    return loops


def _around(listed: Sequence[tuple[str, Any]], loop: set[int], makers: Mapping[int, int]) -> set[int]:
    """UNPACKs that only the loop reads, and PACKs of nothing but its answers."""
    taken = {index for number in loop for index in _given(listed[number][1])}
    elsewhere = {
        index for number, (_, operator) in enumerate(listed) if number not in loop for index in _given(operator)
    }
    found = set()
    for number, (kind, operator) in enumerate(listed):
        if kind == "UNPACK" and taken & set(_made(operator)) and not elsewhere & set(_made(operator)):
            found.add(number)
        if kind == "PACK" and all(makers.get(index, -1) in loop for index in _given(operator)):
            found.add(number)
    return found


def _slices(listed: Sequence[tuple[str, Any]], readers: Mapping[int, int]) -> list[set[int]]:
    """RESHAPE, SLICE and RESHAPE of which nobody else reads what they hand each other."""
    makers = {index: number for number, (_, operator) in enumerate(listed) for index in _made(operator)}
    found = []
    for number, (kind, operator) in enumerate(listed):
        if kind != "RESHAPE":
            continue
        middle = makers.get(_given(operator)[0], -1)
        if middle < 0 or listed[middle][0] != "SLICE" or readers[_given(operator)[0]] > 1:
            continue
        first = makers.get(_given(listed[middle][1])[0], -1)
        if first >= 0 and listed[first][0] == "RESHAPE" and readers[_given(listed[middle][1])[0]] == 1:
            found.append({first, middle, number})
    return [part for at, part in enumerate(found) if not any(part & before for before in found[:at])]


def _unit(kind: str, own: Sequence[Any], readers: Mapping[int, int]) -> Unit:
    """One unit; of several operators only what is read by others is an output."""
    made = [index for operator in own for index in _made(operator)]
    taken = [index for operator in own for index in _given(operator)]
    inputs = tuple(dict.fromkeys(index for index in taken if index not in set(made)))
    if len(own) == 1:
        return Unit(kind, tuple(own), inputs, tuple(made))
    inner = _count(taken)
    return Unit(kind, tuple(own), inputs, tuple(i for i in made if readers.get(i, 0) > inner.get(i, 0)))


def _in_order(made: Sequence[Unit], outputs: Sequence[int]) -> list[Unit]:
    """Depth first from the outputs, a unit behind all that it reads."""
    maker = {index: number for number, unit in enumerate(made) for index in unit.outputs}
    order: list[Unit] = []
    begun: set[int] = set()
    done: set[int] = set()
    stack = [maker[index] for index in reversed(outputs) if index in maker]
    while stack:
        number = stack[-1]
        if number in done:
            stack.pop()
            continue
        waits = [maker[index] for index in made[number].inputs if index in maker and maker[index] not in done]
        if number in begun and waits:
            raise Refused("the steps of a loop are read by what they wait for", remedy="cut the ONNX graph")
        begun.add(number)
        if waits:
            stack += reversed(waits)
        else:
            stack.pop()
            done.add(number)
            order.append(made[number])
    return order
