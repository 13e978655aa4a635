"""Sorts what an engine ran into families of operators that cost alike, and reads the sizes their cost depends on.

A product of any sort is seen as a matrix product: `rows` outputs times `inner` products times `columns`.

    dense      [rows, inner] x [inner, columns]          conv       rows = batch and pixels, inner = channels x kernel
    recurrent  rows = steps one after the other          depthwise  inner = kernel, columns = channels
    matmul     rows of all matrices of a batch           the others only have `elements`
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from typing import Literal

from edgekit.devices import coordinates
from edgekit_runtime.measurement import OpCost

Family = Literal[
    "conv",
    "pointwise",
    "depthwise",
    "dense",
    "matmul",
    "recurrent",
    "attention",
    "gather",
    "elementwise",
    "normalize",
    "reduce",
    "move",
    "quantize",
]

# Kernels of one cost under several names, by the name that is calibrated.
SAME: dict[str, str] = {
    **dict.fromkeys(("FusedConv", "NhwcFusedConv", "NhwcConv"), "Conv"),
    **dict.fromkeys(("Gemm", "FusedGemm", "FusedMatMul", "TransposeMatMul", "FusedMatMulActivation"), "MatMul"),
    **dict.fromkeys(("QLinearMatMul", "MatMulInteger", "DynamicQuantizeMatMul"), "MatMulIntegerToFloat"),
    **dict.fromkeys(("Sub", "Max", "Min", "Not", "Equal", "Less", "Where", "BitwiseAnd", "And", "Or"), "Add"),
    **dict.fromkeys(("Clip", "Abs", "Neg", "Sqrt", "Reciprocal"), "Relu"),
    **dict.fromkeys(("MAXIMUM", "MINIMUM", "SUB", "SQUARED_DIFFERENCE"), "ADD"),
    **dict.fromkeys(("ABS", "NEG", "RELU6"), "RELU"),
    **dict.fromkeys(("Squeeze", "Unsqueeze", "Identity", "Flatten"), "Reshape"),
    **dict.fromkeys(("SQUEEZE", "EXPAND_DIMS"), "RESHAPE"),
    **dict.fromkeys(("Sigmoid", "Exp", "Erf", "Pow", "Gelu", "FastGelu", "Log"), "Tanh"),
    **dict.fromkeys(("EXP", "POW", "LOG"), "LOGISTIC"),
    **dict.fromkeys(("RSQRT", "SQRT"), "DIV"),
    **dict.fromkeys(("QLinearMul", "QLinearSigmoid"), "QLinearAdd"),
    **dict.fromkeys(("Split", "Expand", "Tile", "ReorderInput", "ReorderOutput"), "Concat"),
    **dict.fromkeys(("Shape", "Range"), "Reshape"),
    **dict.fromkeys(("DequantizeLinear", "DynamicQuantizeLinear", "Cast"), "QuantizeLinear"),
    **dict.fromkeys(("ReduceSum", "ReduceMean", "ReduceMin", "GlobalAveragePool", "GlobalMaxPool"), "ReduceMax"),
    **dict.fromkeys(("QLinearGlobalAveragePool",), "ReduceMax"),
    **dict.fromkeys(("AveragePool",), "MaxPool"),
    **dict.fromkeys(("SUM",), "MEAN"),
    **dict.fromkeys(("REDUCE_MIN", "REDUCE_PROD"), "REDUCE_MAX"),
    **dict.fromkeys(("SLICE", "SPLIT", "PACK", "UNPACK", "BROADCAST_TO"), "CONCATENATION"),
    **dict.fromkeys(("DEQUANTIZE",), "QUANTIZE"),
    **dict.fromkeys(("EQUAL", "LESS", "LESS_EQUAL", "GREATER", "GREATER_EQUAL"), "NOT_EQUAL"),
    **dict.fromkeys(("REDUCE_ALL", "REDUCE_ANY"), "NOT_EQUAL"),
    **dict.fromkeys(("SELECT", "WHERE"), "SELECT_V2"),
    **dict.fromkeys(("LOGICAL_OR", "LOGICAL_NOT"), "LOGICAL_AND"),
}

# What XNNPACK does not take, LiteRT does one by one: int32, and of each kernel a loop of its own where shapes differ.
_INTEGERS = ("int32", "int64", "int16", "uint32")
_OF_INTEGERS = {
    **dict.fromkeys(("ADD", "SUB"), "ADD"), "MUL": "MUL", **dict.fromkeys(("MAXIMUM", "MINIMUM"), "MAXIMUM"),
    **dict.fromkeys(("ABS", "NEG"), "ABS"), "DIV": "DIV", "RIGHT_SHIFT": "RIGHT_SHIFT",
}  # fmt: skip
_REPEATED = ("ADD", "MUL", "MAXIMUM")
_THIN, _MANY = 4, 256  # elements in a row of a picture whose channels went last, and its pixels at least

_FAMILIES: dict[Family, tuple[str, ...]] = {
    "recurrent": ("LSTM", "GRU", "RNN", "DynamicQuantizeLSTM", "UNIDIRECTIONAL_SEQUENCE_LSTM", "SVDF"),
    "attention": ("Attention", "QAttention", "MultiHeadAttention"),
    "gather": (
        "Gather", "GatherND", "GatherBlockQuantized", "EMBEDDING_LOOKUP", "GATHER", "GATHER_ND", "ScatterND",
        "ScatterElements", "SCATTER_ND",
    ),
    "normalize": (
        "LayerNormalization", "SkipLayerNormalization", "Softmax", "SOFTMAX", "BatchNormalization", "LogSoftmax",
        "LOG_SOFTMAX",
    ),
    "elementwise": ("CAST", "REDUCE_ALL", "REDUCE_ANY"),
    "reduce": (
        "ReduceMax", "ReduceSum", "ReduceMean", "ReduceMin", "GlobalAveragePool", "QLinearGlobalAveragePool", "MaxPool",
        "NhwcMaxPool",
        "AveragePool", "MEAN", "SUM", "REDUCE_MAX", "REDUCE_MIN", "AVERAGE_POOL_2D", "MAX_POOL_2D",
    ),
    "move": (
        "Reshape", "Transpose", "Concat", "Slice", "Squeeze", "Unsqueeze", "Split", "Pad", "Expand", "Shape", "Flatten",
        "ReorderInput", "ReorderOutput", "Identity", "Tile", "RESHAPE", "TRANSPOSE", "CONCATENATION", "STRIDED_SLICE",
        "SLICE", "SPLIT", "PACK", "UNPACK", "PAD", "SQUEEZE", "EXPAND_DIMS", "BROADCAST_TO", "SHAPE", "IF", "Range",
    ),
    "quantize": ("QuantizeLinear", "DequantizeLinear", "DynamicQuantizeLinear", "Cast", "QUANTIZE", "DEQUANTIZE"),
}  # fmt: skip
_BY_KIND: dict[str, Family] = {kind: family for family, kinds in _FAMILIES.items() for kind in kinds}
_WEIGHTS_AT = {"QLinearConv": 3}
MOVED_BY_RUNS = ("Concat", "Slice", "Pad", "CONCATENATION", "STRIDED_SLICE", "PAD")
COMPARED = ("NOT_EQUAL", "SELECT_V2")
BINARY = ("Add", "Mul", "ADD", "MUL")
PRODUCTS: tuple[Family, ...] = ("conv", "pointwise", "depthwise", "dense", "matmul", "recurrent", "attention")


@dataclasses.dataclass(frozen=True)
class Cell:
    """One call of one operator, as far as its cost depends on it.

    Attributes:
        family: What it is like.
        kind: Name under which its kernel is calibrated.
        int8: Whether it multiplies 8-bit integers.
        sizes: rows, inner, columns of a product; elements otherwise.
        macs: Multiply-accumulates.
        bytes: Bytes read and written, of a table only the rows that are read.
        grid: What a calibrated table is looked up by (`coordinates`).
    """

    family: Family
    kind: str
    int8: bool
    sizes: tuple[int, ...]
    macs: int
    bytes: int
    grid: tuple[int, ...] = ()

    @property
    def key(self) -> str:
        """Name of the table that holds its measurements."""
        return f"{self.family}/{self.kind}/{'int8' if self.int8 else 'float'}"


def cell(op: OpCost) -> Cell:
    """One call of an operator as an engine traced it."""
    calls = max(op.calls, 1)
    macs = (op.macs or 0) // calls
    outputs = sum(math.prod(shape) for shape in op.outputs)
    family = _family(op, macs)
    kind = _integer(op) or SAME.get(op.kind, op.kind)
    if "DEPTHWISE" in kind and family == "conv":
        kind = "CONV_2D"
    if kind == "TRANSPOSE" and _is_made_thin(op):
        kind += coordinates.THIN
    if (family == "conv" or (family == "pointwise" and not _is_tflite(op))) and _is_narrow(op):
        kind += "1d"  # blocked kernels are for pictures
    if family in PRODUCTS and macs and op.outputs:
        sizes = _product(op, family, macs)
        if family in ("dense", "conv") and sizes[0] == 1:
            kind += coordinates.VECTOR
    else:
        # A table counts with the rows that are read, a reduction with what goes in.
        counts = outputs if _is_counted_by_outputs(op, family) else max(map(math.prod, op.inputs), default=0)
        sizes = (max(outputs, counts, 1),)
    moved = (op.bytes or 0) // calls
    # There and back cost the same; rows are copied as they are, but where they are made floating point on the way.
    int8 = op.int8 and family not in ("quantize", "gather")
    if family == "gather" and "catter" not in op.kind.lower():
        int8 = _has_int8_table(op)
    grid = _grid(op, family, kind, int8, sizes)
    return Cell(family, kind, int8, sizes, macs, min(moved, 8 * outputs) if family == "gather" else moved, grid)


def _integer(op: OpCost) -> str:
    """Kernel of LiteRT's element-wise integers; empty: it is none of them."""
    if not _is_tflite(op) or op.dtype not in _INTEGERS or op.kind not in _OF_INTEGERS:
        return ""
    kind = _OF_INTEGERS[op.kind]
    repeated = kind in _REPEATED and coordinates.differ(op)
    return kind + coordinates.INT + (coordinates.BROADCAST if repeated else "")


