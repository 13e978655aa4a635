"""The fp32 graph without anything that exporting left behind.

before: weight -> Transpose -> Slice -> Concat -> LSTM     after: weight' -> LSTM
before: Conv -> BatchNormalization -> Relu                 after: Conv -> Relu
before: x -> Identity / Dropout -> y                       after: x
before: Shape -> Gather -> Concat -> Reshape (twice)       after: one copy, or a constant shape

Constants are folded completely, except where folding would blow a small constant up (an Expand of a scalar).
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from edgekit_converters.quiet import quiet

if TYPE_CHECKING:
    import onnx_ir as ir

# Elements. Above this a single constant would make the file unwieldy; such a student needs external data.
_FOLD_LIMIT = 1 << 29
# A folded constant may be this much larger than the constants it was computed from, or up to _SMALL elements.
_SMALL = 16_384
_GROWING = ("Expand", "ConstantOfShape", "Range", "Tile", "EyeLike", "OneHot", "Resize")


def _should_fold(node: ir.Node) -> bool | None:
    if node.op_type in _GROWING:
        size = _output_size(node)
        # Sizes that shape inference does not know are left to the tool's own judgement.
        return None if size is None else size <= _SMALL
    if node.op_type in ("QuantizeLinear", "DequantizeLinear") or node.domain not in ("", "ai.onnx"):
        return False
    # Everything else in a chain of constants is a weight being rearranged: it must become an initializer.
    return None if node.op_type == "Constant" else True


def _output_size(node: ir.Node) -> int | None:
    shape = node.outputs[0].shape
    if shape is None or not shape.is_static():
        return None
    return math.prod(shape.numpy())


def clean(model: ir.Model) -> ir.Model:
    """Folds, fuses and shares until nothing changes; edits and returns the model."""
    import onnx_ir.passes.common as common
    from onnxscript.optimizer import optimize_ir

    with quiet():
        for _ in range(3):
            before = len(model.graph)
            optimize_ir(
                model,
                num_iterations=4,
                input_size_limit=_FOLD_LIMIT,
                output_size_limit=_FOLD_LIMIT,
                should_fold=_should_fold,
            )
            common.IdentityEliminationPass()(model)
            common.DeduplicateInitializersPass(size_limit=_FOLD_LIMIT)(model)
            common.CommonSubexpressionEliminationPass()(model)
            common.RemoveUnusedNodesPass()(model)
            if len(model.graph) == before:
                break
        common.TopologicalSortPass()(model)
    return model
