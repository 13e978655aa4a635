"""A weighted sum of rows of a table (EmbeddingBag) on the int8 rows themselves.

before: ids [B,T] ──► Gather(table) ──► rows [B,T,D] ──┐
        w [B,1,T] ─────────────────────────────────────┴► MatMul ──► [B,1,D]

w is any number a row:
after:  ids ──► Gather(table int8) ──► codes [B,T,D] ───────────────────────────┐
        ids ──► Gather(scales [V]) ──► Unsqueeze ──► Mul(w) ──► v [B,1,T]       │
        v ──► Abs ──► ReduceMax ──► Max(tiny) ──► r [B,1,1]                     │
        v ──► Div(r) ──► QuantizeLinear (u8, zero point 128) ──► MatMulInteger ─┴► Cast ──► Mul(r / 127) ──► [B,1,D]

w is Cast(bool), so a row counts or does not, and the rows are about as large as each other (`whole_scales`):
after:  ids ──► Gather(table int8) ──► codes [B,T,D] ───────────────────────┐
        ids ──► Gather(m u8 [V]) ──► Unsqueeze ──► Where(bool, 0) ──► MatMulInteger ──► Cast ──► Mul(s) ──► [B,1,D]

The rows never become float: at 512 rows of 256 values 26 µs against 37 µs in fp32 and 61 µs with dequantized rows
(onnxruntime 1.31, one Zen 4 core). Each bag has a scale of its own in the first form and needs none in the second, so
an answer does not depend on the batch. In the second a row's scale is s * m with a whole m, so that the sum is exact
and seven nodes go; where bool is `ids != padding`, m is 0 at the padding row and Where goes too. 128 rows of 256
values and two dense layers: 0.86 times as fast as fp32 in the first form, 1.03 in the second, in alternation.
In another run, with the same int8 dense layer: first form 0.95, second 1.09, int8 rows cast to fp32 0.93,
GatherBlockQuantized 0.76 (onnxruntime 1.32, one busy Zen 4 core).
Two-axis bags (w [B,N], rows [N,D]) go the same way.
"""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

import numpy as np

from edgekit_converters.onnx.edit import Editor, attribute, constant, consumers
from edgekit_converters.onnx.qmath import quantize_weight

if TYPE_CHECKING:
    import onnx_ir as ir

_TINY = np.float32(1e-12)
_FLOAT = 1
_LARGEST_FACTOR = 255
# A factor below this would make a row's steps more than 1/16 coarser than its own scale (0.5 dB).
_LEAST_FACTOR = 16
# What answers in bool, by the standard.
_BOOLEAN = {"And", "Equal", "Greater", "GreaterOrEqual", "Less", "LessOrEqual", "Not", "Or", "Xor"}


def looked_up(node: ir.Node) -> ir.Node | None:
    """The Gather of table rows that a MatMul sums; None where its second operand is something else, or read twice."""
    rows = node.inputs[1] if node.op_type == "MatMul" else None
    gather = rows.producer() if rows is not None else None
    if gather is None or rows is None or gather.op_type != "Gather" or attribute(gather, "axis", 0) != 0:
        return None
    table = constant(gather.inputs[0])
    alone = len(consumers(rows)) == 1 and not rows.is_graph_output()
    return gather if alone and table is not None and table.ndim == 2 else None


def summed_whole(node: ir.Node) -> bool:
    """Whether a MatMul that `looked_up` knows takes the second form."""
    gather = looked_up(node)
    table = constant(gather.inputs[0]) if gather is not None else None
    return table is not None and _counted(node) is not None and whole_scales(table) is not None


def whole_scales(table: np.ndarray, *, levels: int = 127) -> tuple[np.ndarray, np.float32] | None:
    """Scales of a table's rows as whole multiples of one number.

    Args:
        table: float32 [V, D].
        levels: Largest absolute code of a row.

    Returns:
        uint8 factors m [V] and the number s: row v times 1 / (s * m[v]) lies within -levels..levels, and a step is at
        most 1/16 wider than the row needs. None where rows differ too much in size for that.
    """
    scale = np.maximum(table.max(axis=1), -table.min(axis=1)).astype(np.float64) / levels
    live = scale[scale > 0]
    if not live.size or live.min() * _LARGEST_FACTOR < live.max() * _LEAST_FACTOR:
        return None
    unit = np.float32(live.max() / _LARGEST_FACTOR)
    factors = np.ceil(scale / float(unit) * (1 - 1e-6))
    return np.clip(factors, 1, _LARGEST_FACTOR).astype(np.uint8), unit


def apply(editor: Editor, nodes: list[ir.Node], *, levels: int = 127) -> None:
    """Rewrites MatMuls whose second operand is looked up in a constant table; edits the graph.

    Args:
        editor: Of the graph.
        nodes: The MatMuls, each one that `looked_up` knows.
        levels: Largest code of a row, 127 or 63.
    """
    for node in nodes:
        gather = looked_up(node)
        assert gather is not None
        table = constant(gather.inputs[0])
        assert table is not None
        counted = _counted(node)
        whole = whole_scales(table, levels=levels) if counted is not None else None
        if counted is not None and whole is not None:
            summed = _whole_sum(editor, node, gather, counted, whole, levels)
        else:
            summed = _scaled_sum(editor, node, gather, levels)
        editor.replace(node.outputs[0], summed)
        editor.remove(node, gather)


