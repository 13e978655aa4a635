"""Pass: sums over rows that meet in one place, in the place of the markers that `torch_passes.mark_scatter` left.

    before: STABLEHLO_COMPOSITE edgekit.scatter_rows (target [N, F], index [E], source [E, F])
    after:  RESHAPE(index, [E, 1]) -> SCATTER_ND(index, source, shape [N, F]) -> ADD(target)

TFLite's SCATTER_ND adds the rows that share a place, as TensorFlow's does, and every runtime since 2.0 has it;
UNSORTED_SEGMENT_SUM came in 2.13 and STABLEHLO_SCATTER is not prepared for sums. Onto zeros no ADD is needed.
"""

from __future__ import annotations

from typing import Any

import numpy as np

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
from edgekit_converters.tflite.torch_passes.mark_scatter import COMPOSITE

MARKER = "STABLEHLO_COMPOSITE"


def scatter_rows(model: Model) -> int:
    """Replaces all markers in place and returns how many."""
    count = 0
    for subgraph in list(model.subgraphs):
        made: list[Any] = []
        for kind, operator in operators(model, subgraph):
            if kind == MARKER and text(operator.builtinOptions2.name) == COMPOSITE:
                made += _operators(model, subgraph, operator)
                count += 1
            else:
                made.append(operator)
        subgraph.operators = made
    return count


def _operators(model: Model, subgraph: Any, marker: Any) -> list[Any]:
    target, index, source = (int(place) for place in marker.inputs)
    answer = int(marker.outputs[0])
    name = text(subgraph.tensors[answer].name).replace(MARKER, "SCATTER_ND")
    rows = shape_of(subgraph.tensors[index])[0]
    column = add_tensor(model, subgraph, f"{name}.index", (rows, 1), dtype_of(subgraph.tensors[index]))
    made = [_reshape(model, subgraph, index, column, name)]
    shape = add_constant(model, subgraph, f"{name}.shape", np.array(shape_of(subgraph.tensors[answer]), np.int32))
    known = data_of(model, subgraph.tensors[target])
    onto_zeros = known is not None and not known.any()
    total = answer
    if not onto_zeros:
        total = add_tensor(model, subgraph, f"{name}.sum", shape_of(subgraph.tensors[answer]))
    made.append(_operator(model, "SCATTER_ND", [column, source, shape], total, "ScatterNdOptions"))
    if not onto_zeros:
        made.append(_operator(model, "ADD", [target, total], answer, "AddOptions"))
    return made


def _reshape(model: Model, subgraph: Any, source: int, target: int, name: str) -> Any:
    shape = np.array(shape_of(subgraph.tensors[target]), np.int32)
    made = _operator(
        model,
        "RESHAPE",
        [source, add_constant(model, subgraph, f"{name}.index.shape", shape)],
        target,
        "ReshapeOptions",
    )
    made.builtinOptions.newShape = shape
    return made


def _operator(model: Model, kind: str, inputs: list[int], output: int, options: str) -> Any:
    made = schema().OperatorT()
    made.opcodeIndex = opcode_index(model, kind)
    made.inputs, made.outputs = inputs, [output]
    made.builtinOptionsType = getattr(schema().BuiltinOptions, options)
    made.builtinOptions = getattr(schema(), f"{options}T")()
    return made
