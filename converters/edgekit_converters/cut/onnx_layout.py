"""Pictures cross a border of int8 ONNX pieces with their channels last, as the engine keeps them inside.

    as cut:   seg0: … ─► v [B, C, H, W]                        seg1: v ─┬─► Conv ─► Conv ─► Add ─► …
                                                                      └──────────────────▲
    written:  seg0: … ─► v ─► Transpose ─► v_nhwc [B, H, W, C]  seg1: v_nhwc ─► Transpose ─► v ─┬─► Conv ─► Conv ─► Add
                                                                                             └──────────────────▲

ONNX Runtime runs 8-bit convolutions with channels last and pushes the Transposes around them outwards, through an Add
where both of its inputs come from one. A tensor that comes in with its channels first stops that at the first block,
and with it at every later one: each Add runs with channels first, between Transposes. Written so, the Transposes at the
borders cancel out, and each piece is laid out as the uncut graph is.

Joined pieces stay one graph: `v` is made once, equal names mean equal values, and nobody reads the Transposes.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Mapping, Sequence
from typing import TYPE_CHECKING

import msgspec

from edgekit_converters.cut.pieces import Plan, Plans
from edgekit_runtime.manifest import SplitPoint, Tensor, WireTensor

if TYPE_CHECKING:
    import onnx

_LAST, _FIRST = (0, 2, 3, 1), (0, 3, 1, 2)
_EIGHT_BIT = ("int8", "uint8")


def pictures(model: onnx.ModelProto, plans: Plans) -> dict[str, str]:
    """The tensors that cross with channels last, with the names that they cross under.

    Those are 8-bit tensors of four axes that a convolution reads, the dequantizer in front of it left aside.
    """
    known = {name for node in model.graph.node for name in (*node.input, *node.output)}
    dequantized = {node.output[0]: node.input[0] for node in model.graph.node if node.op_type == "DequantizeLinear"}
    read = {
        dequantized.get(node.input[0], node.input[0])
        for node in model.graph.node
        if node.op_type in ("Conv", "QLinearConv")
    }
    crossing = {tensor.name: tensor for plan in plans.segments for tensor in plan.given}
    return {
        name: _free(f"{name}_nhwc", known)
        for name, tensor in crossing.items()
        if name in read and tensor.dtype in _EIGHT_BIT and len(tensor.shape) == 4
    }


def _free(name: str, known: Collection[str]) -> str:
    return name if name not in known else _free(f"{name}_", known)


def turned(tensors: Sequence[Tensor], names: Mapping[str, str]) -> tuple[Tensor, ...]:
    """The tensors as they cross: [B, C, H, W] to [B, H, W, C] where they are pictures."""
    return tuple(
        msgspec.structs.replace(t, name=names[t.name], shape=tuple(t.shape[axis] for axis in _LAST))
        if t.name in names
        else t
        for t in tensors
    )


def turned_plan(plan: Plan, names: Mapping[str, str]) -> Plan:
    """The plan with what it gets and makes as it crosses."""
    return dataclasses.replace(plan, given=turned(plan.given, names), wanted=turned(plan.wanted, names))


def turned_point(point: SplitPoint, names: Mapping[str, str]) -> SplitPoint:
    """The split point with its tensors as they cross."""
    return msgspec.structs.replace(point, tensors=tuple(_turned_wire(tensor, names) for tensor in point.tensors))


def _turned_wire(tensor: WireTensor, names: Mapping[str, str]) -> WireTensor:
    if tensor.name not in names:
        return tensor
    shape = tuple(tensor.shape[axis] for axis in _LAST)
    return msgspec.structs.replace(tensor, name=names[tensor.name], shape=shape)


def turn(model: onnx.ModelProto, names: Mapping[str, str]) -> None:
    """Writes a piece so that its pictures come in and go out with channels last. See the module's docstring."""
    import onnx

    first: list[onnx.NodeProto] = []
    last: list[onnx.NodeProto] = []
    for values, nodes, coming in ((model.graph.input, first, True), (model.graph.output, last, False)):
        for value in values:
            if value.name not in names:
                continue
            inner, outer = value.name, names[value.name]
            ends, order = ((outer, inner), _FIRST) if coming else ((inner, outer), _LAST)
            nodes.append(onnx.helper.make_node("Transpose", ends[:1], ends[1:], name=f"{outer}/Transpose", perm=order))
            value.name = outer
            sizes = [onnx.TensorShapeProto.Dimension.FromString(d.SerializeToString()) for d in _dims(value)]
            for size, axis in zip(_dims(value), _LAST, strict=True):
                size.CopyFrom(sizes[axis])
    own = list(model.graph.node)
    del model.graph.node[:]
    model.graph.node.extend((*first, *own, *last))


def _dims(value: onnx.ValueInfoProto) -> Sequence[onnx.TensorShapeProto.Dimension]:
    return value.type.tensor_type.shape.dim
