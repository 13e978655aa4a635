"""Which onnxruntime a graph needs at least, from its opset, IR version and contributed operators.

Sources: onnxruntime's compatibility table (docs/reference/compatibility, ONNX opset a release), and the release in
which each contributed operator got its CPU kernel in the form used here.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import onnx_ir as ir

DEFAULT_OPSET = 18
# Per-channel QuantizeLinear exists from here on.
OLDEST_OPSET = 13

# Opset -> the smallest ONNX IR version that may carry it here.
IR_VERSION = {15: 8, 16: 8, 17: 8, 18: 8, 19: 9, 20: 9, 21: 10, 22: 10, 23: 11}

_OPSET_ENGINE = {
    15: (1, 10),
    16: (1, 11),
    17: (1, 12),
    18: (1, 14),
    19: (1, 15),
    20: (1, 17),
    21: (1, 18),
    22: (1, 20),
    23: (1, 22),
}
_IR_ENGINE = {8: (1, 10), 9: (1, 15), 10: (1, 18), 11: (1, 22)}
_CONTRIB_ENGINE = {
    "MatMulIntegerToFloat": (1, 4),
    "DynamicQuantizeLSTM": (1, 8),
    "QLinearAdd": (1, 4),
    "BiasGelu": (1, 0),
    "Gelu": (1, 0),
    "SkipLayerNormalization": (1, 14),
    "MultiHeadAttention": (1, 14),
}
_NEWEST_KNOWN = (1, 22)


def min_engine_version(model: ir.Model) -> str:
    """Oldest onnxruntime that runs the graph, as `MAJOR.MINOR`."""
    needed = [_OPSET_ENGINE.get(model.opset_imports.get("", DEFAULT_OPSET), _NEWEST_KNOWN)]
    needed.append(_IR_ENGINE.get(model.ir_version, (1, 10) if model.ir_version < 8 else _NEWEST_KNOWN))
    needed += [
        _CONTRIB_ENGINE.get(node.op_type, _NEWEST_KNOWN) for node in model.graph if node.domain == "com.microsoft"
    ]
    major, minor = max(needed)
    return f"{major}.{minor}"
