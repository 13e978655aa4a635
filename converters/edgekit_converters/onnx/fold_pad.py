"""Zeros around a picture become the convolution's own padding.

before: x ──► Pad(0.0; rows 0 and 1, columns 0 and 1) ──► Conv(pads 0) ──► y
after:  x ──► Conv(pads [0, 0, 1, 1]) ──► y

ONNX lets a Conv pad differently at each end, which torch's layers do not: TensorFlow's `same` with stride 2 and
`padding="same"` with an even kernel come as a Pad. Folded, nothing is copied, and in int8 no Pad stands between two
integer kernels.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from edgekit_converters.onnx.edit import attribute, constant, consumers

if TYPE_CHECKING:
    import onnx_ir as ir


def fold_pad(model: ir.Model) -> int:
    """Folds zero padding of spatial axes into the Convs that read it; edits the graph, returns how many."""
    import onnx_ir as ir

    count = 0
    for pad in [node for node in model.graph if node.op_type == "Pad"]:
        readers = consumers(pad.outputs[0])
        amounts = _spatial(pad)
        if amounts is None or pad.outputs[0].is_graph_output() or not readers:
            continue
        if not all(_takes(reader, pad.outputs[0]) for reader in readers):
            continue
        for convolution in readers:
            own = list(attribute(convolution, "pads", None) or [0] * len(amounts))
            both = [a + b for a, b in zip(own, amounts, strict=True)]
            convolution.attributes["pads"] = ir.AttrInt64s("pads", both)
            convolution.replace_input_with(0, pad.inputs[0])
            count += 1
        model.graph.remove(pad, safe=True)
    return count


def _takes(node: ir.Node, padded: ir.Value) -> bool:
    """Whether the node is a Conv with explicit padding that reads the value as its data only."""
    explicit = attribute(node, "auto_pad", "NOTSET") in ("NOTSET", "")
    return node.op_type == "Conv" and explicit and node.inputs[0] is padded and padded not in list(node.inputs)[1:]


def _spatial(pad: ir.Node) -> list[int] | None:
    """Zeros before and after each spatial axis, in the order of Conv's `pads`; None where it pads anything else."""
    amounts = constant(pad.inputs[1]) if len(pad.inputs) > 1 else None
    if amounts is None or attribute(pad, "mode", "constant") != "constant":
        return None
    if len(pad.inputs) > 2 and pad.inputs[2] is not None:
        fill = constant(pad.inputs[2])
        if fill is None or float(np.ravel(fill)[0]) != 0.0:
            return None
    axes = constant(pad.inputs[3]) if len(pad.inputs) > 3 and pad.inputs[3] is not None else None
    rank = len(pad.inputs[0].shape) if pad.inputs[0] is not None and pad.inputs[0].shape is not None else 0
    if axes is not None and not rank:
        return None
    places = [int(axis) % rank for axis in axes] if axes is not None else list(range(amounts.size // 2))
    total = rank or len(places)
    before, after = np.zeros(total, int), np.zeros(total, int)
    before[places], after[places] = np.split(amounts.astype(int), 2)
    outside = bool(before[:2].any() or after[:2].any())
    if total < 3 or outside or before.min() < 0 or after.min() < 0:
        return None
    return [*before[2:].tolist(), *after[2:].tolist()]
