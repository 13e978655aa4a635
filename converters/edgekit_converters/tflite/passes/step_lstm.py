"""Pass: a small subgraph, called once a time step, in the place of the markers that `torch_passes.mark_lstm` left.

    before: STABLEHLO_COMPOSITE edgekit.lstm (x [B,T,F], w_ih [4H,F], w_hh [4H,H], b_ih [4H], b_hh [4H])
    after:  FULLY_CONNECTED(x, w_ih, b) [B,T,4H] -> UNPACK: T rows
            T times: h, c = IF(true, row, h, c) -> PACK [B,T,H]
    where both branches of IF are one subgraph, shared by all steps and all signatures:
            z = row + FULLY_CONNECTED(h, w_hh);  i, f, s, o = SPLIT(LOGISTIC(z));  g = 2 * s - 1
            c = f * c + i * g;  h = o * TANH(c)

All of the step runs in XNNPACK; TFLite's own sequence LSTM is portable code. IF is TFLite's way to call a subgraph that
every runtime knows. Written out instead, each step would carry a packed copy of the weights of its own, which fall out
of the cache, and a ladder would hold thousands of operators. What a step costs is its operators more than its
arithmetic, hence:

- The rows of g in weights and biases are doubled, as tanh(a) = 2 * sigmoid(2a) - 1: one LOGISTIC serves all gates.
- Two LSTMs that do not wait for each other (the directions of a layer) go hand in hand, as rows of one tensor, and
  share all but the two products with their weights.

Nothing is kept from one call to the next. Inner tensors have no name.
"""

from __future__ import annotations

import dataclasses
import hashlib
import heapq
import re
from collections.abc import Sequence
from typing import Any

import numpy as np

from edgekit_converters.tflite.flatbuffer import (
    Model,
    add_constant,
    add_tensor,
    data_of,
    opcode_index,
    operators,
    schema,
    shape_of,
    text,
)
from edgekit_converters.tflite.passes.names import tensor_key
from edgekit_converters.tflite.torch_passes.mark_lstm import COMPOSITE

MARKER = "STABLEHLO_COMPOSITE"
ABREAST = 2  # LSTMs that share operators; XNNPACK cuts a tensor in at most four
_PRODUCT = re.compile(r"(?:^|/)LSTM(?::\d+)?\.(?:input|state)$")


def is_recurrent_product(name: str) -> bool:
    """Whether an operator of this name multiplies the input or the state of an LSTM that this pass wrote."""
    return _PRODUCT.search(name) is not None


def step_lstm(model: Model) -> int:
    """Replaces all markers in place and returns how many; tensors have the names of `passes.names` already."""
    signatures = [text(signature.signatureKey) for signature in model.signatureDefs or []]
    bodies: dict[bytes, int] = {}
    count = 0
    for subgraph in list(model.subgraphs):
        lstms = _marked(model, subgraph, signatures)
        count += len(lstms)
        if lstms:
            replaced = {id(lstm.marker) for lstm in lstms}
            kept = [operator for operator in subgraph.operators if id(operator) not in replaced]
            for group in _groups(subgraph, lstms):
                kept += _sequence(model, subgraph, group, bodies)
            subgraph.operators = _in_order(kept)
    return count


@dataclasses.dataclass(frozen=True)
class _Lstm:
    """One marked LSTM: its marker, sizes, tensors, and its weights with the rows of the cell gate doubled."""

    marker: Any
    prefix: str  # the signature's
    name: str
    batch: int
    steps: int
    units: int
    data: int
    answer: int
    w_ih: np.ndarray
    w_hh: np.ndarray
    bias: np.ndarray


def _marked(model: Model, subgraph: Any, signatures: Sequence[str]) -> list[_Lstm]:
    found = []
    for kind, operator in operators(model, subgraph):
        if kind != MARKER or text(operator.builtinOptions2.name) != COMPOSITE:
            continue
        data, *constants = (int(index) for index in operator.inputs)
        answer = int(operator.outputs[0])
        w_ih, w_hh, *biases = (_known(data_of(model, subgraph.tensors[index])) for index in constants)
        batch, steps, units = shape_of(subgraph.tensors[answer])
        double = np.repeat(np.array([1, 1, 2, 1], np.float32), units)  # torch: input, forget, cell, output
        bias = sum(biases, np.zeros(4 * units, np.float32)) * double
        full = text(subgraph.tensors[answer].name)
        key = tensor_key(full, signatures)
        weights = (w_ih * double[:, None], w_hh * double[:, None], bias)
        found.append(_Lstm(operator, full.removesuffix(key), _name(key), batch, steps, units, data, answer, *weights))
    return found


