"""Pass: one call of a subgraph makes four steps, where there are so many calls that the file gets smaller.

    before: T times: h, c = IF(true, row_t, h, c), both branches the subgraph of a step
    after:  T/4 times: h_1, h_2, h_3, h_4, c = IF(true, h, c, row_1, ... row_4), both branches the step four times over
            (what is left over stays single)

A call in the file is an operator, its operands and a tensor for each of them: the 996 calls of a ladder up to 500 steps
are 72 KB. The four steps stand once, for all signatures, and read the same constants. A call costs time as well; four
packed copies of the weights still stay in the cache, which those of all steps would not. No answer changes.
"""

from __future__ import annotations

import copy
import dataclasses
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any

from edgekit_converters.tflite.flatbuffer import (
    Model,
    add_tensor,
    dtype_of,
    is_constant,
    opcode_index,
    operators,
    schema,
    shape_of,
)

AT_ONCE = 4
# Bytes in the file: of a call with its operands and results, and of an operator of the step.
CALL, OPERATOR = 72, 60


@dataclasses.dataclass(frozen=True)
class _Chain:
    """Calls of one subgraph, one behind the other.

    Attributes:
        subgraph: That makes the calls.
        calls: The IF operators, in order; operand 0 is the condition.
        body: Index of the subgraph called.
        carries: Operand -> the result of the call before that it takes.
        rows: Operands that are another tensor in each call.
        kept: Results that something outside of the chain reads.
    """

    subgraph: Any
    calls: Sequence[Any]
    body: int
    carries: dict[int, int]
    rows: tuple[int, ...]
    kept: tuple[int, ...]

    @property
    def kind(self) -> object:
        """Equal for chains whose four steps are the same."""
        return self.body, tuple(self.carries.items()), self.rows, self.kept

    def results(self, group: Sequence[Any]) -> list[int]:
        """Tensors that leave a group of calls: what is read outside, and what else the last call gives on."""
        kept = [int(call.outputs[place]) for call in group for place in self.kept]
        return [*kept, *(int(index) for place, index in enumerate(group[-1].outputs) if place not in self.kept)]


def steps_by_four(model: Model) -> int:
    """Puts the calls together in place and returns how many calls of four there are."""
    chains = [chain for subgraph in model.subgraphs for chain in _chains(model, subgraph)]
    calls: Counter[object] = Counter()
    for chain in chains:
        calls[chain.kind] += len(chain.calls)
    bodies: dict[object, int] = {}
    count = 0
    for chain in chains:
        saved = calls[chain.kind] * (1 - 1 / AT_ONCE) * CALL
        if saved <= AT_ONCE * len(model.subgraphs[chain.body].operators) * OPERATOR:
            continue
        if chain.kind not in bodies:
            bodies[chain.kind] = _four(model, chain)
        count += _called(model, chain, bodies[chain.kind])
    return count


def _chains(model: Model, subgraph: Any) -> Iterator[_Chain]:
    runs: list[tuple[int, list[Any]]] = []
    before, made = -1, set[int]()
    for kind, operator in operators(model, subgraph):
        body = _body_of(kind, operator)
        if body >= 0 and body == before and made & set(map(int, operator.inputs)):
            runs[-1][1].append(operator)
        elif body >= 0:
            runs.append((body, [operator]))
        before, made = body, set(map(int, operator.outputs))
    for body, calls in runs:
        if len(calls) >= 2 * AT_ONCE and (chain := _chain(subgraph, body, calls)) is not None:
            yield chain


def _body_of(kind: str, operator: Any) -> int:
    """The subgraph that an operator runs whatever its condition; -1 where it has none."""
    if kind != "IF" or operator.builtinOptions.thenSubgraphIndex != operator.builtinOptions.elseSubgraphIndex:
        return -1
    return int(operator.builtinOptions.thenSubgraphIndex)


