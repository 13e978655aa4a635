"""Writes small TFLite files, operator by operator, with the schema's object API that comes with LiteRT's wheel."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

# Classes of the schema that hold an operator's options.
_OPTIONS = {
    "ADD": "AddOptions",
    "MUL": "MulOptions",
    "FULLY_CONNECTED": "FullyConnectedOptions",
    "CONV_2D": "Conv2DOptions",
    "DEPTHWISE_CONV_2D": "DepthwiseConv2DOptions",
    "SOFTMAX": "SoftmaxOptions",
    "MEAN": "ReducerOptions",
    "REDUCE_MAX": "ReducerOptions",
    "RESHAPE": "ReshapeOptions",
    "TRANSPOSE": "TransposeOptions",
    "CONCATENATION": "ConcatenationOptions",
    "STRIDED_SLICE": "StridedSliceOptions",
    "SPLIT": "SplitOptions",
    "PAD": "PadOptions",
    "NOT_EQUAL": "NotEqualOptions",
    "BATCH_MATMUL": "BatchMatMulOptions",
    "GELU": "GeluOptions",
    "QUANTIZE": "QuantizeOptions",
    "DEQUANTIZE": "DequantizeOptions",
    "IF": "IfOptions",
    "CAST": "CastOptions",
    "DIV": "DivOptions",
    "GATHER": "GatherOptions",
    "SCATTER_ND": "ScatterNdOptions",
    "MAX_POOL_2D": "Pool2DOptions",
    "AVERAGE_POOL_2D": "Pool2DOptions",
    "LOG_SOFTMAX": "LogSoftmaxOptions",
    "ABS": "AbsOptions",
    "MAXIMUM": "MaximumMinimumOptions",
    "RIGHT_SHIFT": "RightShiftOptions",
    "LOGICAL_AND": "LogicalAndOptions",
    "SELECT_V2": "SelectV2Options",
    "GATHER_ND": "GatherNdOptions",
}
# Versions that the operand types need (TFLite's register.cc).
_VERSIONS = {
    "FULLY_CONNECTED": 12,
    "CONV_2D": 5,
    "DEPTHWISE_CONV_2D": 6,
    "ADD": 2,
    "QUANTIZE": 2,
    "DEQUANTIZE": 2,
    "PAD": 2,
    "STRIDED_SLICE": 2,
    "TRANSPOSE": 2,
    "CONCATENATION": 2,
    "MEAN": 2,
    "GATHER": 2,
    "MAX_POOL_2D": 2,
    "AVERAGE_POOL_2D": 2,
}


class Net:
    """Subgraphs that become a model. Tensors are numbers."""

    def __init__(self, shape: tuple[int, ...], *, int8: bool = False, dtype: str = "float32") -> None:
        from ai_edge_litert import schema_py_generated

        self.schema: Any = schema_py_generated
        self.rng = np.random.default_rng(0)
        self.model = self.schema.ModelT()
        self.model.version, self.model.buffers = 3, [self.schema.BufferT()]
        self.model.operatorCodes, self.model.subgraphs = [], []
        self.main = self.subgraph()
        self.x = self.tensor(shape, "int8" if int8 else dtype)

    def subgraph(self) -> Any:
        """Begins one more subgraph: what is written next goes there."""
        made = self.schema.SubGraphT()
        made.tensors, made.operators, made.inputs, made.outputs = [], [], [], []
        self.model.subgraphs.append(made)
        self.into = made
        return made

    def tensor(self, shape: tuple[int, ...], dtype: str = "float32", data: np.ndarray | None = None) -> int:
        """One more tensor; with data a constant. int8 gets one scale."""
        made = self.schema.TensorT()
        made.shape = list(shape)
        made.type = getattr(self.schema.TensorType, dtype.upper())
        made.name = f"t{len(self.into.tensors)}".encode()
        if data is not None:
            buffer = self.schema.BufferT()
            buffer.data = np.frombuffer(np.ascontiguousarray(data).tobytes(), np.uint8)
            self.model.buffers.append(buffer)
            made.buffer = len(self.model.buffers) - 1
        if dtype == "int8":
            self._quantize(made, 1, None)
        self.into.tensors.append(made)
        return len(self.into.tensors) - 1

    def floats(self, *shape: int) -> int:
        """Weights in fp32, normal with deviation 0.1."""
        return self.tensor(shape, "float32", (self.rng.standard_normal(shape) * 0.1).astype(np.float32))

    def int8(self, shape: tuple[int, ...], axis: int) -> int:
        """Weights with a scale a channel."""
        number = self.tensor(shape, "int8", self.rng.integers(-127, 128, shape, dtype=np.int8))
        self._quantize(self.into.tensors[number], shape[axis], axis)
        return number

    def shape(self, *sizes: int) -> int:
        """A constant int32 vector."""
        return self.tensor((len(sizes),), "int32", np.array(sizes, np.int32))

    def bias(self, channels: int, *, int8: bool) -> int:
        """A bias for weights of either sort."""
        if not int8:
            return self.floats(channels)
        number = self.tensor((channels,), "int32", np.zeros(channels, np.int32))
        self._quantize(self.into.tensors[number], channels, 0, 0.05 * 0.002)
        return number

    def op(self, kind: str, inputs: list[int], shape: tuple[int, ...], dtype: str = "float32", **options: Any) -> int:
        """Writes an operator with one output and returns that."""
        output = self.tensor(shape, dtype)
        made = self.schema.OperatorT()
        made.opcodeIndex, made.inputs, made.outputs = self._code(kind), inputs, [output]
        name = _OPTIONS.get(kind, "")
        if name:
            made.builtinOptions = getattr(self.schema, f"{name}T")()
            made.builtinOptionsType = getattr(self.schema.BuiltinOptions, name)
            for key, value in options.items():
                setattr(made.builtinOptions, key, value)
        self.into.operators.append(made)
        return output

    def also(self, shape: tuple[int, ...]) -> int:
        """One more output of the operator written last."""
        output = self.tensor(shape)
        self.into.operators[-1].outputs.append(output)
        return output

    def split(self, value: int, axis: int, shape: tuple[int, ...], count: int) -> list[int]:
        """Equal parts along an axis."""
        where = self.tensor((), "int32", np.array(axis, np.int32))
        first = self.op("SPLIT", [where, value], shape, numSplits=count)
        return [first, *(self.also(shape) for _ in range(count - 1))]

    def save(self, answer: int, wires: Mapping[int, int] = {}) -> bytes:
        """The file, with one input and one output; `wires`: more inputs, and their outputs."""
        import flatbuffers

        self.main.inputs, self.main.outputs = [self.x, *wires], [answer, *wires.values()]
        builder = flatbuffers.Builder(1 << 20)
        builder.Finish(self.model.Pack(builder), b"TFL3")
        return bytes(builder.Output())

    def _code(self, kind: str) -> int:
        number = getattr(self.schema.BuiltinOperator, kind)
        for index, code in enumerate(self.model.operatorCodes):
            if code.builtinCode == number:
                return index
        made = self.schema.OperatorCodeT()
        made.builtinCode, made.deprecatedBuiltinCode = number, min(number, 127)
        made.version = _VERSIONS.get(kind, 1)
        self.model.operatorCodes.append(made)
        return len(self.model.operatorCodes) - 1

    def _quantize(self, tensor: Any, count: int, axis: int | None, scale: float | None = None) -> None:
        tensor.quantization = self.schema.QuantizationParametersT()
        value = scale or (0.05 if axis is None else 0.002)
        tensor.quantization.scale = np.full(count, value, np.float32)
        tensor.quantization.zeroPoint = np.zeros(count, np.int64)
        tensor.quantization.quantizedDimension = axis or 0
