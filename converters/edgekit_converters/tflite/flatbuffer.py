"""Reads and writes TFLite flatbuffers as objects, and the few questions every pass asks of them.

The object API of the schema (`ModelT`, `SubGraphT`, ...) is the model in memory; buffers are numpy arrays of uint8.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from edgekit_runtime.errors import Refused

Model = Any  # ai_edge_litert.schema_py_generated.ModelT: generated code without types
IDENTIFIER = b"TFL3"


def schema() -> Any:
    """The generated schema module, imported when first needed."""
    from ai_edge_litert import schema_py_generated

    return schema_py_generated


@functools.cache
def _names(enum: str) -> dict[int, str]:
    return {value: name for name, value in vars(getattr(schema(), enum)).items() if not name.startswith("_")}


@functools.cache
def code(kind: str) -> int:
    """The builtin operator code of an operator type such as `CONV_2D`."""
    return int(getattr(schema().BuiltinOperator, kind))


def read(path: Path) -> Model:
    """Reads a file.

    Raises:
        Refused: Not a TFLite file, or damaged.
    """
    return parse(path.read_bytes(), path.name)


def parse(data: bytes, name: str) -> Model:
    """Reads a flatbuffer from bytes; `name` is for the error message."""
    if len(data) < 16 or data[4:8] != IDENTIFIER:
        raise Refused(
            f"{name} is not a TFLite file: it does not carry the identifier TFL3", remedy="give a .tflite file"
        )
    root = int.from_bytes(data[:4], "little")
    if not 8 <= root < len(data) - 4:
        raise Refused(f"{name} is damaged: its root table lies outside the file", remedy="export the file again")
    from ai_edge_litert.tools import flatbuffer_utils

    try:
        return flatbuffer_utils.read_model_from_bytearray(bytearray(data))
    except Exception as error:
        raise Refused(f"{name} is damaged: {type(error).__name__}: {error}", remedy="export the file again") from error


def serialize(model: Model) -> bytes:
    """Writes a model; equal models give equal bytes. See `tables` for what is written once."""
    from edgekit_converters.tflite import tables

    return tables.serialize(model)


def kind_of(model: Model, operator: Any) -> str:
    """Operator type as the schema names it; `CUSTOM:name` for custom operators."""
    opcode = model.operatorCodes[operator.opcodeIndex]
    value = max(opcode.builtinCode or 0, opcode.deprecatedBuiltinCode or 0)
    if value == code("CUSTOM"):
        return f"CUSTOM:{text(opcode.customCode)}"
    return _names("BuiltinOperator")[value]


def opcode_index(model: Model, kind: str, version: int = 1) -> int:
    """Index of an operator code, added where the model has none of this kind and version."""
    wanted = code(kind)
    for index, opcode in enumerate(model.operatorCodes):
        if opcode.builtinCode == wanted and opcode.version == version:
            return index
    opcode = schema().OperatorCodeT()
    opcode.builtinCode, opcode.version = wanted, version
    opcode.deprecatedBuiltinCode = min(wanted, 127)
    model.operatorCodes.append(opcode)
    return len(model.operatorCodes) - 1


def text(value: Any) -> str:
    """A string of the schema, which the reader gives as bytes."""
    return value.decode() if isinstance(value, bytes) else str(value or "")


def dtype_of(tensor: Any) -> str:
    """Numpy name of a tensor's element type (`float32`, `int8`, ...)."""
    return _names("TensorType")[tensor.type].lower()


def data_of(model: Model, tensor: Any) -> np.ndarray | None:
    """The constant behind a tensor in its own shape and dtype; None for tensors computed at run time."""
    raw = model.buffers[tensor.buffer].data
    if raw is None or len(raw) == 0:
        return None
    dtype = dtype_of(tensor)
    if dtype in ("string", "int4", "int2", "resource", "variant"):
        return None
    array = np.ascontiguousarray(raw).view(np.uint8).view(np.dtype(dtype))
    return array.reshape([int(size) for size in tensor.shape] if tensor.shape is not None else ())


def is_constant(model: Model, tensor: Any) -> bool:
    """Whether the file carries the tensor's values."""
    raw = model.buffers[tensor.buffer].data
    return raw is not None and len(raw) > 0


def shape_of(tensor: Any) -> tuple[int, ...]:
    """A tensor's shape as a tuple."""
    return tuple(int(size) for size in tensor.shape) if tensor.shape is not None else ()


def add_constant(model: Model, subgraph: Any, name: str, values: np.ndarray) -> int:
    """Adds a constant tensor (float32, int32, int8 or bool) and returns its index in the subgraph."""
    generated = schema()
    buffer = generated.BufferT()
    buffer.data = np.frombuffer(np.ascontiguousarray(values).tobytes(), np.uint8)
    model.buffers.append(buffer)
    index = add_tensor(model, subgraph, name, values.shape, values.dtype.name)
    subgraph.tensors[index].buffer = len(model.buffers) - 1
    return index


def add_tensor(model: Model, subgraph: Any, name: str, shape: tuple[int, ...], dtype: str = "float32") -> int:
    """Adds a tensor that is computed at run time and returns its index in the subgraph."""
    generated = schema()
    tensor = generated.TensorT()
    tensor.name, tensor.shape, tensor.buffer = name.encode(), list(shape), 0
    tensor.type = getattr(generated.TensorType, dtype.upper())
    tensor.hasRank = True
    subgraph.tensors.append(tensor)
    return len(subgraph.tensors) - 1


def operators(model: Model, subgraph: Any) -> Iterator[tuple[str, Any]]:
    """(operator type, operator) in order of execution."""
    for operator in subgraph.operators or []:
        yield kind_of(model, operator), operator


def executed(model: Model, subgraph: Any) -> list[tuple[Any, int]]:
    """The subgraph, and those it calls as steps (`passes.step_recurrent`), each with the number of its calls."""
    calls: dict[int, int] = {}
    for kind, operator in operators(model, subgraph):
        if kind == "IF" and operator.builtinOptions.thenSubgraphIndex == operator.builtinOptions.elseSubgraphIndex:
            index = int(operator.builtinOptions.thenSubgraphIndex)
            calls[index] = calls.get(index, 0) + 1
    return [(subgraph, 1), *((model.subgraphs[index], count) for index, count in calls.items())]


def main_subgraphs(model: Model) -> list[Any]:
    """The subgraphs that signatures point to, in the order of the signatures; the first one where there are none."""
    if not model.signatureDefs:
        return [model.subgraphs[0]]
    return [model.subgraphs[signature.subgraphIndex] for signature in model.signatureDefs]
