"""By what a calibrated table is looked up: sizes as a kernel sees them, so that time is smooth between the points.

    product  [rows, inner, columns] in whole vectors: 100 columns take the time of 128 where a tile has 32
    moving   elements and the run that lies together: rows of one element cost a call each, whole tensors a memcpy
    binary   elements and the run over which both operands go on alike

Widths of tiles are those of the engines' kernels for 512-bit vectors. XNNPACK: 16 or 32 columns of fp32, 16 columns by
8 products of int8. ONNX Runtime (MLAS): 16 columns, and of a convolution over one axis 16 rows, which are the columns
of the product that it becomes. Where vectors are shorter these are multiples of the true widths.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from edgekit_runtime.measurement import OpCost

Shape = Sequence[int]
THIN = "Thin"  # behind that of a transposition that leaves at most four in a row
INT, BROADCAST = "Int", "Broadcast"  # behind that of one that LiteRT does itself: int32; operands that differ in shape
VECTOR = "Vector"  # behind the name of a kernel that has one row: the engines have kernels of their own for it


def product(kind: str, int8: bool, sizes: Sequence[int], channels: int) -> tuple[int, int, int]:
    """Rows, inner and columns of a product with constant weights in whole vectors.

    Args:
        kind: Kernel as in `families.Cell`; capital letters are TFLite's.
        int8: As there.
        sizes: rows, inner, columns.
        channels: Of `inner`, those that lie together: what goes into one tap of a convolution.
    """
    rows, inner, columns = sizes
    kind = kind.removesuffix(VECTOR)
    narrow = kind.endswith("1d")
    if kind.removesuffix("1d").isupper():
        if not int8:
            return rows, inner, 16 if columns <= 16 else _whole(columns, 32)
        return rows, inner // max(channels, 1) * _whole(channels, 8), _whole(columns, 16)
    if not int8 and narrow:
        return (rows if rows == 1 else _whole(rows, 16)), inner, columns
    return rows, _whole(inner, 4) if int8 else inner, _whole(columns, 16)


def run(op: OpCost) -> int:
    """Elements that lie together in what goes in and in what comes out of an operator that moves data.

    From the last axis on, axes of equal size count as a whole; of the first that differs, what both have. Where several
    tensors are joined or taken apart there each has its own part of it.
    """
    outputs = [shape for shape in op.outputs if shape]
    if not outputs:
        return 1
    if op.kind in ("PAD", "PADV2"):
        return _padded_run(op)
    several = [shape for shape in op.inputs if len(shape) == len(outputs[0])] if len(outputs) == 1 else outputs
    whole = outputs[0] if len(outputs) == 1 else max(op.inputs, key=math.prod, default=outputs[0])
    if not several or len(several[0]) != len(whole):
        return math.prod(whole)
    other = max(several, key=math.prod)
    length = 1
    for mine, theirs in zip(reversed(whole), reversed(other), strict=True):
        if mine == theirs:
            length *= mine
            continue
        if "STRIDED" in op.kind and _is_every(theirs, mine):  # taken one by one
            return 1
        parts = len(several) if "PAD" not in op.kind.upper() else 1  # widths of a padding are no part of it
        joined = parts > 1 and sum(map(math.prod, several)) == math.prod(whole)
        return max(length * mine // len(several), 1) if joined else length * min(mine, theirs)
    return length


def _padded_run(op: OpCost) -> int:
    """What XNNPACK's padding copies or fills at a time: what lies behind the last axis that grows, or that axis itself.

    Padding of the columns of a picture with channels last goes pixel by pixel.
    """
    length = 1
    for before, after in zip(reversed(op.inputs[0]), reversed(op.outputs[0]), strict=False):
        if before != after:
            return before if length == 1 else length
        length *= after
    return length


def differ(op: OpCost) -> bool:
    """Whether the operands of an element-wise operator have several shapes, so that one is repeated."""
    shapes = [tuple(size for size in shape if size != 1) for shape in op.inputs]
    return len(set(shapes)) > 1


def compared_run(op: OpCost) -> int:
    """Elements that LiteRT compares or selects in one go: all of equal shapes, else those of the last axis."""
    output = op.outputs[0] if op.outputs else ()
    if op.kind.startswith("REDUCE"):  # its second operand is an axis
        return math.prod(output)
    return (output[-1] if len(output) > 1 else math.prod(output)) if differ(op) else math.prod(output)


def binary_run(op: OpCost) -> int:
    """Elements over which the operands of an element-wise operator go on alike, from the last axis on."""
    output = op.outputs[0] if op.outputs else ()
    inputs = [(*[1] * (len(output) - len(shape)), *shape) for shape in op.inputs if len(shape) <= len(output)]
    length, pattern = 1, None
    for axis in range(len(output) - 1, -1, -1):
        if output[axis] == 1:
            continue
        here = tuple(shape[axis] == output[axis] for shape in inputs)
        if pattern not in (None, here):
            break
        length, pattern = length * output[axis], here
    return max(length, 1)


def row(op: OpCost) -> int:
    """Elements of one row that is gathered or scattered: what the table has behind its first axis."""
    table = max(op.inputs, key=math.prod, default=())
    outputs = math.prod(op.outputs[0]) if op.outputs else 1
    length = math.prod(table[1:]) if len(table) > 1 else 1
    return length if outputs % max(length, 1) == 0 else (op.outputs[0][-1] if op.outputs and op.outputs[0] else 1)


def _is_every(there: int, taken: int) -> bool:
    """Whether every second, third or fourth is taken, as far as numbers tell."""
    return taken > 1 and any(there // step <= taken <= -(-there // step) for step in (2, 3, 4))


def _whole(size: int, tile: int) -> int:
    return max(-(-size // tile) * tile, 1)
