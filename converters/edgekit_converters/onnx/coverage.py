"""What is really int8: weight bytes counted in the file, multiply-accumulates in the engine's optimised graph."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import onnx

# Biases, scales a channel and norms have fewer axes that are longer than 1.
_WEIGHT_AXES = 2
# Inputs from here on are biases, states and scales even where they have two axes.
_FIRST_BIAS = {"LSTM": 3, "GRU": 3, "RNN": 3, "DynamicQuantizeLSTM": 3, "Mul": 0}


def coverage(path: Path, inputs: Mapping[str, np.ndarray]) -> tuple[float, float, int]:
    """Counts int8 weights and int8 arithmetic of a file.

    Weights are constants of two and more axes in float or int8, wherever they are read; a dequantized weight counts as
    int8 here (bytes) but its operator does not below (arithmetic).

    Args:
        path: An `.onnx` file.
        inputs: One batch; what runs is read from the engine's profile on it.

    Returns:
        (share of weight bytes that are int8, share of MACs run by int8 kernels, all MACs of the run).
    """
    from edgekit_runtime.engines.onnxruntime import OnnxRuntime

    costs = OnnxRuntime().trace(path, inputs)
    total = sum(cost.macs or 0 for cost in costs)
    int8 = sum(cost.macs or 0 for cost in costs if cost.int8)
    return weight_fraction(path), int8 / total if total else 0.0, total


def weight_fraction(path: Path) -> float:
    """Share of the bytes of all weights in the file that are int8 or uint8; 0.0 where there are no weights."""
    import onnx
    from onnx import TensorProto

    model = onnx.load(path, load_external_data=False)
    beside = {
        name for node in model.graph.node for name in node.input[_FIRST_BIAS.get(node.op_type, len(node.input)) :]
    }
    int8 = other = 0
    for tensor in model.graph.initializer:
        if tensor.name in beside:
            continue
        count = int(np.prod(tensor.dims, dtype=np.int64))
        if tensor.data_type in (TensorProto.INT8, TensorProto.UINT8):
            int8 += count if _is_weight(tensor) else 0
        elif tensor.data_type in (TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.DOUBLE) and _is_weight(tensor):
            other += count * {TensorProto.FLOAT16: 2, TensorProto.DOUBLE: 8}.get(tensor.data_type, 4)
    return int8 / (int8 + other) if int8 + other else 0.0


def _is_weight(tensor: onnx.TensorProto) -> bool:
    return sum(size > 1 for size in tensor.dims) >= _WEIGHT_AXES