def _known(values: np.ndarray | None) -> np.ndarray:
    if values is None:
        raise ValueError("an LSTM's weights are computed at run time")
    return values


def _name(marker: str) -> str:
    """`layers/0/STABLEHLO_COMPOSITE:2` -> `layers/0/LSTM:2`; an output of the student keeps its own name in front."""
    return marker.replace(MARKER, "LSTM") if MARKER in marker else f"{marker}/LSTM"


def _groups(subgraph: Any, lstms: Sequence[_Lstm]) -> list[list[_Lstm]]:
    """Puts LSTMs of equal size of which none waits for the other together, at most `ABREAST`."""
    waits_for: dict[int, frozenset[int]] = {}  # tensor -> answers it depends on
    answers = {lstm.answer for lstm in lstms}
    for operator in subgraph.operators:
        before = frozenset().union(*(waits_for.get(int(index), frozenset()) for index in operator.inputs))
        for index in map(int, operator.outputs):
            waits_for[index] = before | ({index} & answers)
    groups: list[list[_Lstm]] = []
    for lstm in lstms:
        for group in groups:
            first = group[0]
            equal = (first.batch, first.steps, first.units) == (lstm.batch, lstm.steps, lstm.units)
            if equal and len(group) < ABREAST and not waits_for[lstm.answer] & {member.answer for member in group}:
                group.append(lstm)
                break
        else:
            groups.append([lstm])
    return groups


def _in_order(unordered: Sequence[Any]) -> list[Any]:
    """Operators such that each stands behind those it reads from, otherwise in the order given."""
    maker = {int(index): place for place, operator in enumerate(unordered) for index in operator.outputs}
    waiting: list[set[int]] = []
    readers: dict[int, list[int]] = {}
    for place, operator in enumerate(unordered):
        waiting.append({maker[int(index)] for index in operator.inputs if int(index) in maker})
        for source in waiting[-1]:
            readers.setdefault(source, []).append(place)
    ready = [place for place, sources in enumerate(waiting) if not sources]
    ordered = []
    while ready:
        place = heapq.heappop(ready)
        ordered.append(unordered[place])
        for reader in readers.get(place, []):
            waiting[reader].discard(place)
            if not waiting[reader]:
                heapq.heappush(ready, reader)
    return ordered


def _sequence(model: Model, subgraph: Any, group: Sequence[_Lstm], bodies: dict[bytes, int]) -> list[Any]:
    """The operators of a group in a signature; `bodies` remembers the subgraph of a step over all signatures."""
    build, size = _Builder(model, subgraph), group[0]
    lines, wide = size.batch * len(group), 4 * size.units
    projected = []
    for lstm in group:
        operands = [lstm.data, build.constant(lstm.w_ih), build.constant(lstm.bias)]
        projected.append(build.product(operands, (lstm.batch, lstm.steps, wide), f"{lstm.prefix}{lstm.name}.input"))
    rows = build.operator(
        "UNPACK", [build.join(projected, (lines, size.steps, wide))], [(lines, wide)] * size.steps,
        "UnpackOptions", axis=1, num=size.steps,
    )  # fmt: skip
    body = _body(model, group, bodies)
    always = build.constant(np.ones((), np.bool_))
    hidden = cell = build.constant(np.zeros((lines, size.units), np.float32))
    states = []
    for row in rows:
        hidden, cell = build.operator(
            "IF", [always, row, hidden, cell], [(lines, size.units)] * 2,
            "IfOptions", thenSubgraphIndex=body, elseSubgraphIndex=body,
        )  # fmt: skip
        states.append(hidden)
    (packed,) = build.operator(
        "PACK", states, [(lines, size.steps, size.units)], "PackOptions", axis=1, valuesCount=size.steps
    )
    build.cut(packed, len(group), (size.batch, size.steps, size.units))
    build.operators[-1].outputs = [lstm.answer for lstm in group]
    return build.operators


