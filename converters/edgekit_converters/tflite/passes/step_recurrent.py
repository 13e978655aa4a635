"""Pass: a small subgraph, called once a time step, in the place of the markers that `torch_passes.mark_recurrent` left.

    before: STABLEHLO_COMPOSITE edgekit.lstm (x [B,T,F], [h, c [B,H],] w_ih [4H,F], w_hh [4H,H], b_ih [4H], b_hh [4H])
    after:  FULLY_CONNECTED(x, w_ih, b) [B,T,4H] -> UNPACK: T rows
            T times: h, c = IF(true, row, h, c) -> PACK [B,T,H]     (with the last c: [B,T+1,H])
    where both branches of IF are one subgraph, shared by all steps and all signatures: FULLY_CONNECTED(h, w_hh) and
    what `step_cells` puts behind it. GRU and RNN likewise, without c.

All of the step runs in XNNPACK; TFLite's own sequence LSTM is portable code. IF is TFLite's way to call a subgraph that
every runtime knows. Written out instead, each step would carry a packed copy of the weights of its own, which fall out
of the cache, and a ladder would hold thousands of operators. Two layers that do not wait for each other (the directions
of a layer) go hand in hand, as rows of one tensor, and share all but the two products with their weights.

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

from edgekit_converters.tflite.flatbuffer import Model, add_tensor, data_of, operators, schema, shape_of, text
from edgekit_converters.tflite.passes.build import Builder
from edgekit_converters.tflite.passes.names import tensor_key
from edgekit_converters.tflite.passes.step_cells import CELLS, Cell, Weights
from edgekit_converters.tflite.torch_passes.mark_recurrent import CELL, GIVEN, PREFIX

MARKER = "STABLEHLO_COMPOSITE"
ABREAST = 2  # layers that share operators; XNNPACK cuts a tensor in at most four
_PRODUCT = re.compile(r"(?:^|/)(?:LSTM|GRU|RNN)(?::\d+)?\.(?:input|state)$")


def is_recurrent_product(name: str) -> bool:
    """Whether an operator of this name multiplies the input or the state of a layer that this pass wrote."""
    return _PRODUCT.search(name) is not None


def step_recurrent(model: Model) -> int:
    """Replaces all markers in place and returns how many; tensors have the names of `passes.names` already."""
    signatures = [text(signature.signatureKey) for signature in model.signatureDefs or []]
    bodies: dict[bytes, int] = {}
    count = 0
    for subgraph in list(model.subgraphs):
        layers = _marked(model, subgraph, signatures)
        count += len(layers)
        if layers:
            replaced = {id(layer.marker) for layer in layers}
            kept = [operator for operator in subgraph.operators if id(operator) not in replaced]
            for group in _groups(subgraph, layers):
                kept += _sequence(model, subgraph, group, bodies)
            subgraph.operators = _in_order(kept)
    return count


@dataclasses.dataclass(frozen=True)
class _Layer:
    """One marked layer and direction: its marker, sizes, tensors and weights.

    Attributes:
        prefix: The signature's.
        states: Tensors of the initial state, empty for zeros.
        answer: Tensor of the sequence.
        with_cell: The last cell follows the sequence.
    """

    marker: Any
    prefix: str
    name: str
    cell: Cell
    batch: int
    steps: int
    units: int
    data: int
    states: tuple[int, ...]
    answer: int
    with_cell: bool
    weights: Weights

    @property
    def kind(self) -> tuple[object, ...]:
        """What layers that go hand in hand have in common."""
        return self.cell, self.batch, self.steps, self.units, self.with_cell


def _marked(model: Model, subgraph: Any, signatures: Sequence[str]) -> list[_Layer]:
    found = []
    for kind, operator in operators(model, subgraph):
        name = text(operator.builtinOptions2.name) if kind == MARKER else ""
        cell = CELLS.get(name.removeprefix(PREFIX).removesuffix(GIVEN).removesuffix(CELL))
        if cell is None:  # another pass's marker, or none
            continue
        given, with_cell = name.endswith(GIVEN), CELL in name
        data, *rest = (int(index) for index in operator.inputs)
        states = tuple(rest[: cell.states]) if given else ()
        w_ih, w_hh, *biases = (_known(data_of(model, subgraph.tensors[index])) for index in rest[len(states) :])
        (answer,) = (int(index) for index in operator.outputs)
        batch, steps, units = shape_of(subgraph.tensors[answer])
        full = text(subgraph.tensors[answer].name)
        key = tensor_key(full, signatures)
        found.append(
            _Layer(
                marker=operator, prefix=full.removesuffix(key), name=_name(key, cell), cell=cell,
                batch=batch, steps=steps - with_cell, units=units, data=data, states=states,
                answer=answer, with_cell=with_cell, weights=cell.weights(w_ih, w_hh, biases),
            )
        )  # fmt: skip
    return found


def _known(values: np.ndarray | None) -> np.ndarray:
    if values is None:
        raise ValueError("the weights of a recurrent layer are computed at run time")
    return values


def _name(marker: str, cell: Cell) -> str:
    """`layers/0/STABLEHLO_COMPOSITE:2` -> `layers/0/LSTM:2`; an output of the student keeps its own name in front."""
    return marker.replace(MARKER, cell.label) if MARKER in marker else f"{marker}/{cell.label}"


def _groups(subgraph: Any, layers: Sequence[_Layer]) -> list[list[_Layer]]:
    """Puts layers of equal size of which none waits for the other together, at most `ABREAST`."""
    waits_for: dict[int, frozenset[int]] = {}  # tensor -> places of layers it depends on
    maker = {id(layer.marker): place for place, layer in enumerate(layers)}
    before: list[frozenset[int]] = [frozenset()] * len(layers)
    for operator in subgraph.operators:
        needed = frozenset().union(*(waits_for.get(int(index), frozenset()) for index in operator.inputs))
        if id(operator) in maker:
            before[maker[id(operator)]] = needed
            needed |= {maker[id(operator)]}
        for index in map(int, operator.outputs):
            waits_for[index] = needed
    groups: list[list[int]] = []
    for place, layer in enumerate(layers):
        waited = _with_mates(before[place], groups, before)
        for group in groups:
            if len(group) < ABREAST and layers[group[0]].kind == layer.kind and not waited & set(group):
                group.append(place)
                break
        else:
            groups.append([place])
    return [[layers[place] for place in group] for group in groups]


def _with_mates(needed: frozenset[int], groups: Sequence[Sequence[int]], before: Sequence[frozenset[int]]) -> set[int]:
    """All layers that must be done first, now that those of a group are done together."""
    found: set[int] = set()
    front = set(needed)
    while front:
        place = front.pop()
        found.add(place)
        mates = next((group for group in groups if place in group), (place,))
        front |= {other for mate in mates for other in (mate, *before[mate])} - found
    return found


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


def _sequence(model: Model, subgraph: Any, group: Sequence[_Layer], bodies: dict[bytes, int]) -> list[Any]:
    """The operators of a group in a signature; `bodies` remembers the subgraph of a step over all signatures."""
    build, size = Builder(model, subgraph), group[0]
    lines, wide = size.batch * len(group), size.cell.gates * size.units
    projected = []
    for layer in group:
        operands = [layer.data, build.constant(layer.weights.w_ih), build.constant(layer.weights.b_ih)]
        name = f"{layer.prefix}{layer.name}.input"
        projected.append(build.product(operands, (layer.batch, layer.steps, wide), name))
    rows = build.operator(
        "UNPACK", [build.join(projected, (lines, size.steps, wide))], [(lines, wide)] * size.steps,
        "UnpackOptions", axis=1, num=size.steps,
    )  # fmt: skip
    body = _body(model, group, bodies)
    always = build.constant(np.ones((), np.bool_))
    states = _initial(build, group)
    answers = []
    for row in rows:
        states = build.operator(
            "IF", [always, row, *states], [(lines, size.units)] * len(states),
            "IfOptions", thenSubgraphIndex=body, elseSubgraphIndex=body,
        )  # fmt: skip
        answers.append(states[0])
    if size.with_cell:
        answers.append(states[-1])
    whole = (lines, len(answers), size.units)
    (packed,) = build.operator("PACK", answers, [whole], "PackOptions", axis=1, valuesCount=len(answers))
    build.cut(packed, len(group), (size.batch, *whole[1:]))
    build.operators[-1].outputs = [layer.answer for layer in group]
    return build.operators


def _initial(build: Builder, group: Sequence[_Layer]) -> list[int]:
    """The state before the first step: given, or zeros."""
    size = group[0]
    shape = (size.batch, size.units)
    zeros = np.zeros((size.batch * len(group), size.units), np.float32)
    found = []
    for place in range(size.cell.states):
        if not any(layer.states for layer in group):
            found.append(build.constant(zeros))
            continue
        parts = [
            layer.states[place] if layer.states else build.constant(np.zeros(shape, np.float32)) for layer in group
        ]
        found.append(build.join(parts, zeros.shape))
    return found


def _body(model: Model, group: Sequence[_Layer], bodies: dict[bytes, int]) -> int:
    """Index of the subgraph of one step: (row [lines, gates * H], states [lines, H]) -> new states."""
    size = group[0]
    lines, wide = size.batch * len(group), size.cell.gates * size.units
    whole = (lines, size.units)
    digest = hashlib.sha256(repr([(layer.cell, layer.batch, layer.name) for layer in group]).encode())
    for layer in group:
        digest.update(layer.weights.w_hh.tobytes())
        digest.update(b"" if layer.weights.b_hh is None else layer.weights.b_hh.tobytes())
    if digest.digest() in bodies:
        return bodies[digest.digest()]
    subgraph = schema().SubGraphT()
    subgraph.name, subgraph.tensors = group[0].name.encode(), []
    build = Builder(model, subgraph)
    shapes = [(lines, wide), *[whole] * size.cell.states]
    subgraph.inputs = [add_tensor(model, subgraph, "", shape) for shape in shapes]
    row, *states = subgraph.inputs
    pushed = []
    for layer, state in zip(group, build.cut(states[0], len(group), (size.batch, size.units)), strict=True):
        bias = -1 if layer.weights.b_hh is None else build.constant(layer.weights.b_hh)
        operands = [state, build.constant(layer.weights.w_hh), bias]
        pushed.append(build.product(operands, (size.batch, wide), f"{layer.name}.state"))
    outputs = size.cell.body(build, row, build.join(pushed, (lines, wide)), states, whole)
    subgraph.operators, subgraph.outputs = build.operators, outputs
    model.subgraphs.append(subgraph)
    bodies[digest.digest()] = len(model.subgraphs) - 1
    return bodies[digest.digest()]
