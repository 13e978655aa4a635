"""Pass: nothing in the file that nobody uses, and nothing twice.

    before: a buffer for each signature's copy of a weight, tensors left over by other passes, unused operator codes
    after:  equal buffers once, only tensors that an operator or the border uses, in the order in which they are used

litert-torch shares weights between signatures, ai-edge-quantizer gives each signature its own again.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from typing import Any

import numpy as np

from edgekit_converters.tflite.flatbuffer import Model, operators, schema


def compact(model: Model) -> None:
    """Removes unused tensors, buffers, subgraphs' leftovers and operator codes, and merges equal buffers, in place."""
    _drop_unused_subgraphs(model)
    for subgraph in model.subgraphs:
        _drop_unused_tensors(model, subgraph)
    _merge_buffers(model)
    _drop_unused_opcodes(model)


# Options that point to a subgraph by its number.
_SUBGRAPH_FIELDS = (
    "thenSubgraphIndex",
    "elseSubgraphIndex",
    "condSubgraphIndex",
    "bodySubgraphIndex",
    "initSubgraphIndex",
    "decompositionSubgraphIndex",
)


def _references(subgraph: Any) -> Iterator[tuple[Any, str]]:
    for operator in subgraph.operators or []:
        for options in (operator.builtinOptions, operator.builtinOptions2):
            for field in _SUBGRAPH_FIELDS:
                if getattr(options, field, -1) >= 0:
                    yield options, field


def _drop_unused_subgraphs(model: Model) -> None:
    pending = [signature.subgraphIndex for signature in model.signatureDefs or []] or [0]
    used: set[int] = set()
    while pending:
        index = pending.pop()
        if index not in used:
            used.add(index)
            pending += [getattr(options, field) for options, field in _references(model.subgraphs[index])]
    renumbered = {old: new for new, old in enumerate(sorted(used))}
    model.subgraphs = [model.subgraphs[old] for old in sorted(used)]
    for signature in model.signatureDefs or []:
        signature.subgraphIndex = renumbered[signature.subgraphIndex]
    for subgraph in model.subgraphs:
        for options, field in _references(subgraph):
            setattr(options, field, renumbered[getattr(options, field)])


def _drop_unused_tensors(model: Model, subgraph: Any) -> None:
    used = set(map(int, [*subgraph.inputs, *subgraph.outputs]))
    for operator in subgraph.operators or []:
        used.update(int(index) for index in _indices(operator))
    used.discard(-1)
    order = [index for index in _in_order_of_use(model, subgraph) if index in used]
    renumbered = {-1: -1} | {index: number for number, index in enumerate(order)}
    subgraph.tensors = [subgraph.tensors[index] for index in order]
    subgraph.inputs = [renumbered[int(index)] for index in subgraph.inputs]
    subgraph.outputs = [renumbered[int(index)] for index in subgraph.outputs]
    for operator in subgraph.operators or []:
        for field in ("inputs", "outputs", "intermediates"):
            values = getattr(operator, field)
            if values is not None and len(values):
                setattr(operator, field, [renumbered[int(index)] for index in values])
    for signature in model.signatureDefs or []:
        if model.subgraphs[signature.subgraphIndex] is subgraph:
            for entry in [*(signature.inputs or []), *(signature.outputs or [])]:
                entry.tensorIndex = renumbered[entry.tensorIndex]


def _in_order_of_use(model: Model, subgraph: Any) -> list[int]:
    """All tensors: as operators read and make them, but the rows of an UNPACK as they are read.

    Operators that do the same in two signatures then name the same numbers, and are written once (`tables`), although
    the sequences between them have other lengths.
    """
    order: list[int] = []
    for kind, operator in operators(model, subgraph):
        order += map(int, operator.inputs)
        order += map(int, operator.outputs if kind != "UNPACK" else ())
    return list(dict.fromkeys([*order, *range(len(subgraph.tensors))]))


def _indices(operator: Any) -> list[int]:
    found: list[int] = []
    for field in ("inputs", "outputs", "intermediates"):
        values = getattr(operator, field)
        if values is not None:
            found.extend(int(value) for value in values)
    return found


def _merge_buffers(model: Model) -> None:
    empty = schema().BufferT()  # by convention buffer 0 is empty and means "no constant"
    merged, renumbered, seen = [empty], {}, dict[bytes, int]()
    for index, buffer in _used_buffers(model):
        if index in renumbered:
            continue
        if buffer.data is None or len(buffer.data) == 0:
            renumbered[index] = 0
            continue
        digest = hashlib.sha256(np.ascontiguousarray(buffer.data).tobytes()).digest()
        if digest not in seen:
            seen[digest] = len(merged)
            merged.append(buffer)
        renumbered[index] = seen[digest]
    for holder in _buffer_holders(model):
        holder.buffer = renumbered[int(holder.buffer)]
    model.buffers = merged


def _buffer_holders(model: Model) -> list[Any]:
    tensors = [tensor for subgraph in model.subgraphs for tensor in subgraph.tensors]
    return [*tensors, *(model.metadata or [])]


def _used_buffers(model: Model) -> list[tuple[int, Any]]:
    return [(int(holder.buffer), model.buffers[int(holder.buffer)]) for holder in _buffer_holders(model)]


def _drop_unused_opcodes(model: Model) -> None:
    used: dict[int, int] = {}
    for subgraph in model.subgraphs:
        for operator in subgraph.operators or []:
            operator.opcodeIndex = used.setdefault(operator.opcodeIndex, len(used))
    model.operatorCodes = [model.operatorCodes[index] for index in used]
