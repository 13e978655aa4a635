"""The convolutional front of a graph whose rest is quantized a row at a time: which operators it is. Pure.

    image -> gamma (MEAN, LOG, DIV, EXP, MUL) -> CONV_2D -> MAX_POOL_2D -> CONV_2D -> RESHAPE -> attention ...
                                                 └────────── static ──────────┘

Feature maps of a picture have stable ranges, so these convolutions get calibrated scales although the graph as a whole
is dynamic. A convolution on rows that differ in range (after a look-up, a norm, a softmax, an LSTM) stays with the
rest. A ViT of 6 layers, seeded weights: 32 dB with the patches' convolution left in float, 20 dB with one scale a
picture found at run time, which is all that the hybrid kernel does.
"""

from __future__ import annotations

from typing import Any

from edgekit_converters.tflite.flatbuffer import Model, dtype_of, is_constant, operators
from edgekit_converters.tflite.weighted import LSTM

CONVOLUTIONS = frozenset({"CONV_2D", "DEPTHWISE_CONV_2D"})
# What follows them tells of rows with ranges of their own, or of no picture at all.
_ROWS = frozenset(
    {"SOFTMAX", "GELU", "RSQRT", "EMBEDDING_LOOKUP", "GATHER", "GATHER_ND", "BATCH_MATMUL", "FULLY_CONNECTED", LSTM}
    | {"IF", "WHILE", "CALL_ONCE", "STABLEHLO_COMPOSITE", "SCATTER_ND", "CUMSUM", "TRANSPOSE_CONV", "CONV_3D"}
)


def front_operators(model: Model, subgraph: Any, following: frozenset[str] | set[str]) -> set[int]:
    """Ids of the operators that can run on calibrated int8: convolutions on maps, and what lies between two of them.

    Args:
        model: The fp32 model.
        subgraph: One of its main subgraphs.
        following: Kinds that can run on the int8 values of their neighbours.
    """
    maps = {int(index) for index in subgraph.inputs if dtype_of(subgraph.tensors[int(index)]) == "float32"}
    steps = [(kind, operator, _data(model, subgraph, operator)) for kind, operator in operators(model, subgraph)]
    for kind, operator, data in steps:
        if kind not in _ROWS and data and all(index in maps for index in data):
            maps.update(int(index) for index in operator.outputs)
    chosen = {id(op) for kind, op, data in steps if kind in CONVOLUTIONS and data and data[0] in maps}
    return chosen | _between(subgraph, steps, chosen, following)


def _data(model: Model, subgraph: Any, operator: Any) -> list[int]:
    return [
        int(index)
        for index in operator.inputs
        if int(index) >= 0 and not is_constant(model, subgraph.tensors[int(index)])
    ]


def _between(
    subgraph: Any, steps: list[tuple[str, Any, list[int]]], convolutions: set[int], following: frozenset[str] | set[str]
) -> set[int]:
    """Operators all of whose inputs come from int8 and all of whose readers are int8."""
    int8: set[int] = set()
    reached: set[int] = set()
    for kind, operator, data in steps:
        if id(operator) in convolutions or (kind in following and data and all(index in int8 for index in data)):
            int8.update(int(index) for index in operator.outputs)
            reached.add(id(operator))
    readers: dict[int, set[int]] = {int(index): {-1} for index in subgraph.outputs}
    kept: set[int] = set()
    for _, operator, data in reversed(steps):
        after = set().union(*(readers.get(int(index), set()) for index in operator.outputs))
        if id(operator) in reached and id(operator) not in convolutions and after and after <= kept | convolutions:
            kept.add(id(operator))
        for index in data:
            readers.setdefault(index, set()).add(id(operator))
    return kept
