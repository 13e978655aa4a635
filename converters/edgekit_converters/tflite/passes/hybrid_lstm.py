"""Pass: int8 weights for TFLite's sequence LSTM, activations and state in floating point (its hybrid kernel).

    before: UNIDIRECTIONAL_SEQUENCE_LSTM with eight float32 matrices
    after:  the same operator, version 2 or 3, with eight int8 matrices of one scale each

The kernel quantizes the input row and the state of each step as they come and adds up in float32, so errors do not
build up in the cell.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any

import numpy as np

from edgekit_converters.tflite.flatbuffer import Model, data_of, dtype_of, opcode_index, operators, schema, text
from edgekit_converters.tflite.passes.names import tensor_key
from edgekit_converters.tflite.weighted import LSTM, LSTM_WEIGHTS

ASYMMETRIC_VERSION = 3  # first version that may quantize its inputs asymmetrically
SYMMETRIC_VERSION = 2


def hybrid_lstm(model: Model, names: Collection[str], signatures: Sequence[str], *, asymmetric: bool = False) -> int:
    """Quantizes the weights of the LSTMs called `names` (without signature prefix) in place; returns how many.

    Args:
        model: The model.
        names: Operators to change.
        signatures: Names of the model's signatures.
        asymmetric: Whether the kernel gives its inputs a zero point.
    """
    count = 0
    done: dict[int, tuple[int, float]] = {}
    for subgraph in model.subgraphs:
        for kind, operator in operators(model, subgraph):
            name = tensor_key(text(subgraph.tensors[int(operator.outputs[0])].name), signatures)
            if kind != LSTM or name not in names:
                continue
            for position in LSTM_WEIGHTS:
                _to_int8(model, subgraph.tensors[int(operator.inputs[position])], done)
            operator.opcodeIndex = opcode_index(model, LSTM, ASYMMETRIC_VERSION if asymmetric else SYMMETRIC_VERSION)
            operator.builtinOptions.asymmetricQuantizeInputs = asymmetric
            count += 1
    return count


def _to_int8(model: Model, tensor: Any, done: dict[int, tuple[int, float]]) -> None:
    """Rounds a constant to int8 with one symmetric scale; signatures that share a buffer go on sharing it."""
    if dtype_of(tensor) == "int8":
        return
    buffer_index = int(tensor.buffer)
    if buffer_index not in done:
        values = data_of(model, tensor)
        assert values is not None
        scale = max(float(np.abs(values).max()) / 127, 1e-12)
        rounded = np.clip(np.round(values / scale), -127, 127).astype(np.int8)
        buffer = schema().BufferT()
        buffer.data = rounded.reshape(-1).view(np.uint8)
        model.buffers.append(buffer)
        done[buffer_index] = (len(model.buffers) - 1, scale)
    tensor.buffer, scale = done[buffer_index]
    tensor.type = schema().TensorType.INT8
    tensor.quantization = schema().QuantizationParametersT()
    tensor.quantization.scale, tensor.quantization.zeroPoint = [scale], [0]
