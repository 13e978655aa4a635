"""Writes a model as a flatbuffer in which equal tables stand once.

A flatbuffer's tables are pointed to, and two that are equal may be one. Nothing that a reader sees changes:

    before: signature t16: tensors A B C, operators F G; signature t32: tensors A B D, operators F G    9 tables
    after:  t16 -> A B C, F G;                           t32 -> A B D, F G (the same A, B, F, G)         6 tables

The 996 calls of a recurrent layer over 498 steps have three kinds of tensor; the signatures of a ladder have the same
operators, the same constants and the same scales. So names, shapes, lists of operands, options, quantization
parameters, tensors and operators are written once each.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np

from edgekit_converters.tflite.flatbuffer import IDENTIFIER, Model, schema, text

ALIGNMENT = 16  # schema.fbs: Buffer.data (force_align: 16)


def serialize(model: Model) -> bytes:
    """Writes a model; equal models give equal bytes.

    Buffers are inside the flatbuffer, aligned to 16 bytes. Ranges of calibration (min, max) are left out.
    """
    size = sum(0 if buffer.data is None else len(buffer.data) + 64 for buffer in model.buffers)
    builder = _sharing_builder(size + 65536)
    for subgraph in model.subgraphs:
        for holder in (*(subgraph.operators or []), *subgraph.tensors):
            _to_arrays(holder)
    with _shared(model):
        builder.Finish(model.Pack(builder), file_identifier=IDENTIFIER)
    return bytes(builder.Output())


@contextmanager
def _shared(model: Model) -> Iterator[None]:
    """Wrappers that write themselves once, in the place of buffers, tensors, operators and what these hold."""
    written: dict[object, int] = {}
    originals: list[tuple[Any, str, Any]] = []

    def wrap(holder: Any, field: str, wrapped: Any) -> None:
        originals.append((holder, field, getattr(holder, field)))
        setattr(holder, field, wrapped)

    try:
        wrap(model, "buffers", [_AlignedBuffer(buffer) for buffer in model.buffers])
        for subgraph in model.subgraphs:
            for operator in subgraph.operators or []:
                if operator.builtinOptions is not None:
                    wrap(operator, "builtinOptions", _Once(operator.builtinOptions, written))
            for tensor in subgraph.tensors:
                if tensor.quantization is not None:
                    wrap(tensor, "quantization", _Once(tensor.quantization, written, _pack_quantization))
            wrap(subgraph, "operators", [_Once(operator, written) for operator in subgraph.operators or []])
            wrap(subgraph, "tensors", [_Once(tensor, written) for tensor in subgraph.tensors])
        yield
    finally:
        for holder, field, original in reversed(originals):
            setattr(holder, field, original)


def _to_arrays(holder: Any) -> None:
    """Lists of numbers become the arrays the reader gives, which are written by the builder's shared method."""
    for field in ("shape", "inputs", "outputs"):
        if getattr(holder, field, None) is not None:
            setattr(holder, field, np.asarray(getattr(holder, field), np.int32))


def _sharing_builder(size: int) -> Any:
    """A flatbuffers builder that writes equal strings and equal arrays once."""
    import flatbuffers

    class Sharing(flatbuffers.Builder):
        def __init__(self, initial: int) -> None:
            super().__init__(initial)
            self.once: dict[tuple[str, bytes], int] = {}

        def CreateString(self, s: Any, *encoding: str) -> int:
            key = ("", text(s).encode())
            if key not in self.once:
                self.once[key] = int(super().CreateString(s, *encoding))
            return self.once[key]

        def CreateNumpyVector(self, x: Any) -> int:
            key = (x.dtype.name, x.tobytes())
            if key not in self.once:
                self.once[key] = int(super().CreateNumpyVector(x))
            return self.once[key]

    return Sharing(size)


def contents(value: Any) -> object:
    """What a table holds, all the way down: equal for tables that may be one, and hashable."""
    if isinstance(value, _Once):
        return value.key
    if isinstance(value, np.ndarray):
        return value.dtype.name, value.tobytes()
    if isinstance(value, list | tuple):
        return tuple(contents(entry) for entry in value)
    if hasattr(value, "__dict__"):
        return type(value).__name__, tuple((name, contents(entry)) for name, entry in sorted(vars(value).items()))
    # 1, 1.0 and True are equal to Python, 0.0 and -0.0 too.
    return type(value).__name__, repr(value)


class _Once:
    """Packs a table, or points to an equal one that is in the file already."""

    def __init__(self, own: Any, written: dict[object, int], pack: Any = None) -> None:
        self.key = contents(own)
        self._own = own
        self._written = written
        self._pack = pack or (lambda own, builder: own.Pack(builder))

    def Pack(self, builder: Any) -> int:
        """Writes the table once and returns its offset."""
        if self.key not in self._written:
            self._written[self.key] = int(self._pack(self._own, builder))
        return self._written[self.key]


class _AlignedBuffer:
    """Packs a Buffer with the alignment the schema demands; the generated Python code forgets it."""

    def __init__(self, buffer: Any) -> None:
        self.data = buffer.data

    def Pack(self, builder: Any) -> int:
        """Writes the table and returns its offset."""
        generated = schema()
        vector = None
        if self.data is not None and len(self.data):
            data = np.ascontiguousarray(self.data).tobytes()
            builder.StartVector(1, len(data), ALIGNMENT)
            builder.head = builder.head - len(data)
            builder.Bytes[builder.head : builder.head + len(data)] = data
            builder.vectorNumElems = len(data)
            vector = builder.EndVector()
        generated.BufferStart(builder)
        if vector is not None:
            generated.BufferAddData(builder, vector)
        return int(generated.BufferEnd(builder))


def _pack_quantization(own: Any, builder: Any) -> int:
    """Writes QuantizationParameters without ranges (min, max): the converter's memory, which no engine reads."""
    if own.details is not None:
        return int(own.Pack(builder))  # custom parameters
    generated = schema()
    scale, zero_point = _vector(own.scale, np.float32), _vector(own.zeroPoint, np.int64)
    scales = int(builder.CreateNumpyVector(scale)) if scale.size else 0
    zeros = int(builder.CreateNumpyVector(zero_point)) if zero_point.size else 0
    generated.QuantizationParametersStart(builder)
    if scale.size:
        generated.QuantizationParametersAddScale(builder, scales)
        generated.QuantizationParametersAddZeroPoint(builder, zeros)
        generated.QuantizationParametersAddQuantizedDimension(builder, int(own.quantizedDimension or 0))
    return int(generated.QuantizationParametersEnd(builder))


def _vector(values: Any, dtype: type) -> np.ndarray:
    return np.asarray([] if values is None else values, dtype=dtype)
