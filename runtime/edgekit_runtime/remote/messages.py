"""Tensors to Open Inference messages and back. What comes from outside is checked before anything is made of it.

Plain tensors travel as raw contents that any V2 server understands. Our own server also reads request parameters:

    codec.NAME    codec of input NAME: the raw contents are its bytes, datatype and shape are of the decoded tensor
    sha256        of the graph that is meant: another bundle's is refused
    deadline_ms   time left for the answer; late work is refused
and answers with:
    residence_ms, queue_ms, queue_length   how long it kept the request, how long it waited, who stood before it
"""

from __future__ import annotations

import functools
import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from edgekit_runtime import codecs
from edgekit_runtime.engines.base import Arrays
from edgekit_runtime.errors import InputMismatch, Refused, UsageError

Parameter = bool | int | float | str

DATATYPES = {
    "BOOL": "bool",
    "INT8": "int8",
    "INT16": "int16",
    "INT32": "int32",
    "INT64": "int64",
    "UINT8": "uint8",
    "UINT16": "uint16",
    "UINT32": "uint32",
    "UINT64": "uint64",
    "FP16": "float16",
    "FP32": "float32",
    "FP64": "float64",
}
_DTYPES = {name: np.dtype(dtype) for name, dtype in DATATYPES.items()}
_NAMES = {dtype: name for name, dtype in _DTYPES.items()}  # of this machine's byte order, which is the protocol's
_MOST_AXES = 8
_LONGEST_REMEMBERED = 256  # bytes of a row; what comes from outside may be as long as it likes
_CODEC = "codec."


def read_request(message: Any, parameters: Mapping[str, Parameter]) -> Arrays:
    """The tensors of a request, decoded.

    Args:
        message: A `ModelInferRequest`.
        parameters: Of it, as `read_parameters` gives them.

    Raises:
        InputMismatch: A datatype, shape or length that does not fit.
        Refused: A codec that cannot be read.
    """
    chosen = {key[len(_CODEC) :]: str(value) for key, value in parameters.items() if key.startswith(_CODEC)}
    return _read(message.inputs, message.raw_input_contents, chosen)


def read_response(message: Any) -> Arrays:
    """The tensors of an answer.

    Raises:
        InputMismatch: A datatype, shape or length that does not fit.
    """
    return _read(message.outputs, message.raw_output_contents, {})


def read_parameters(rows: Mapping[str, Any]) -> dict[str, Parameter]:
    """Parameters as plain values; those of no value are left out."""
    found = {name: read_parameter(row) for name, row in rows.items()}
    return {name: value for name, value in found.items() if value is not None}


def read_parameter(row: Any) -> Any:
    """The plain value of one parameter; None where it has none."""
    kind = row.WhichOneof("parameter_choice")
    return None if kind is None else getattr(row, kind)


def put(rows: Any, values: Mapping[str, Parameter]) -> None:
    """Writes plain values into a map of parameters."""
    for name, value in values.items():
        if isinstance(value, bool):
            rows[name].bool_param = value
        elif isinstance(value, int):
            rows[name].int64_param = value
        elif isinstance(value, float):
            rows[name].double_param = value
        else:
            rows[name].string_param = value


def datatype(dtype: np.dtype[Any]) -> str:
    """The protocol's name of a numpy dtype.

    Raises:
        InputMismatch: It has none.
    """
    name = _NAMES.get(dtype)
    if name is None:
        raise InputMismatch(f"a tensor of {dtype} cannot be sent", remedy=f"one of: {', '.join(DATATYPES.values())}")
    return name


def _read(rows: Sequence[Any], raw: Sequence[bytes], chosen: Mapping[str, str]) -> Arrays:
    if raw and len(raw) != len(rows):
        raise InputMismatch(f"{len(rows)} tensors with {len(raw)} raw contents", remedy="one for each tensor")
    found: Arrays = {}
    for place, row in enumerate(rows):
        told = row.SerializeToString() if raw else b""
        kind: Any = type(row)
        spec = _remembered(kind, told) if 0 < len(told) <= _LONGEST_REMEMBERED else _spec(row)
        name = spec.name
        if name in found:
            raise InputMismatch(f"tensor {name!r} is there twice", remedy="send it once")
        if not raw:
            found[name] = _typed(row, spec.dtype.name, spec.shape)
            continue
        data, codec = raw[place], chosen.get(name, "none") if chosen else "none"
        if codec == "none" and len(data) == spec.nbytes:
            found[name] = np.ndarray(spec.shape, spec.dtype, data)
        else:
            found[name] = _tensor(name, codec, data, spec.dtype.name, spec.shape)
    return found


class _Spec(NamedTuple):
    """What a message says of a tensor beside its contents; `nbytes` of plain ones, -1 where the shape cannot be."""

    name: str
    dtype: np.dtype[Any]
    shape: tuple[int, ...]
    nbytes: int


def _spec(row: Any) -> _Spec:
    name, datatype, shape = row.name, row.datatype, tuple(row.shape)
    dtype = _DTYPES.get(datatype)
    if dtype is None or len(shape) > _MOST_AXES:
        raise InputMismatch(
            f"tensor {name!r} has datatype {datatype[:20]!r} and {len(shape)} axes",
            remedy=f"one of {', '.join(DATATYPES)} and at most {_MOST_AXES} axes",
        )
    return _Spec(name, dtype, shape, math.prod(shape) * dtype.itemsize if min(shape, default=0) >= 0 else -1)


@functools.lru_cache(maxsize=256)
def _remembered(kind: Any, told: bytes) -> _Spec:
    """`_spec` of a row as bytes: requests and answers name the same tensors again and again."""
    return _spec(kind.FromString(told))


def _tensor(name: str, codec: str, data: bytes, dtype: str, shape: tuple[int, ...]) -> np.ndarray:
    try:
        return codecs.decode(codec, data, dtype, shape)
    except (Refused, UsageError) as error:
        raise InputMismatch(f"tensor {name!r}: {error.message}", remedy=error.remedy) from error


def _typed(row: Any, dtype: str, shape: tuple[int, ...]) -> np.ndarray:
    """Contents as a typed list, which other clients send."""
    lists: Iterable[Any] = [list(value) for _, value in row.contents.ListFields()]
    values: list[Any] = next(iter(lists), [])
    if any(size < 0 for size in shape) or len(values) != math.prod(shape):
        raise InputMismatch(
            f"tensor {row.name!r} of shape {shape} has {len(values)} values", remedy="as many values as the shape says"
        )
    try:
        return np.array(values, dtype).reshape(shape)
    except (ValueError, TypeError, OverflowError) as error:
        raise InputMismatch(f"tensor {row.name!r} is no {dtype}: {error}", remedy="send raw contents") from error
