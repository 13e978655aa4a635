"""Dense layers with a scale a row: int8 weights per column, uint8 activations whose scale is computed at run time.

before: x ──► MatMul(W) ──► y
after:  x ──► Mul(1/s) ──► u ──► Abs ──► ReduceMax ──► Max(tiny) ──► r       (once for all readers of x)
                           u ──► Div(r) ──► QuantizeLinear ──► codes         (once for all readers of x)
        codes ──► MatMulIntegerToFloat(s * W int8, scale a column) ──► Mul(r) ──► y

Every row is quantized by itself: an answer does not change with what else is in the batch or with padding, and an
outlier row costs the others nothing. A row of zeros divides by `tiny`, never by zero. The operand types matter: u8 x s8
is the fast integer kernel on x86, s8 x s8 is ten times slower there.

s evens out columns that are large in every row (SmoothQuant, Xiao et al., 2211.10438, equation 4); it comes from the
calibration samples and cancels in floating point. Behind Gelu and Relu there is nothing far below zero: those rows use
the whole range of uint8 with a small zero point and need no Abs, and as their large values are rare they get no s.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np

from edgekit_converters.onnx.edit import CONTRIB, Editor, attribute, constant
from edgekit_converters.onnx.qmath import quantize_weight

if TYPE_CHECKING:
    import onnx_ir as ir

_TINY = np.float32(1e-9)
# The smallest value of Gelu is -0.16997, at x = -0.7517.
_GELU_DEPTH = 0.17
_GELU_ZERO = 16


@dataclasses.dataclass(frozen=True)
class _Rows:
    """Quantized rows of one tensor: codes, their constant scale and zero point, each row's scale, the smoothing."""

    codes: ir.Value
    scale: ir.Value
    zero_point: ir.Value
    row: ir.Value
    smooth: np.ndarray | None


def apply(editor: Editor, nodes: list[ir.Node], largest: Mapping[str, np.ndarray], *, levels: int = 127) -> None:
    """Rewrites MatMul and Gemm nodes with constant weights; edits the graph.

    Args:
        editor: Of the graph.
        nodes: The nodes, in graph order.
        largest: For each input tensor's name, the largest absolute value of each column seen in calibration [K]; a
            tensor that is missing is not smoothed.
        levels: Largest weight code, 127 or 63.
    """
    readers: dict[str, list[ir.Node]] = {}
    for node in nodes:
        readers.setdefault(_source(node).name or "", []).append(node)
    for name, group in readers.items():
        x, before = _source(group[0]), group[0]
        floor = lowest(x)
        if floor is not None:
            rows = _quantize_positive(editor, x, before, floor)
        else:
            smooth = smoothing(largest[name], [_weight(node) for node in group]) if name in largest else None
            rows = _quantize(editor, x, before, smooth)
        for node in group:
            _dense(editor, node, rows, levels)


def lowest(value: ir.Value) -> float | None:
    """How far below zero a value may reach where its producer tells (Relu 0, Gelu 0.17), None where it does not."""
    node = value.producer()
    if node is None:
        return None
    if node.op_type in ("Relu", "Sigmoid"):
        return 0.0
    if node.op_type == "Gelu" or (node.op_type == "Mul" and _is_gelu(node)):
        return _GELU_DEPTH
    return None


def smoothing(largest: np.ndarray, weights: list[np.ndarray]) -> np.ndarray:
    """S = sqrt(max |x_k| / max |W_k|) for each column k, scaled to a geometric mean of 1. float32 [K]."""
    rows = np.maximum(np.max([np.abs(weight).max(axis=1) for weight in weights], axis=0), 1e-5)
    scale = np.sqrt(np.maximum(largest.astype(np.float64), 1e-5) / rows)
    return (scale / np.exp(np.log(scale).mean())).astype(np.float32)


def _is_gelu(node: ir.Node) -> bool:
    """Mul(Mul(x, Add(1, Erf)), 0.5), the form that `canonical` writes."""
    half = [constant(value) for value in node.inputs]
    if not any(array is not None and array.size == 1 and float(array.reshape(-1)[0]) == 0.5 for array in half):
        return False
    inner = [value.producer() for value in node.inputs if value is not None and value.producer() is not None]
    factors = [v.producer() for n in inner if n is not None and n.op_type == "Mul" for v in n.inputs if v is not None]
    sums = [v.producer() for n in factors if n is not None and n.op_type == "Add" for v in n.inputs if v is not None]
    return any(n is not None and n.op_type == "Erf" for n in sums)


def _source(node: ir.Node) -> ir.Value:
    value = node.inputs[0]
    assert value is not None
    return value


def _weight(node: ir.Node) -> np.ndarray:
    """The constant factor as [K, N]."""
    weight = constant(node.inputs[1])
    assert weight is not None
    return weight.T if attribute(node, "transB", 0) else weight


def _quantize(editor: Editor, x: ir.Value, before: ir.Node, smooth: np.ndarray | None) -> _Rows:
    even = x if smooth is None else editor.one(before, "Mul", x, editor.constant(1 / smooth))
    axes = editor.constant(np.array([-1], np.int64))
    largest = editor.one(before, "ReduceMax", editor.one(before, "Abs", even), axes, keepdims=1)
    row = editor.one(before, "Max", largest, editor.constant(_TINY))
    scale, zero = editor.constant(np.float32(1 / 127)), editor.constant(np.uint8(128))
    codes = editor.one(before, "QuantizeLinear", editor.one(before, "Div", even, row), scale, zero)
    return _Rows(codes, scale, zero, row, smooth)


def _quantize_positive(editor: Editor, x: ir.Value, before: ir.Node, depth: float) -> _Rows:
    """Rows that reach at most `depth` below zero: the step covers [-depth, largest] whatever the row."""
    zero_point = _GELU_ZERO if depth else 0
    axes = editor.constant(np.array([-1], np.int64))
    step = editor.constant(np.float32(1 / (255 - zero_point)))
    row = editor.one(before, "Mul", editor.one(before, "ReduceMax", x, axes, keepdims=1), step)
    smallest = np.float32(depth / zero_point) if zero_point else _TINY
    row = editor.one(before, "Max", row, editor.constant(smallest))
    scale, zero = editor.constant(np.float32(1)), editor.constant(np.uint8(zero_point))
    codes = editor.one(before, "QuantizeLinear", editor.one(before, "Div", x, row), scale, zero)
    return _Rows(codes, scale, zero, row, None)


def _dense(editor: Editor, node: ir.Node, rows: _Rows, levels: int) -> None:
    weight = _weight(node)
    if rows.smooth is not None:
        weight = weight * rows.smooth[:, None]
    codes, scale = quantize_weight(np.ascontiguousarray(weight), 1, levels=levels)
    operands = [rows.codes, editor.constant(codes), rows.scale, editor.constant(scale), rows.zero_point]
    product = editor.one(node, "MatMulIntegerToFloat", *operands, domain=CONTRIB)
    answer = editor.one(node, "Mul", product, rows.row)
    if len(node.inputs) > 2 and node.inputs[2] is not None:
        answer = editor.one(node, "Add", answer, node.inputs[2])
    editor.replace(node.outputs[0], answer)
    editor.remove(node)
