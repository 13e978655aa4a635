"""Pass: operator versions that say what the operator needs.

    before: every operator as version 1, as ai-edge-quantizer leaves them
    after:  the version with which TFLite introduced this combination of types

A runtime that is too old then refuses the file and says so, instead of computing with the wrong scales.
"""

from __future__ import annotations

from typing import Any

from edgekit_converters.tflite.flatbuffer import Model, dtype_of, kind_of, opcode_index

# Kind -> version of (int8 data, float data with int8 weights of one scale, the same with a scale a channel).
_VERSIONS: dict[str, tuple[int, int, int]] = {
    "FULLY_CONNECTED": (4, 3, 12),
    "CONV_2D": (3, 2, 5),
    "DEPTHWISE_CONV_2D": (3, 4, 6),
    "EMBEDDING_LOOKUP": (3, 3, 4),
}
# Version 2 brought int8 data to these.
_INT8_SINCE_2 = frozenset(
    [
        "ADD",
        "SUB",
        "MUL",
        "PAD",
        "PADV2",
        "CONCATENATION",
        "MEAN",
        "AVERAGE_POOL_2D",
        "MAX_POOL_2D",
        "TRANSPOSE",
        "SLICE",
        "STRIDED_SLICE",
        "SPLIT",
        "LOGISTIC",
        "TANH",
        "SOFTMAX",
        "RELU",
        "MAXIMUM",
        "MINIMUM",
        "SUM",
        "RESIZE_BILINEAR",
        "RESIZE_NEAREST_NEIGHBOR",
        "DEQUANTIZE",
        "SPACE_TO_DEPTH",
        "PACK",
        "UNPACK",
        "TRANSPOSE_CONV",
        "SQUARED_DIFFERENCE",
    ]
)


def raise_versions(model: Model) -> None:
    """Raises operator versions in place where the types need it; never lowers one."""
    for subgraph in model.subgraphs:
        for operator in subgraph.operators or []:
            kind = kind_of(model, operator)
            needed = _needed(kind, [_tensor(subgraph, index) for index in operator.inputs])
            if needed > model.operatorCodes[operator.opcodeIndex].version:
                operator.opcodeIndex = opcode_index(model, kind, needed)


def _tensor(subgraph: Any, index: int) -> Any:
    return subgraph.tensors[int(index)] if int(index) >= 0 else None


def _needed(kind: str, inputs: list[Any]) -> int:
    if not inputs or inputs[0] is None:
        return 1
    integer_data = dtype_of(inputs[0]) == "int8"
    if kind not in _VERSIONS:
        return 2 if integer_data and kind in _INT8_SINCE_2 else 1
    whole, one_scale, channel_scales = _VERSIONS[kind]
    if integer_data:
        return whole
    if inputs[1] is None or dtype_of(inputs[1]) != "int8":
        return 1
    scales = inputs[1].quantization.scale
    return channel_scales if scales is not None and len(scales) > 1 else one_scale
