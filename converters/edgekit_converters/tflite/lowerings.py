"""Integer operators that litert-torch has no lowering for, in StableHLO.

aten.__rshift__.Scalar   x >> k                       shift_right_arithmetic
aten._int_mm             int8 [M,K] x int8 [K,N]      dot_general -> int32
aten.div.Tensor_mode     integers, "trunc"            divide, which truncates on integers

Registered once, when the first student is lowered. litert-torch divides integers in floating point; other divisions are
still its own.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any


@functools.cache
def register() -> None:
    """Adds the lowerings to litert-torch's registry."""
    import torch
    from litert_torch.backend.lowerings import registry

    aten = torch.ops.aten
    registry.lower(aten.__rshift__.Scalar)(_shift_right)
    registry.lower(aten._int_mm.default)(_int_mm)
    registry.lower(aten.div.Tensor_mode)(_divide(registry.lookup(aten.div.Tensor_mode)))


def _shift_right(context: Any, x: Any, bits: int) -> Any:
    from litert_converter.mlir import ir
    from litert_converter.mlir.dialects import stablehlo

    amount = ir.DenseElementsAttr.get_splat(x.type, ir.IntegerAttr.get(x.type.element_type, bits))
    return stablehlo.shift_right_arithmetic(x, stablehlo.constant(amount))


def _int_mm(context: Any, left: Any, right: Any) -> Any:
    """With a batch axis of 1: BATCH_MATMUL takes plain int8, FULLY_CONNECTED only quantized tensors."""
    from litert_converter.mlir import ir
    from litert_converter.mlir.dialects import stablehlo

    (rows, inner), columns = left.type.shape, right.type.shape[1]
    int8, int32 = (ir.IntegerType.get_signless(bits) for bits in (8, 32))
    left = stablehlo.reshape(ir.RankedTensorType.get([1, rows, inner], int8), left)
    right = stablehlo.reshape(ir.RankedTensorType.get([1, inner, columns], int8), right)
    numbers = stablehlo.DotDimensionNumbers.get(
        lhs_batching_dimensions=(0,),
        rhs_batching_dimensions=(0,),
        lhs_contracting_dimensions=(2,),
        rhs_contracting_dimensions=(1,),
    )
    product = stablehlo.dot_general(
        ir.RankedTensorType.get([1, rows, columns], int32), left, right, dot_dimension_numbers=numbers
    )
    return stablehlo.reshape(ir.RankedTensorType.get([rows, columns], int32), product)


def _divide(theirs: Callable[..., Any]) -> Callable[..., Any]:
    """Truncating division of integers, and litert-torch's own for everything else."""

    def lowering(context: Any, x: Any, y: Any, *, rounding_mode: str | None = None) -> Any:
        from litert_converter.mlir import ir
        from litert_converter.mlir.dialects import stablehlo
        from litert_torch.backend.lowerings import utils

        if rounding_mode == "trunc" and all(isinstance(one.type.element_type, ir.IntegerType) for one in (x, y)):
            return stablehlo.divide(*utils.broadcast_args_if_needed(x, y))
        return theirs(context, x, y, rounding_mode=rounding_mode)

    return lowering
