"""The oldest TFLite runtime that knows every operator version of a file.

`VERSIONS` holds, for each operator kind, (operator version, first TensorFlow 2 minor release with it), taken from
TensorFlow's `tools/versioning/runtime_version.cc` and, for what is newer than that table, from the release notes of the
runtimes. Version 1 of a kind that is not listed exists since TensorFlow 2.3.
"""

from __future__ import annotations

from edgekit_converters.tflite.flatbuffer import Model, kind_of

OLDEST_MINOR = 3
# Not known to the last tflite-runtime (2.14): only LiteRT and TensorFlow after it.
AFTER_TFLITE_RUNTIME = 16

VERSIONS: dict[str, tuple[tuple[int, int], ...]] = {
    "ABS": ((2, 4), (3, 5), (4, 6), (5, 12)),
    "ADD": ((2, 3), (3, 4), (4, 6), (5, 13)),
    "ARG_MAX": ((2, 3), (3, 9)),
    "ARG_MIN": ((2, 3), (3, 9)),
    "AVERAGE_POOL_2D": ((3, 3),),
    "BATCH_MATMUL": ((2, 3), (3, 4), (4, 5), (5, 17)),
    "BROADCAST_TO": ((3, 5), (4, 16)),
    "CAST": ((1, 3), (2, 7), (3, 8), (4, 9), (5, 12), (6, 16), (7, 17)),
    "CONCATENATION": ((3, 3), (4, 16)),
    "CONV_2D": ((4, 3), (5, 4), (6, 9), (7, 12), (8, 12)),
    "CUMSUM": ((1, 4),),
    "DEPTHWISE_CONV_2D": ((6, 3), (7, 12)),
    "DEQUANTIZE": ((4, 3), (5, 7), (6, 16)),
    "DIV": ((2, 3),),
    "DYNAMIC_UPDATE_SLICE": ((1, 9), (2, 16), (3, 17)),
    "EMBEDDING_LOOKUP": ((3, 3), (4, 17)),
    "EQUAL": ((3, 3), (4, 13)),
    "FILL": ((2, 3), (3, 5), (4, 12)),
    "FULLY_CONNECTED": ((9, 3), (10, 11), (11, 14), (12, 17), (13, 18)),
    "GATHER": ((3, 3), (4, 4), (5, 5), (6, 13), (7, 16)),
    "GATHER_ND": ((2, 3), (3, 5), (4, 13), (5, 16)),
    "GELU": ((1, 9), (2, 9)),
    "LEAKY_RELU": ((2, 3),),
    "LOGISTIC": ((3, 3),),
    "MAXIMUM": ((4, 3),),
    "MAX_POOL_2D": ((3, 3),),
    "MEAN": ((2, 3), (3, 4)),
    "MINIMUM": ((4, 3),),
    "MUL": ((4, 3), (5, 6), (6, 11), (7, 13)),
    "NOT_EQUAL": ((3, 3), (4, 13)),
    "PACK": ((3, 3), (4, 13)),
    "PAD": ((2, 3), (3, 4), (4, 6), (5, 16)),
    "PADV2": ((2, 3), (3, 4), (4, 6), (5, 16)),
    "QUANTIZE": ((2, 3), (3, 7), (4, 17)),
    "REDUCE_ALL": ((1, 6),),
    "REDUCE_MAX": ((2, 3), (3, 5)),
    "REDUCE_MIN": ((2, 3), (3, 5)),
    "REDUCE_PROD": ((1, 3), (2, 6)),
    "RELU": ((2, 3), (3, 5)),
    "RELU6": ((2, 3), (3, 5)),
    "RELU_0_TO_1": ((1, 10),),
    "RESIZE_BILINEAR": ((3, 3), (4, 5)),
    "RESIZE_NEAREST_NEIGHBOR": ((3, 3), (4, 4)),
    "REVERSE_V2": ((2, 3), (3, 5)),
    "RSQRT": ((1, 3), (2, 5), (3, 14)),
    "SELECT": ((2, 3), (3, 12), (4, 13)),
    "SELECT_V2": ((1, 3), (2, 13)),
    "SIGN": ((1, 12), (2, 12)),
    "SLICE": ((3, 3), (4, 4), (5, 5), (6, 14)),
    "SOFTMAX": ((3, 3),),
    "SPLIT": ((4, 3),),
    "SQUARED_DIFFERENCE": ((1, 3), (2, 5)),
    "SQUEEZE": ((1, 3), (2, 5)),
    "STRIDED_SLICE": ((4, 3), (5, 5), (6, 6), (7, 14), (8, 14)),
    "SUB": ((3, 3), (4, 4), (5, 4)),
    "SUM": ((2, 3),),
    "TANH": ((3, 3),),
    "TILE": ((2, 3), (3, 8)),
    "TOPK_V2": ((2, 3), (3, 13)),
    "TRANSPOSE": ((4, 3), (5, 4), (6, 12)),
    "TRANSPOSE_CONV": ((3, 3), (4, 13), (5, 13)),
    "UNIDIRECTIONAL_SEQUENCE_LSTM": ((3, 3), (4, 13)),
    "UNPACK": ((4, 3),),
    "WHERE": ((1, 3), (2, 8)),
}
"""Per kind, rising operator versions with the minor release that brought them; a lower version is in an older one."""


def minimum_runtime(model: Model) -> str:
    """The oldest runtime that runs the file, as `2.MINOR`.

    Operator versions beyond the table count as newer than the last tflite-runtime (2.14).
    """
    minors = [OLDEST_MINOR]
    for subgraph in model.subgraphs:
        for operator in subgraph.operators or []:
            kind = kind_of(model, operator)
            minors.append(first_minor(kind, model.operatorCodes[operator.opcodeIndex].version))
    return f"2.{max(minors)}"


def first_minor(kind: str, version: int) -> int:
    """The first TensorFlow 2 minor release whose runtime has this version of an operator."""
    if kind.startswith("STABLEHLO_"):
        return AFTER_TFLITE_RUNTIME
    for known, minor in VERSIONS.get(kind, ((2, OLDEST_MINOR),)):
        if version <= known:
            return minor
    return AFTER_TFLITE_RUNTIME
