"""Constant ends in the tensors an int8 LSTM quantizes at run time, so that a sample's answer is the same in any batch.

before: x ──► LSTM(W [D,4H,I], R [D,4H,H], B [D,8H]) ──► Y [T,D,B,H]
after:  x ──► Concat(low, high) ──► LSTM(W [D,4K,I+2], R [D,4K,K], B [D,8K]) ──► Y [T,D,B,K] ──► Slice ──► Y,  K = H + 2
        given states: h ──► Concat(low, high), c ──► Concat(their cells);  Y_h and Y_c are sliced as Y is

The kernel takes one scale from the smallest and largest value of all of x, and one a step from those of all of h: what
else is in the batch moves both. Two columns of x (their weights are zero) and two hidden units (nobody reads them)
hold the calibrated ends. Values outside the ends widen the range as before: they are not clipped.

A unit that holds m needs no initial state. All gates get zero weights; with cell c* = atanh(m) the biases are those of
    |c*| < 1:   f = 0, i = 1, g = c*                 h = m from the first step on
    |c*| >= 1:  f = 1 - 1/|c*|, i = 1, g = ±1        c_t = c* (1 - f^t) goes to c*, h to m
From a cell of 0 no unit reaches more than tanh(t) after t steps either. Given states hold m and c* from the start.

The columns and units cost about a tenth of the layer's gain, so a student gets no more of them than it needs: `LEVELS`
are tried in order, and `company` tells how far answers then depend on each other.

Layers with `clip`, `input_forget`, peepholes or other activations keep their h as it is.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Literal, get_args

import numpy as np

from edgekit_converters.onnx.edit import Editor, attribute, constant
from edgekit_converters.onnx.observe import Range

if TYPE_CHECKING:
    import onnx_ir as ir

ENDS = 2
# What is pinned, the fastest first.
Level = Literal["nothing", "x", "x and h"]
LEVELS: tuple[Level, ...] = get_args(Level)
# Smallest cosine between answers alone and in company: half of what is allowed, as calibration sees few samples.
ENOUGH = 0.99995
# The int8 graph's values stray from those of fp32, on which the ends were seen; and few samples do not show
# all of it; 5 % cost 0.3 dB.
_ROOM = 1.05
# Sigmoid and tanh of it are 0 or 1 in fp32.
_FULL = 20.0
# atanh(1) is infinite; 0.9999 is within half a step of 8 bits over [-1, 1].
_LARGEST = 0.9999
_ANY = np.iinfo(np.int64).max
_ACTIVATIONS = ("sigmoid", "tanh", "tanh")


@dataclasses.dataclass(frozen=True)
class Ends:
    """Calibrated ranges of a layer's x and Y; None: not seen, not pinned."""

    x: Range | None
    y: Range | None


def tensors(nodes: Sequence[ir.Node]) -> list[str]:
    """Names of the tensors whose ranges the layers need: x and, where somebody reads it, Y."""
    values = [value for node in nodes for value in (node.inputs[0], node.outputs[0])]
    return sorted({value.name for value in values if value is not None and value.name})


def ends(nodes: Sequence[ir.Node], seen: Mapping[str, Range], level: Level = LEVELS[-1]) -> dict[str, Ends]:
    """The ranges to pin by node name, taken before other passes put other tensors in front of the layers."""
    if level == "nothing":
        return {}
    wide = {name: Range(span.min * _ROOM, span.max * _ROOM) for name, span in seen.items()}
    found = {}
    for node in nodes:
        x, y = node.inputs[0], node.outputs[0]
        h = wide.get(y.name or "") if level == "x and h" else None
        found[node.name or ""] = Ends(wide.get(x.name or "") if x is not None else None, h)
    return found


def apply(editor: Editor, node: ir.Node, known: Ends) -> None:
    """Puts the ends into one LSTM node with constant W and R, in place; its readers are left to the caller."""
    x = node.inputs[0]
    if x is not None and known.x is not None:
        _pin_input(editor, node, x, known.x)
    if known.y is not None and _plain(node):
        _pin_state(editor, node, known.y)


