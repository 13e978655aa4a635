"""What really is int8 in a TFLite file: counted from the file, not from the intention."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from edgekit_converters.tflite.flatbuffer import Model, executed, main_subgraphs, operators, read, shape_of, text
from edgekit_converters.tflite.weighted import is_int8, weighted_operators


def coverage(path: Path, signature: str = "") -> tuple[float, float, int]:
    """Counts int8 weights and int8 arithmetic.

    Weights count by their bytes, each buffer once over the whole file. A multiply-accumulate counts as int8 when the
    kernel that LiteRT picks for the operand types is an integer one: int8 data and weights (static), or float data and
    int8 weights read directly by the operator (dynamic range, hybrid LSTM). Weights behind a DEQUANTIZE are computed in
    float. Without a signature's name the last one, the largest, is counted, and the weights of all.

    Args:
        path: A `.tflite` file.
        signature: Counts what this one runs and reads alone: a piece of a file of several.

    Returns:
        (share of weight bytes that are int8, share of MACs run by int8 kernels, all MACs of one run). Shares are 0
        where there is nothing to count.

    Raises:
        Refused: Not a TFLite file.
    """
    model = read(path)
    mains = main_subgraphs(model)
    names = [text(entry.signatureKey) for entry in model.signatureDefs or []]
    subgraph = mains[names.index(signature)] if signature else mains[-1]
    ran = executed(model, subgraph)
    int8_bytes, all_bytes = _weight_bytes(model, [part for part, _ in ran] if signature else model.subgraphs)
    int8_macs = all_macs = 0
    items = [(item, count * item.macs) for part, count in ran for item in weighted_operators(model, part)]
    for item, macs in items:
        all_macs += macs
        tensors = item.subgraph.tensors
        if item.weights:
            is_integer = all(is_int8(tensors[index]) for index in item.weights)
        else:
            is_integer = is_int8(tensors[item.data])  # a product of two activations
        if is_integer:
            int8_macs += macs
    return _share(int8_bytes, all_bytes), _share(int8_macs, all_macs), all_macs


def _weight_bytes(model: Model, subgraphs: Sequence[Any]) -> tuple[int, int]:
    seen: dict[int, bool] = {}
    for subgraph in subgraphs:
        behind = {
            int(operator.outputs[0]): int(operator.inputs[0])
            for kind, operator in operators(model, subgraph)
            if kind == "DEQUANTIZE"
        }
        for item in weighted_operators(model, subgraph):
            if item.kind == "EMBEDDING_LOOKUP" and shape_of(subgraph.tensors[item.weights[0]])[-1] == 1:
                continue  # the scales of a split table (`passes.split_table`), not weights
            for index in [*item.weights, *(behind[int(i)] for i in item.operator.inputs if int(i) in behind)]:
                tensor = subgraph.tensors[index]
                data = model.buffers[tensor.buffer].data
                if data is not None and len(data):
                    seen[int(tensor.buffer)] = is_int8(tensor)
    sizes = {buffer: len(model.buffers[buffer].data) for buffer in seen}
    return sum(size for buffer, size in sizes.items() if seen[buffer]), sum(sizes.values())


def _share(part: int, whole: int) -> float:
    return part / whole if whole else 0.0
