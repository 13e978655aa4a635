"""Multiply-accumulates of one operator, from the shapes that really ran.

One formula a family, on what the engines report: the shapes of the inputs (activations and weights) and outputs. Groups
and padding need no attribute, as the weights' shape holds them already. A MAC is one multiplication with its addition;
element-wise work counts as 0, an operator whose cost the shapes do not tell as None.

    Conv             outputs x weights of one output channel        out [N,M,*s], w [M,C/g,*k]
    ConvTranspose    inputs x weights of one input channel          x [N,C,*s], w [C,M/g,*k]
    MatMul, Gemm     outputs x inner size                           a [...,M,K], out [...,M,N]
    LSTM, GRU, RNN   steps x batch x (all weights of W and R)       x [T,B,I], w [D,4H,I], r [D,4H,H]
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence

Shape = Sequence[int]
Shapes = Sequence[Shape]
Formula = Callable[[Shapes, Shapes], int]

# Positions of the inputs that matter. The quantized twins put a scale and a zero point after each operand.
_CONV_WEIGHT = {
    "Conv": 1,
    "FusedConv": 1,
    "NhwcFusedConv": 1,
    "NhwcConv": 1,
    "ConvInteger": 1,
    "QLinearConv": 3,
    "CONV_2D": 1,
}

# Lookups, with the position of the table.
_TABLES = {"Gather": 0, "GatherND": 0, "GatherBlockQuantized": 0, "GATHER": 0, "GATHER_ND": 0, "EMBEDDING_LOOKUP": 1}

# ONNX operators that compute with 8-bit integer operands wherever they run.
ONNX_INT8 = frozenset(
    {
        "QLinearConv",
        "QLinearConvTranspose",
        "ConvInteger",
        "QLinearMatMul",
        "MatMulInteger",
        "MatMulInteger16",
        "MatMulIntegerToFloat",
        "DynamicQuantizeMatMul",
        "QGemm",
        "QAttention",
        "DynamicQuantizeLSTM",
        "QLinearGlobalAveragePool",
        "QLinearAveragePool",
        "QLinearAdd",
        "QLinearMul",
        "QLinearConcat",
        "QLinearSigmoid",
        "QLinearLeakyRelu",
        "QLinearSoftmax",
        "QLinearReduceMean",
        "QLinearWhere",
        "QEmbedLayerNormalization",
        "GatherBlockQuantized",
    }
)


def macs(kind: str, inputs: Shapes, outputs: Shapes) -> int | None:
    """Multiply-accumulates of one run of one operator.

    Args:
        kind: Operator type as the engine names it: ONNX (`Conv`, `QLinearMatMul`, ...) or TFLite (`CONV_2D`, ...).
        inputs: Shape of each input by position; an absent optional input is an empty shape.
        outputs: Shape of each output by position.

    Returns:
        The count; 0 for element-wise and moving operators; None where the shapes given do not tell.
    """
    formula = FORMULAS.get(kind)
    if formula is None:
        return None if kind in UNKNOWN else 0
    try:
        return formula(inputs, outputs)
    except (IndexError, ValueError):
        return None


def read_bytes(kind: str, sizes: Sequence[int], inputs: Shapes, outputs: Shapes) -> int:
    """Bytes that one run of one operator reads: all of its inputs, but of a table the rows that it takes.

    Args:
        kind: As in `macs`.
        sizes: Bytes of each input by position.
        inputs: Shape of each input by position.
        outputs: Shape of each output by position.
    """
    position = _TABLES.get(kind)
    if position is None or position >= len(inputs) or not inputs[position]:
        return sum(sizes)
    whole, taken = math.prod(inputs[position]), sum(map(math.prod, outputs))
    if taken >= whole:
        return sum(sizes)
    rows = inputs[position][0]  # scales of a quantized table have as many
    return sum(
        size * taken // whole if shape and shape[0] == rows else size for size, shape in zip(sizes, inputs, strict=True)
    )


def _per_output(position: int, skip: int = 1) -> Formula:
    """Convolutions: each output element takes the weights of one output channel."""

    def formula(inputs: Shapes, outputs: Shapes) -> int:
        return math.prod(outputs[0]) * math.prod(_present(inputs[position])[skip:])

    return formula


def _per_input(position: int) -> Formula:
    """Transposed convolutions: each input element takes the weights of one input channel."""

    def formula(inputs: Shapes, outputs: Shapes) -> int:
        return math.prod(inputs[0]) * math.prod(_present(inputs[position])[1:])

    return formula


def _depthwise(inputs: Shapes, outputs: Shapes) -> int:
    return math.prod(outputs[0]) * math.prod(_present(inputs[1])[1:3])


def _conv3d(inputs: Shapes, outputs: Shapes) -> int:
    return math.prod(outputs[0]) * math.prod(_present(inputs[1])[:-1])


def _transpose_conv(inputs: Shapes, outputs: Shapes) -> int:
    out_channels, height, width, _ = _present(inputs[1])
    return math.prod(inputs[2]) * out_channels * height * width


def _matmul(inputs: Shapes, outputs: Shapes) -> int:
    return math.prod(outputs[0]) * _inner(_present(inputs[0]), outputs[0], inputs[1] if len(inputs) > 1 else ())


def _inner(a: Shape, out: Shape, b: Shape) -> int:
    """Inner size of a product; a transposed left operand shows in the rows of the output."""
    if len(a) < 2 or len(out) < 2 or len(b) == 1:
        return a[-1]
    return a[-1] * a[-2] // out[-2] if out[-2] else 0


def _fully_connected(inputs: Shapes, outputs: Shapes) -> int:
    return math.prod(inputs[0]) * _present(inputs[1])[0]


def _recurrent(inputs: Shapes, outputs: Shapes) -> int:
    steps, batch, _ = _present(inputs[0])
    return steps * batch * (math.prod(_present(inputs[1])) + math.prod(_present(inputs[2])))


def _tflite_weights(first: int, last: int) -> Formula:
    """TFLite's fused recurrences: [batch, time, features] (or time-major) times every weight matrix given."""

    def formula(inputs: Shapes, outputs: Shapes) -> int:
        rows = math.prod(_present(inputs[0])[:-1])
        return rows * sum(math.prod(shape) for shape in inputs[first : last + 1] if len(shape) == 2)

    return formula


