"""Requests and answers as bytes: what is the same from one to the next is written once.

    message = head       names, datatypes, shapes, parameters that stay: kept by what they are
            + id
            + numbers    parameters that are others each time
            + contents   of each tensor, copied once, from the array to the message

Fields of a protobuf message may stand in any order, and a map may be given in pieces, so the parts are put one after
the other as they are (protobuf, "Encoding": field order, last one wins).
"""

from __future__ import annotations

import functools
import struct
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from edgekit_runtime import codecs
from edgekit_runtime.errors import Refused
from edgekit_runtime.remote import messages
from edgekit_runtime.remote.generated import open_inference_pb2 as pb

DEADLINE = "deadline_ms"
_MAX_KNOWN = 256
_BYTES = 2  # the wire type of strings, bytes and messages
_NUMBER = struct.Struct("<d")


def _tag(kind: Any, field: str, wire_type: int = _BYTES) -> bytes:
    return bytes((kind.DESCRIPTOR.fields_by_name[field].number << 3 | wire_type,))


_Key = tuple[object, ...]
_Tags = tuple[bytes, bytes, bytes]  # id, raw contents, parameters
_REQUEST: _Tags = tuple(_tag(pb.ModelInferRequest, name) for name in ("id", "raw_input_contents", "parameters"))  # type: ignore[assignment]
_RESPONSE: _Tags = tuple(_tag(pb.ModelInferResponse, name) for name in ("id", "raw_output_contents", "parameters"))  # type: ignore[assignment]
_ANSWER = _tag(pb.ModelStreamInferResponse, "infer_response")
_DOUBLE, _INT = _tag(pb.InferParameter, "double_param", 1), _tag(pb.InferParameter, "int64_param", 0)


class Writer:
    """Of one client or server. Safe from several threads: two that write the same head at once write it twice."""

    def __init__(self) -> None:
        self._heads: dict[_Key, bytes] = {}

    def request(
        self,
        model: str,
        version: str,
        tensors: Mapping[str, np.ndarray],
        *,
        request_id: str = "",
        parameters: Mapping[str, messages.Parameter] | None = None,
        codec: Mapping[str, str] | None = None,
    ) -> bytes:
        """A `ModelInferRequest`.

        Args:
            model: Name on the server.
            version: Empty: the server's default.
            tensors: By name; numeric.
            request_id: Comes back with the answer.
            parameters: Of the request.
            codec: By tensor name, for our own server; the others travel plain.

        Raises:
            InputMismatch: A dtype that the protocol does not have.
        """
        given, codec = dict(parameters or {}), codec or {}
        numbers = {DEADLINE: float(given.pop(DEADLINE))} if DEADLINE in given else {}
        constant = tuple([(name, type(value), value) for name, value in given.items()])
        key = (model, version, _specs(tensors), constant, tuple(codec.items()))
        head = self._heads.get(key)
        if head is None:
            message = pb.ModelInferRequest(model_name=model, model_version=version)
            coded = {f"codec.{name}": codec[name] for name in tensors if codec.get(name, "none") != "none"}
            head = self._kept(key, message, message.inputs, tensors, given | coded)
        data = {
            name: codecs.encode(codec[name], array) if codec.get(name, "none") != "none" else array
            for name, array in tensors.items()
        }
        return _written(head, _REQUEST, request_id, numbers, data.values())

    def response(
        self,
        asked: Any,
        tensors: Mapping[str, np.ndarray],
        numbers: Mapping[str, float],
        sha256: str,
        version: str = "",
    ) -> bytes:
        """A `ModelInferResponse` to a request; of the outputs asked for, or all.

        Args:
            asked: The `ModelInferRequest`.
            tensors: By name.
            numbers: Parameters; 0 or more.
            sha256: One that stays: of the graph that was meant.
            version: Of the model.

        Raises:
            Refused: An output that does not exist was asked for.
        """
        if asked.outputs:
            wanted = [row.name for row in asked.outputs]
            unknown = [name for name in wanted if name not in tensors]
            if unknown:
                raise Refused(f"there is no output {', '.join(unknown)}", remedy=f"there are: {', '.join(tensors)}")
            tensors = {name: tensors[name] for name in wanted}
        key = (asked.model_name, version, _specs(tensors), sha256)
        head = self._heads.get(key)
        if head is None:
            message = pb.ModelInferResponse(model_name=asked.model_name, model_version=version)
            head = self._kept(key, message, message.outputs, tensors, {"sha256": sha256})
        return _written(head, _RESPONSE, asked.id, numbers, tensors.values())

    def _kept(
        self,
        key: _Key,
        message: Any,
        rows: Any,
        tensors: Mapping[str, np.ndarray],
        parameters: Mapping[str, messages.Parameter],
    ) -> bytes:
        """The head, written and remembered."""
        for name, array in tensors.items():
            rows.add(name=name, datatype=messages.datatype(array.dtype), shape=array.shape)
        messages.put(message.parameters, parameters)
        if len(self._heads) >= _MAX_KNOWN:
            self._heads.clear()
        head: bytes = message.SerializeToString()
        self._heads[key] = head
        return head


def streamed(response: bytes) -> bytes:
    """A `ModelInferResponse` as a `ModelStreamInferResponse`."""
    return b"".join((_ANSWER, _length(len(response)), response))


def _specs(tensors: Mapping[str, np.ndarray]) -> _Key:
    return tuple([(name, array.dtype, array.shape) for name, array in tensors.items()])


def _written(
    head: bytes, tags: _Tags, name: str, numbers: Mapping[str, float], contents: Iterable[bytes | np.ndarray]
) -> bytes:
    tag_id, tag_raw, tag_parameters = tags
    told = name.encode()
    parts: list[Any] = [head, tag_id, _length(len(told)), told]
    for key, value in numbers.items():
        whole = isinstance(value, int)
        number = _length(int(value)) if whole else _NUMBER.pack(value)
        parts += (_before(tag_parameters, key, _INT if whole else _DOUBLE, len(number)), number)
    for data in contents:
        if isinstance(data, bytes):
            parts += (tag_raw, _length(len(data)), data)
        else:
            array = data if data.flags.c_contiguous else np.ascontiguousarray(data)
            parts += (tag_raw, _length(array.nbytes), array.data)
    return b"".join(parts)


@functools.lru_cache(maxsize=64)
def _before(tag_parameters: bytes, name: str, tag_number: bytes, size: int) -> bytes:
    """What stands before a number of so many bytes in the map of parameters: all of its entry but the number itself.

    Field 1 of an entry is the key, field 2 an `InferParameter`.
    """
    key = name.encode()
    value = _length(len(tag_number) + size) + tag_number
    entry = b"".join((b"\x0a", _length(len(key)), key, b"\x12", value))
    return tag_parameters + _length(len(entry) + size) + entry


def _length(size: int) -> bytes:
    """A number, 0 or more, as protobuf writes it: 7 bits a byte, the low ones first."""
    if size < 0x80:
        return bytes((size,))
    found = bytearray()
    while size >= 0x80:
        found.append(size & 0x7F | 0x80)
        size >>= 7
    found.append(size)
    return bytes(found)