def _is_made_thin(op: OpCost) -> bool:
    if not op.inputs or not op.outputs or not op.outputs[0]:
        return False
    last = op.outputs[0][-1]
    return last <= _THIN and last < op.inputs[0][-1] and math.prod(op.outputs[0][:-1]) >= _MANY


def _is_counted_by_outputs(op: OpCost, family: Family) -> bool:
    """A table counts with the rows that are read, a part with what is taken; others with what goes in, too."""
    return (family == "gather" and "catter" not in op.kind.lower()) or op.kind in ("Slice", "SLICE", "STRIDED_SLICE")


def _grid(op: OpCost, family: Family, kind: str, int8: bool, sizes: tuple[int, ...]) -> tuple[int, ...]:
    if len(sizes) == 3 and family == "matmul":
        batch = max(math.prod(op.outputs[0][:-2]), 1)
        return batch, max(sizes[0] // batch, 1), sizes[1], coordinates.product(kind, False, sizes, 1)[2]
    if len(sizes) == 3 and family != "recurrent":
        if family == "depthwise":
            return coordinates.product(kind, False, sizes, 1)
        taps = 1 if family != "conv" or len(_kernel(op)) < 3 else math.prod(_taps(op))
        return coordinates.product(kind, int8, sizes, max(sizes[1] // taps, 1))
    if kind in MOVED_BY_RUNS:
        return *sizes, min(coordinates.run(op), *sizes)
    if kind == "NhwcMaxPool" and op.outputs:
        return math.prod(op.outputs[0]), op.outputs[0][-1]
    if kind in COMPARED:
        return *sizes, min(coordinates.compared_run(op), *sizes)
    if kind in BINARY:
        return *sizes, min(coordinates.binary_run(op), *sizes)
    if family == "gather":
        return *sizes, min(coordinates.row(op), *sizes)
    return sizes


def _taps(op: OpCost) -> Sequence[int]:
    return _kernel(op)[1:-1] if _is_tflite(op) else _kernel(op)[2:]


def _family(op: OpCost, macs: int) -> Family:
    if op.kind in _BY_KIND:
        return _BY_KIND[op.kind]
    if not macs:
        return "elementwise"
    if "DEPTHWISE" in op.kind:
        # Of one channel everything that comes out is made: that is a convolution like others, and runs as one.
        return "conv" if op.inputs and op.inputs[0][-1] == 1 < op.outputs[0][-1] else "depthwise"
    if op.calls > 1 and op.kind == "FULLY_CONNECTED" and math.prod(op.outputs[0][:-1]) <= 2:
        return "recurrent"  # in the body that is called once a step; with more rows it is a product like others
    if "Conv" in op.kind or "CONV" in op.kind:
        return _convolution(op)
    if op.kind in ("MatMul", "FusedMatMul", "BATCH_MATMUL") and _both_are_batched(op.inputs):
        return "matmul"
    return "dense"


def _convolution(op: OpCost) -> Family:
    weights = _kernel(op)
    if len(weights) < 3:
        return "conv"
    # One channel goes into each that comes out. Where that is the only channel there is, less goes in than comes out.
    if not _is_tflite(op) and weights[1] == 1 and 2 * math.prod(op.inputs[0]) >= math.prod(op.outputs[0]):
        return "depthwise"
    return "pointwise" if math.prod(_taps(op)) == 1 else "conv"


def _kernel(op: OpCost) -> Sequence[int]:
    """Shape of a convolution's weights: [out, in, *kernel] in ONNX, [out, *kernel, in] in TFLite."""
    at = _WEIGHTS_AT.get(op.kind, 1)
    return op.inputs[at] if len(op.inputs) > at else ()


def _is_tflite(op: OpCost) -> bool:
    return op.kind.isupper()


def _is_narrow(op: OpCost) -> bool:
    """A convolution over one axis."""
    if not _is_tflite(op):
        return len(_kernel(op)) == 3
    if len(_kernel(op)) == 4 and max(_taps(op)) > 1:
        return min(_taps(op)) == 1
    spatial = op.outputs[0][1:-1] if op.outputs else ()
    return len(spatial) < 2 or min(spatial) == 1 < max(spatial)


def _both_are_batched(inputs: Sequence[Sequence[int]]) -> bool:
    return len(inputs) > 1 and len(inputs[1]) > 2


def _has_int8_table(op: OpCost) -> bool:
    """Told by what comes out, or where that is made floating point by the bytes that go in: a value takes one."""
    if op.dtype in ("int8", "uint8"):
        return True
    shapes = [shape for shape in op.inputs if shape]
    table = max(shapes, key=math.prod, default=())
    made = sum(map(math.prod, op.outputs))
    taken = min(made, math.prod(table))
    # What `macs.read_bytes` counts of the others: scales have as many rows as the table.
    parts = [math.prod(shape) * (taken / math.prod(table) if shape[0] == table[0] else 1.0) for shape in shapes]
    others = made + sum(parts) - taken
    return 0 < (op.bytes or 0) / max(op.calls, 1) - 4 * others < 2 * taken


def _product(op: OpCost, family: Family, macs: int) -> tuple[int, ...]:
    if family == "recurrent" and len(op.inputs) > 2 and len(op.inputs[1]) == 3:
        steps, batch, _ = op.inputs[0]
        directions = op.inputs[1][0]
        # The quantized kernel keeps its weights transposed: sizes are sorted out by the count.
        gates = min(op.inputs[2][1:]) * 4
        # Samples of a batch are counted as steps: they share the call of a step, but little of its work.
        return steps * directions * batch, max(macs // max(steps * directions * batch * gates, 1), 1), gates
    output = op.outputs[0]
    columns = output[-1] if output else 1
    if family in ("conv", "pointwise", "depthwise") and not _is_tflite(op) and _kernel(op):
        columns = _kernel(op)[0]  # ONNX Runtime moves channels to the end where its kernels want them there
    rows = max(math.prod(output) // max(columns, 1), 1)
    return rows, max(macs // max(rows * columns, 1), 1), max(columns, 1)
