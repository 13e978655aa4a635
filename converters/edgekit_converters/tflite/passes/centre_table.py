"""Pass: tables of matrices near the identity hold what they differ from it (`recipe.centre`), before they become int8.

before: EMBEDDING_LOOKUP(ids, table [V,E]) ──► rows
after:  EMBEDDING_LOOKUP(ids, table - I) ──► ADD(I) ──► rows
"""

from __future__ import annotations

from typing import Any

import numpy as np

from edgekit_converters.recipe.centre import centre
from edgekit_converters.tflite.flatbuffer import (
    Model,
    add_constant,
    add_tensor,
    data_of,
    dtype_of,
    opcode_index,
    operators,
    schema,
    shape_of,
    text,
)


def centre_tables(model: Model) -> int:
    """Rewrites the look-ups in place, each table once for all signatures, and returns how many."""
    centred: dict[int, np.ndarray | None] = {}
    count = 0
    for subgraph in model.subgraphs:
        rewritten: list[Any] = []
        for kind, operator in operators(model, subgraph):
            rewritten.append(operator)
            middle = _centre(model, subgraph, operator, centred) if kind == "EMBEDDING_LOOKUP" else None
            if middle is not None:
                rewritten.append(_add(model, subgraph, operator, middle))
                count += 1
        subgraph.operators = rewritten
    return count


def _centre(model: Model, subgraph: Any, lookup: Any, centred: dict[int, np.ndarray | None]) -> np.ndarray | None:
    table = subgraph.tensors[int(lookup.inputs[1])]
    if table.buffer not in centred:
        values = data_of(model, table) if dtype_of(table) == "float32" else None
        middle = centre(values) if values is not None else None
        centred[table.buffer] = middle
        if values is not None and middle is not None:
            model.buffers[table.buffer].data = np.frombuffer((values - middle).tobytes(), np.uint8)
    return centred[table.buffer]


def _add(model: Model, subgraph: Any, lookup: Any, middle: np.ndarray) -> Any:
    answer = int(lookup.outputs[0])
    name = text(subgraph.tensors[answer].name)
    lookup.outputs = [add_tensor(model, subgraph, f"{name}/centred", shape_of(subgraph.tensors[answer]))]
    operator = schema().OperatorT()
    operator.opcodeIndex = opcode_index(model, "ADD")
    operator.inputs = [lookup.outputs[0], add_constant(model, subgraph, "", middle[None])]
    operator.outputs = [answer]
    operator.builtinOptionsType, operator.builtinOptions = schema().BuiltinOptions.AddOptions, schema().AddOptionsT()
    return operator