def _attention(inputs: Shapes, outputs: Shapes) -> int:
    """com.microsoft.Attention: projection to Q, K, V in one matrix, then QK^T and the weighted sum."""
    batch, length, _ = _present(inputs[0])
    weights = _present(inputs[1])
    return batch * length * (math.prod(weights) + 2 * length * (weights[-1] // 3))


def _multi_head(inputs: Shapes, outputs: Shapes) -> int:
    """com.microsoft.MultiHeadAttention on separate Q [B,S,H], K [B,L,H], V [B,L,Hv]."""
    query, key, value = _present(inputs[0]), _present(inputs[1]), _present(inputs[2])
    return query[0] * query[1] * key[1] * (query[2] + value[2])


def _present(shape: Shape) -> Shape:
    """The shape; IndexError where the engine left it out."""
    if not shape:
        raise IndexError("shape not reported")
    return shape


FORMULAS: Mapping[str, Formula] = {
    **{kind: _per_output(at) for kind, at in _CONV_WEIGHT.items()},
    "ConvTranspose": _per_input(1),
    "QLinearConvTranspose": _per_input(3),
    "DEPTHWISE_CONV_2D": _depthwise,
    "CONV_3D": _conv3d,
    "TRANSPOSE_CONV": _transpose_conv,
    "FULLY_CONNECTED": _fully_connected,
    **dict.fromkeys(
        (
            "MatMul",
            "FusedMatMul",
            "FusedMatMulActivation",
            "TransposeMatMul",
            "Gemm",
            "FusedGemm",
            "GemmFloat8",
            "MatMulNBits",
            "MatMulInteger",
            "MatMulInteger16",
            "MatMulIntegerToFloat",
            "DynamicQuantizeMatMul",
            "BATCH_MATMUL",
        ),
        _matmul,
    ),
    "QLinearMatMul": lambda i, o: _matmul((i[0], i[3]), o),
    "QGemm": lambda i, o: _matmul((i[0], i[3]), o),
    **dict.fromkeys(("LSTM", "GRU", "RNN", "DynamicQuantizeLSTM"), _recurrent),
    "UNIDIRECTIONAL_SEQUENCE_LSTM": _tflite_weights(1, 16),
    "BIDIRECTIONAL_SEQUENCE_LSTM": _tflite_weights(1, 34),
    "UNIDIRECTIONAL_SEQUENCE_RNN": _tflite_weights(1, 2),
    "SVDF": lambda i, o: math.prod(_present(i[0])[:-1]) * (math.prod(_present(i[1])) + math.prod(_present(i[2]))),
    "Attention": _attention,
    "QAttention": _attention,
    "MultiHeadAttention": _multi_head,
}

# Known to multiply, but their shapes alone do not tell how much.
UNKNOWN = frozenset({"Einsum", "Loop", "Scan", "If", "WHILE", "IF", "CUSTOM", "STABLEHLO_COMPOSITE", "DELEGATE"})
