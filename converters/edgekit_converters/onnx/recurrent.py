"""Recurrent layers: LSTM on onnxruntime's int8 kernel, GRU and RNN with weights stored in int8.

LSTM   before: x ──► LSTM(W [D,4H,I], R [D,4H,H], B)
       after:  x ──► DynamicQuantizeLSTM(W int8 [D,I,4H], R int8 [D,H,4H], B, scales [D,4H], zero points [D,4H])
       first, where ranges are known, what `pins` does
GRU    before: x ──► GRU(W [D,3H,I], R, B)
       after:  W int8 ──► Cast ──► Mul(scale a row) ──► GRU        (folded when the engine opens the file)

The contributed LSTM wants its weights transposed and quantizes input and state itself, each step, with one scale a
tensor: `pins` makes those scales the same in any company. There is no int8 GRU in onnxruntime: its bytes shrink, its
arithmetic stays in fp32. Cast and Mul are used instead of DequantizeLinear because the engine folds those at load and
leaves DequantizeLinear to run every time.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np

from edgekit_converters.onnx import pins
from edgekit_converters.onnx.edit import CONTRIB, Editor, attribute, constant
from edgekit_converters.onnx.qmath import quantize_weight

if TYPE_CHECKING:
    import onnx_ir as ir

_KEPT = ("activations", "activation_alpha", "activation_beta", "clip", "direction", "hidden_size", "input_forget")
_LSTM_INPUTS = 8


def apply_lstm(
    editor: Editor, nodes: list[ir.Node], *, ends: Mapping[str, pins.Ends] | None = None, levels: int = 127
) -> None:
    """Rewrites LSTM nodes with constant W and R into DynamicQuantizeLSTM; edits the graph.

    Args:
        editor: Of the graph.
        nodes: The layers.
        ends: Calibrated ranges by node name, see `pins.ends`; layers without them are not pinned.
        levels: Largest absolute code of a weight.
    """
    for node in nodes:
        units = attribute(node, "hidden_size", 0)
        if ends and (known := ends.get(node.name or "")) is not None:
            pins.apply(editor, node, known)
        pinned = attribute(node, "hidden_size", 0) > units
        quantized = [_channels(node.inputs[index], levels) for index in (1, 2)]
        inputs: list[ir.Value | None] = [*node.inputs, *[None] * (_LSTM_INPUTS - len(node.inputs))]
        for index, (codes, scale) in zip((1, 2), quantized, strict=True):
            inputs[index] = editor.constant(np.ascontiguousarray(codes.transpose(0, 2, 1)))
            inputs += [editor.constant(scale), editor.constant(np.zeros(scale.shape, np.int8))]
        attributes = {name: node.attributes[name].value for name in _KEPT if name in node.attributes}
        outputs = editor.node(
            node, "DynamicQuantizeLSTM", inputs, outputs=len(node.outputs), domain=CONTRIB, **attributes
        )
        for old, new in zip(node.outputs, outputs, strict=True):
            if old.uses() or old.is_graph_output():
                if pinned:
                    begin, end, axis = (editor.constant(np.array([number])) for number in (0, units, -1))
                    new = editor.one(node, "Slice", new, begin, end, axis)
                editor.replace(old, new)
            else:
                new.name = ""
        editor.remove(node)


def apply_storage(editor: Editor, nodes: list[ir.Node]) -> None:
    """Stores constant weights in int8: W and R of recurrent layers a scale a row, others a scale an output channel."""
    for node in nodes:
        if node.op_type in ("Conv", "ConvTranspose", "Gemm", "MatMul"):
            weight = constant(node.inputs[1])
            assert weight is not None
            axis = _output_axis(node, weight.ndim)
            codes, scale = quantize_weight(weight, axis)
            _store(editor, node, 1, codes, scale.reshape([-1 if i == axis else 1 for i in range(weight.ndim)]))
            continue
        for index in (1, 2):
            codes, scale = _channels(node.inputs[index], 127)
            _store(editor, node, index, codes, scale[:, :, None])


def _output_axis(node: ir.Node, axes: int) -> int:
    if node.op_type in ("Conv", "ConvTranspose"):
        return 0 if node.op_type == "Conv" else 1
    return 0 if attribute(node, "transB", 0) else axes - 1


def _store(editor: Editor, node: ir.Node, index: int, codes: np.ndarray, scale: np.ndarray) -> None:
    whole = editor.one(node, "Cast", editor.constant(codes), to=1)
    node.replace_input_with(index, editor.one(node, "Mul", whole, editor.constant(scale)))


def _channels(value: ir.Value | None, levels: int) -> tuple[np.ndarray, np.ndarray]:
    """int8 codes [D, gates * H, K] and scales [D, gates * H] of a recurrent weight."""
    weight = constant(value)
    assert weight is not None
    directions, channels, size = weight.shape
    codes, scale = quantize_weight(weight.reshape(directions * channels, size), 0, levels=levels)
    return codes.reshape(weight.shape), scale.reshape(directions, channels)