def _plain(node: ir.Node) -> bool:
    kinds = [str(kind).lower() for kind in attribute(node, "activations", _ACTIVATIONS)]
    bias = node.inputs[3] if len(node.inputs) > 3 else None
    peepholes = node.inputs[7] if len(node.inputs) > 7 else None
    return (
        tuple(kinds) in (_ACTIVATIONS, 2 * _ACTIVATIONS)
        and "clip" not in node.attributes
        and not attribute(node, "input_forget", 0)
        and peepholes is None
        and (bias is None or constant(bias) is not None)
    )


def _pin_input(editor: Editor, node: ir.Node, x: ir.Value, span: Range) -> None:
    node.replace_input_with(0, _beside(editor, node, x, (span.min, span.max)))
    weight = constant(node.inputs[1])
    assert weight is not None
    node.replace_input_with(1, editor.constant(np.pad(weight, [(0, 0), (0, 0), (0, ENDS)])))


def _pin_state(editor: Editor, node: ir.Node, span: Range) -> None:
    import onnx_ir as ir

    weight, state = constant(node.inputs[1]), constant(node.inputs[2])
    assert weight is not None and state is not None
    directions, _, units = state.shape
    wide = units + ENDS
    given = constant(node.inputs[3]) if len(node.inputs) > 3 else None
    bias = np.zeros((directions, 8 * units), np.float32) if given is None else given
    rows = np.pad(weight.reshape(directions, 4, units, -1), [(0, 0), (0, 0), (0, ENDS), (0, 0)])
    square = np.pad(state.reshape(directions, 4, units, units), [(0, 0), (0, 0), (0, ENDS), (0, ENDS)])
    biases = np.pad(bias.reshape(directions, 8, units), [(0, 0), (0, 0), (0, ENDS)])
    biases[:, :4, units:] = np.stack([holding(span.min), holding(span.max)], axis=1)
    if len(node.inputs) < 4:
        node.resize_inputs(4)
    node.replace_input_with(1, editor.constant(rows.reshape(directions, 4 * wide, -1)))
    node.replace_input_with(2, editor.constant(square.reshape(directions, 4 * wide, wide)))
    node.replace_input_with(3, editor.constant(biases.reshape(directions, 8 * wide)))
    for index, ends in ((5, (span.min, span.max)), (6, (_cell(span.min), _cell(span.max)))):
        value = node.inputs[index] if len(node.inputs) > index else None
        if value is not None:
            node.replace_input_with(index, _beside(editor, node, value, ends))
    node.attributes["hidden_size"] = ir.AttrInt64("hidden_size", wide)


def holding(level: float) -> np.ndarray:
    """Biases of the gates i, o, f, g, float32 [4], with which a unit's h goes to `level` and stays there."""
    cell = _cell(level)
    if abs(cell) < 1.0:
        return np.array([_FULL, _FULL, -_FULL, np.arctanh(cell)], np.float32)
    keep = 1.0 - 1.0 / abs(cell)
    forget = np.log(keep / (1.0 - keep)) if keep > 0 else -_FULL
    return np.array([_FULL, _FULL, forget, np.copysign(_FULL, cell)], np.float32)


def _cell(level: float) -> float:
    return float(np.arctanh(np.clip(level, -_LARGEST, _LARGEST)))


def _beside(editor: Editor, node: ir.Node, value: ir.Value, ends: tuple[float, float]) -> ir.Value:
    """The value [.., .., K] with two constant columns after its own; two Pads would take twice the time."""
    # The shape with 1 in place of K: the columns are spread over the first two axes and keep their own width.
    one = editor.constant(np.array([_ANY, _ANY, 1]))
    shape = editor.one(node, "Min", editor.one(node, "Shape", value), one)
    columns = editor.one(node, "Expand", editor.constant(np.array([[ends]], np.float32)), shape)
    return editor.one(node, "Concat", value, columns, axis=2)
