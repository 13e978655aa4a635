"""fp16: every float tensor of a graph in half precision, inputs and outputs as they were.

before: x float ──► MatMul(W float) ──► y float
after:  x float ──► Cast ──► MatMul(W float16) ──► Cast ──► y float

For GPUs, whose provider has no int8 kernels. Operators without a float16 kernel keep a Cast on either side. On a CPU
the engine computes most of it in fp32: there fp16 saves bytes, not time.
"""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import TYPE_CHECKING

from edgekit_converters.quiet import quiet

if TYPE_CHECKING:
    import onnx_ir as ir


def halve(path: Path) -> ir.Model:
    """The graph of an fp32 file in half precision.

    Args:
        path: An `.onnx` file; weights beside it are read as well. Values beyond 65,504 (masks) are cut there.
    """
    import onnx
    import onnx_ir as ir
    from onnxruntime.transformers.float16 import convert_float_to_float16

    with warnings.catch_warnings(), quiet():
        warnings.simplefilter("ignore")  # it warns of each constant that is cut or rounds to zero
        return ir.from_proto(convert_float_to_float16(onnx.load(path), keep_io_types=True))