@dataclasses.dataclass(frozen=True)
class _Counted:
    """Which rows count: a bool, the axes that Unsqueeze adds to it, and the row that never counts where that is all."""

    mask: ir.Value
    axes: ir.Value | None
    padding: int | None


def _counted(node: ir.Node) -> _Counted | None:
    """Which rows count where the weights of a sum are Cast(bool), perhaps unsqueezed; None for any other weights."""
    cast, axes = node.inputs[0].producer() if node.inputs[0] is not None else None, None
    if cast is not None and cast.op_type == "Unsqueeze":
        axes = cast.inputs[1]
        cast = cast.inputs[0].producer() if cast.inputs[0] is not None else None
    mask = cast.inputs[0] if cast is not None and cast.op_type == "Cast" else None
    maker = mask.producer() if mask is not None else None
    if mask is None or maker is None or maker.op_type not in _BOOLEAN:
        return None
    return _Counted(mask, axes, _padding(node, maker, axes))


def _padding(node: ir.Node, maker: ir.Node, axes: ir.Value | None) -> int | None:
    """The row p where a mask [B,T] is `ids != p`, unsqueezed to [B,1,T]."""
    gather = looked_up(node)
    equal = maker.inputs[0].producer() if maker.op_type == "Not" and maker.inputs[0] is not None else None
    added = constant(axes)
    if gather is None or equal is None or equal.op_type != "Equal" or added is None:
        return None
    ids, table, padding = gather.inputs[1], constant(gather.inputs[0]), constant(equal.inputs[1])
    if ids is None or ids.shape is None or len(ids.shape) != 2 or added.reshape(-1).tolist() not in ([1], [-2]):
        return None
    if equal.inputs[0] is not ids or padding is None or padding.size != 1 or table is None:
        return None
    row = int(padding.reshape(-1)[0])
    return row if 0 <= row < len(table) else None


def _whole_sum(
    editor: Editor,
    node: ir.Node,
    gather: ir.Node,
    counted: _Counted,
    whole: tuple[np.ndarray, np.float32],
    levels: int,
) -> ir.Value:
    (factors, unit), table, ids = whole, constant(gather.inputs[0]), gather.inputs[1]
    assert table is not None
    scale = factors.astype(np.float32) * unit
    codes = np.clip(np.rint(table / scale[:, None]), -levels, levels).astype(np.int8)
    if counted.padding is not None:
        factors = factors.copy()
        factors[counted.padding] = 0
    rows = editor.one(node, "Gather", editor.constant(codes), ids, axis=0)
    weights = editor.one(node, "Gather", editor.constant(factors), ids, axis=0)
    weights = editor.one(node, "Unsqueeze", weights, editor.constant(np.array([-2], np.int64)))
    if counted.padding is None:
        mask = counted.mask if counted.axes is None else editor.one(node, "Unsqueeze", counted.mask, counted.axes)
        weights = editor.one(node, "Where", mask, weights, editor.constant(np.uint8(0)))
    total = editor.one(node, "MatMulInteger", weights, rows)
    return editor.one(node, "Mul", editor.one(node, "Cast", total, to=_FLOAT), editor.constant(unit))


def _scaled_sum(editor: Editor, node: ir.Node, gather: ir.Node, levels: int) -> ir.Value:
    table, ids = constant(gather.inputs[0]), gather.inputs[1]
    assert table is not None
    codes, scale = quantize_weight(table, 0, levels=levels)
    rows = editor.one(node, "Gather", editor.constant(codes), ids, axis=0)
    scales = editor.one(node, "Gather", editor.constant(scale), ids, axis=0)
    middle = editor.constant(np.array([-2], np.int64))
    weights = editor.one(node, "Mul", node.inputs[0], editor.one(node, "Unsqueeze", scales, middle))
    return _integer_sum(editor, node, weights, rows)


def _integer_sum(editor: Editor, node: ir.Node, weights: ir.Value, rows: ir.Value) -> ir.Value:
    last = editor.constant(np.array([-1], np.int64))
    largest = editor.one(node, "ReduceMax", editor.one(node, "Abs", weights), last, keepdims=1)
    largest = editor.one(node, "Max", largest, editor.constant(_TINY))
    step, zero = editor.constant(np.float32(1 / 127)), editor.constant(np.uint8(128))
    codes = editor.one(node, "QuantizeLinear", editor.one(node, "Div", weights, largest), step, zero)
    whole = editor.one(node, "MatMulInteger", codes, rows, zero)
    unit = editor.one(node, "Mul", largest, step)
    return editor.one(node, "Mul", editor.one(node, "Cast", whole, to=_FLOAT), unit)