def _chain(subgraph: Any, body: int, calls: Sequence[Any]) -> _Chain | None:
    """How the calls hang together; None where they do not all do so in the same way."""
    inputs = [[int(index) for index in call.inputs] for call in calls]
    outputs = [[int(index) for index in call.outputs] for call in calls]
    carries = {place: outputs[0].index(index) for place, index in enumerate(inputs[1]) if index in outputs[0]}
    same = [place for place, index in enumerate(inputs[1]) if index == inputs[0][place]]
    rows = tuple(place for place in range(len(inputs[1])) if place not in carries and place not in same)
    inside = {index for results in outputs for index in results}
    for number in range(1, len(calls)):
        here, before = inputs[number], outputs[number - 1]
        alike = all(here[place] == before[result] for place, result in carries.items())
        alike &= all(here[place] == inputs[0][place] for place in same)
        if not alike or any(here[place] in inside for place in rows):
            return None
    readers = Counter(int(index) for operator in subgraph.operators for index in operator.inputs)
    readers.update(map(int, subgraph.outputs))
    readers.subtract(index for read in inputs for index in read)
    kept = tuple(
        place for place in range(len(outputs[0])) if any(readers[results[place]] > 0 for results in outputs[:-1])
    )
    return _Chain(subgraph, calls, body, carries, rows, kept)


def _called(model: Model, chain: _Chain, body: int) -> int:
    """Replaces the calls, four by four; returns how many calls there are now."""
    replaced: dict[int, Any] = {}
    starts = range(0, len(chain.calls) - AT_ONCE + 1, AT_ONCE)
    for group in (chain.calls[at : at + AT_ONCE] for at in starts):
        made = copy.copy(group[0])
        made.builtinOptions = schema().IfOptionsT()
        made.builtinOptions.thenSubgraphIndex = made.builtinOptions.elseSubgraphIndex = body
        made.opcodeIndex = opcode_index(model, "IF")
        whole = [int(index) for place, index in enumerate(group[0].inputs) if place not in chain.rows]
        made.inputs = [*whole, *(int(call.inputs[place]) for call in group for place in chain.rows)]
        made.outputs = chain.results(group)
        replaced[id(group[0])] = made
        replaced.update((id(call), None) for call in group[1:])
    kept = (replaced.get(id(operator), operator) for operator in chain.subgraph.operators)
    chain.subgraph.operators = [operator for operator in kept if operator is not None]
    return len(starts)


def _four(model: Model, chain: _Chain) -> int:
    """Index of the subgraph of four steps: (operands that are no row, rows of the first step, of the second, ...)."""
    calls, step = chain.calls[:AT_ONCE], model.subgraphs[chain.body]
    four = schema().SubGraphT()
    four.name, four.tensors, four.operators = step.name, [], []

    def taken(index: int) -> int:
        like = chain.subgraph.tensors[index]
        made = add_tensor(model, four, "", shape_of(like), dtype_of(like))
        four.tensors[made].quantization = like.quantization
        return made

    now = {place: taken(int(i)) for place, i in enumerate(calls[0].inputs) if place and place not in chain.rows}
    rows = [{place: taken(int(call.inputs[place])) for place in chain.rows} for call in calls]
    four.inputs = [*now.values(), *(index for row in rows for index in row.values())]
    constants: dict[int, int] = {-1: -1}
    made: dict[int, int] = {}
    for call, row in zip(calls, rows, strict=True):
        given = [row[place] if place in row else now[place] for place in range(1, len(call.inputs))]
        results = _copied(model, step, four, given, constants)
        made.update(zip(map(int, call.outputs), results, strict=True))
        now |= {place: results[result] for place, result in chain.carries.items()}
    four.outputs = [made[index] for index in chain.results(calls)]
    model.subgraphs.append(four)
    return len(model.subgraphs) - 1


def _copied(model: Model, step: Any, four: Any, given: Sequence[int], constants: dict[int, int]) -> list[int]:
    """Appends the operators of a step on the tensors given; `constants` are shared by the four. Returns its results."""
    inner = dict(zip(map(int, step.inputs), given, strict=True)) | constants

    def tensor(index: int) -> int:
        if index not in inner:
            four.tensors.append(copy.copy(step.tensors[index]))
            inner[index] = len(four.tensors) - 1
            if is_constant(model, step.tensors[index]):
                constants[index] = inner[index]
        return inner[index]

    for operator in step.operators:
        again = copy.copy(operator)
        again.inputs = [tensor(int(index)) for index in operator.inputs]
        again.outputs = [tensor(int(index)) for index in operator.outputs]
        four.operators.append(again)
    return [tensor(int(index)) for index in step.outputs]