def _body(model: Model, group: Sequence[_Lstm], bodies: dict[bytes, int]) -> int:
    """Index of the subgraph of one step: (row [lines,4H], h [lines,H], c [lines,H]) -> (h, c)."""
    size = group[0]
    lines, wide = size.batch * len(group), 4 * size.units
    whole = (lines, size.units)
    digest = hashlib.sha256(repr([(size.batch, lstm.name) for lstm in group]).encode())
    for lstm in group:
        digest.update(lstm.w_hh.tobytes())
    if digest.digest() in bodies:
        return bodies[digest.digest()]
    subgraph = schema().SubGraphT()
    subgraph.name, subgraph.tensors = group[0].name.encode(), []
    build = _Builder(model, subgraph)
    subgraph.inputs = [add_tensor(model, subgraph, "", shape) for shape in ((lines, wide), whole, whole)]
    row, hidden, cell = subgraph.inputs
    states = build.cut(hidden, len(group), (size.batch, size.units))
    pushed = [
        build.product([state, build.constant(lstm.w_hh), -1], (size.batch, wide), f"{lstm.name}.state")
        for lstm, state in zip(group, states, strict=True)
    ]
    total = build.elementwise("ADD", [row, build.join(pushed, (lines, wide))], (lines, wide))
    (gates,) = build.operator("LOGISTIC", [total], [(lines, wide)])
    into, forget, half, out = build.split(gates, 1, 4, whole)
    doubled = build.elementwise("MUL", [half, build.constant(np.full(1, 2, np.float32))], whole)
    candidate = build.elementwise("SUB", [doubled, build.constant(np.ones(1, np.float32))], whole)
    kept = build.elementwise("MUL", [forget, cell], whole)
    added = build.elementwise("MUL", [into, candidate], whole)
    cell = build.elementwise("ADD", [kept, added], whole)
    (squashed,) = build.operator("TANH", [cell], [whole])
    hidden = build.elementwise("MUL", [out, squashed], whole)
    subgraph.operators, subgraph.outputs = build.operators, [hidden, cell]
    model.subgraphs.append(subgraph)
    bodies[digest.digest()] = len(model.subgraphs) - 1
    return bodies[digest.digest()]


class _Builder:
    """Adds constants and operators to a subgraph."""

    def __init__(self, model: Model, subgraph: Any) -> None:
        self.model, self.subgraph = model, subgraph
        self.operators: list[Any] = []

    def constant(self, values: np.ndarray) -> int:
        return add_constant(self.model, self.subgraph, "", values)

    def product(self, operands: Sequence[int], shape: tuple[int, ...], name: str) -> int:
        (output,) = self.operator(
            "FULLY_CONNECTED", operands, [shape], "FullyConnectedOptions", keepNumDims=len(shape) > 2
        )
        self.subgraph.tensors[output].name = name.encode()
        return output

    def elementwise(self, kind: str, inputs: Sequence[int], shape: tuple[int, ...]) -> int:
        (output,) = self.operator(kind, inputs, [shape], f"{kind.title()}Options")
        return output

    def join(self, parts: Sequence[int], shape: tuple[int, ...]) -> int:
        """Parts one below the other, as a tensor of this shape."""
        if len(parts) == 1:
            return parts[0]
        (output,) = self.operator("CONCATENATION", parts, [shape], "ConcatenationOptions", axis=0)
        return output

    def cut(self, whole: int, count: int, shape: tuple[int, ...]) -> list[int]:
        """The reverse of `join`: parts of this shape."""
        return [whole] if count == 1 else self.split(whole, 0, count, shape)

    def split(self, whole: int, axis: int, count: int, shape: tuple[int, ...]) -> list[int]:
        inputs = [self.constant(np.array(axis, np.int32)), whole]
        return self.operator("SPLIT", inputs, [shape] * count, "SplitOptions", numSplits=count)

    def operator(
        self, kind: str, inputs: Sequence[int], shapes: Sequence[tuple[int, ...]], options: str = "", **fields: Any
    ) -> list[int]:
        """Adds an operator with outputs of these shapes and returns the outputs."""
        operator = schema().OperatorT()
        operator.opcodeIndex = opcode_index(self.model, kind)
        operator.inputs = list(inputs)
        operator.outputs = [add_tensor(self.model, self.subgraph, "", shape) for shape in shapes]
        if options:
            operator.builtinOptionsType = getattr(schema().BuiltinOptions, options)
            operator.builtinOptions = getattr(schema(), f"{options}T")()
            for field, value in fields.items():
                setattr(operator.builtinOptions, field, value)
        self.operators.append(operator)
        return list(operator.outputs)
