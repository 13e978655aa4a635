"""Pass: nothing in the file that nobody uses, and nothing twice.

    before: a buffer for each signature's copy of a weight, tensors left over by other passes, unused operator codes
    after:  equal buffers once, only tensors that an operator or the border uses

litert-torch shares weights between signatures, ai-edge-quantizer gives each signature its own again.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from typing import Any

import numpy as np

from edgekit_converters.tflite.flatbuffer import Model, schema


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
    renumbered: dict[int, int] = {-1: -1}
    kept: list[Any] = []
    for index, tensor in enumerate(subgraph.tensors):
        if index in used:
            renumbered[index] = len(kept)
            kept.append(tensor)
    subgraph.tensors = kept
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
