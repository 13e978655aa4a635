"""Adds constants and operators to a subgraph, one call each."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from edgekit_converters.tflite.flatbuffer import Model, add_constant, add_tensor, opcode_index, schema


class Builder:
    """Collects operators for one subgraph; tensors are indices in it, shapes are given by the caller."""

    def __init__(self, model: Model, subgraph: Any) -> None:
        self.model, self.subgraph = model, subgraph
        self.operators: list[Any] = []

    def constant(self, values: np.ndarray) -> int:
        """A constant without a name."""
        return add_constant(self.model, self.subgraph, "", values)

    def product(self, operands: Sequence[int], shape: tuple[int, ...], name: str) -> int:
        """FULLY_CONNECTED of data, weights and bias (-1: none), its answer named."""
        (output,) = self.operator(
            "FULLY_CONNECTED", operands, [shape], "FullyConnectedOptions", keepNumDims=len(shape) > 2
        )
        self.subgraph.tensors[output].name = name.encode()
        return output

    def elementwise(self, kind: str, inputs: Sequence[int], shape: tuple[int, ...]) -> int:
        """ADD, SUB or MUL."""
        (output,) = self.operator(kind, inputs, [shape], f"{kind.title()}Options")
        return output

    def unary(self, kind: str, source: int, shape: tuple[int, ...]) -> int:
        """LOGISTIC, TANH or RELU."""
        (output,) = self.operator(kind, [source], [shape])
        return output

    def join(self, parts: Sequence[int], shape: tuple[int, ...]) -> int:
        """Parts one below the other, as a tensor of this shape."""
        if len(parts) == 1:
            return parts[0]
        (output,) = self.operator("CONCATENATION", parts, [shape], "ConcatenationOptions", axis=0)
        return output

    def cut(self, whole: int, count: int, shape: tuple[int, ...]) -> list[int]:
        """The reverse of `join`: parts of this shape."""
        return [whole] if count == 1 else self.split(whole, 0, count, shape)

    def split(self, whole: int, axis: int, count: int, shape: tuple[int, ...]) -> list[int]:
        """Equal parts of this shape along an axis."""
        inputs = [self.constant(np.array(axis, np.int32)), whole]
        return self.operator("SPLIT", inputs, [shape] * count, "SplitOptions", numSplits=count)

    def columns(self, whole: int, start: int, shape: tuple[int, int]) -> int:
        """The columns of a matrix from `start` on, as a matrix of this shape."""
        begin, size = self.constant(np.array([0, start], np.int32)), self.constant(np.array(shape, np.int32))
        (output,) = self.operator("SLICE", [whole, begin, size], [shape], "SliceOptions")
        return output

    def operator(
        self,
        kind: str,
        inputs: Sequence[int],
        shapes: Sequence[tuple[int, ...]],
        options: str = "",
        dtypes: Sequence[str] = (),
        **fields: Any,
    ) -> list[int]:
        """Adds an operator with outputs of these shapes (float32 where `dtypes` is empty) and returns the outputs."""
        operator = schema().OperatorT()
        operator.opcodeIndex = opcode_index(self.model, kind)
        operator.inputs = list(inputs)
        operator.outputs = [
            add_tensor(self.model, self.subgraph, "", shape, dtype)
            for shape, dtype in zip(shapes, dtypes or ["float32"] * len(shapes), strict=True)
        ]
        if options:
            operator.builtinOptionsType = getattr(schema().BuiltinOptions, options)
            operator.builtinOptions = getattr(schema(), f"{options}T")()
            for field, value in fields.items():
                setattr(operator.builtinOptions, field, value)
        self.operators.append(operator)
        return list(operator.outputs)
