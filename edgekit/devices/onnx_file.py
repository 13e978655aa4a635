"""Writes small ONNX files without the package `onnx`: a device that calibrates itself has an engine and no converter.

The fields of onnx.proto that are needed, in protobuf's wire format: a key is (field number << 3) | wire type, with 0 a
varint, 2 bytes with their length before, 5 four bytes.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Mapping, Sequence

import numpy as np

# onnx.proto, TensorProto.DataType
_TYPES = {"float32": 1, "uint8": 2, "int8": 3, "int32": 6, "int64": 7}
_FLOAT, _INT, _STRING, _INTS = 1, 2, 3, 7  # AttributeProto.AttributeType
Option = int | float | str | Sequence[int]


def node(
    kind: str, inputs: Iterable[str], outputs: Iterable[str], options: Mapping[str, Option], domain: str = ""
) -> bytes:
    """A NodeProto."""
    made = b"".join(_text(1, name) for name in inputs) + b"".join(_text(2, name) for name in outputs)
    made += _text(4, kind) + b"".join(_bytes(5, _option(name, value)) for name, value in options.items())
    return made + (_text(7, domain) if domain else b"")


def constant(name: str, value: np.ndarray) -> bytes:
    """A TensorProto that holds an array."""
    dims = b"".join(_number(1, size) for size in value.shape)
    data = np.ascontiguousarray(value).astype(value.dtype.newbyteorder("<")).tobytes()
    return dims + _number(2, _TYPES[value.dtype.name]) + _text(8, name) + _bytes(9, data)


def model(
    nodes: Iterable[bytes],
    constants: Iterable[bytes],
    given: Sequence[tuple[str, str, Sequence[int]]],
    answers: Sequence[tuple[str, str]],
    *,
    opsets: Mapping[str, int],
    ir_version: int,
) -> bytes:
    """A ModelProto.

    Args:
        nodes: From `node`, in an order that can run.
        constants: From `constant`.
        given: Name, dtype and shape of each input.
        answers: Name and dtype of each output; its shape is left open.
        opsets: Version by domain.
        ir_version: Of the format.
    """
    graph = b"".join(_bytes(1, each) for each in nodes) + _text(2, "graph")
    graph += b"".join(_bytes(5, each) for each in constants)
    graph += b"".join(_bytes(11, _value(*each)) for each in given)
    graph += b"".join(_bytes(12, _value(*each, None)) for each in answers)
    made = _number(1, ir_version) + _bytes(7, graph)
    return made + b"".join(_bytes(8, _text(1, name) + _number(2, version)) for name, version in opsets.items())


def _option(name: str, value: Option) -> bytes:
    if isinstance(value, float):
        return _text(1, name) + _varint(2 << 3 | 5) + struct.pack("<f", value) + _number(20, _FLOAT)
    if isinstance(value, int):
        return _text(1, name) + _number(3, value) + _number(20, _INT)
    if isinstance(value, str):
        return _text(1, name) + _text(4, value) + _number(20, _STRING)
    return _text(1, name) + b"".join(_number(8, item) for item in value) + _number(20, _INTS)


def _value(name: str, dtype: str, shape: Sequence[int] | None) -> bytes:
    tensor = _number(1, _TYPES[dtype])
    if shape is not None:
        tensor += _bytes(2, b"".join(_bytes(1, _number(1, size)) for size in shape))
    return _text(1, name) + _bytes(2, _bytes(1, tensor))


def _number(field: int, value: int) -> bytes:
    return _varint(field << 3) + _varint(value)


def _text(field: int, value: str) -> bytes:
    return _bytes(field, value.encode())


def _bytes(field: int, value: bytes) -> bytes:
    return _varint(field << 3 | 2) + _varint(len(value)) + value


def _varint(value: int) -> bytes:
    value &= (1 << 64) - 1  # a negative number is written as its 64-bit complement
    made = bytearray()
    while value >= 0x80:
        made.append(value & 0x7F | 0x80)
        value >>= 7
    made.append(value)
    return bytes(made)
