"""Requests as bytes: what is the same from one request to the next is written once.

    ModelInferRequest = head       names, datatypes, shapes, parameters that stay: kept by what they are
                      + id
                      + deadline   the one parameter that is another each time
                      + contents   of each tensor, copied once, from the array to the message

Fields of a protobuf message may stand in any order, and a map may be given in pieces, so the parts are put one after
the other as they are (protobuf, "Encoding": field order, last one wins).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from edgekit_runtime import codecs
from edgekit_runtime.remote import messages
from edgekit_runtime.remote.generated import open_inference_pb2 as pb

DEADLINE = "deadline_ms"
_MAX_KNOWN = 256
_BYTES = 2  # the wire type of strings and bytes


def _tag(field: str) -> bytes:
    return bytes([pb.ModelInferRequest.DESCRIPTOR.fields_by_name[field].number << 3 | _BYTES])


_ID, _RAW = _tag("id"), _tag("raw_input_contents")


class Writer:
    """Of one client. Safe from several threads: two that write the same head at once write it twice."""

    def __init__(self) -> None:
        self._heads: dict[tuple[object, ...], bytes] = {}

    def write(
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
        given = dict(parameters or {})
        deadline = given.pop(DEADLINE, None)
        chosen = dict(codec) if codec else {}
        key = (
            model,
            version,
            tuple([(name, array.dtype, array.shape) for name, array in tensors.items()]),
            tuple([(name, type(value), value) for name, value in given.items()]),
            tuple(chosen.items()),
        )
        head = self._heads.get(key)
        if head is None:
            head = self._remembered(key, _head(model, version, tensors, given, chosen))
        name = request_id.encode()
        parts: list[Any] = [head, _ID, _length(len(name)), name]
        if deadline is not None:
            message = pb.ModelInferRequest()
            messages.put(message.parameters, {DEADLINE: deadline})
            parts.append(message.SerializeToString())
        for name_of, array in tensors.items():
            parts += _contents(array, chosen.get(name_of, "none"))
        return b"".join(parts)

    def _remembered(self, key: tuple[object, ...], head: bytes) -> bytes:
        if len(self._heads) >= _MAX_KNOWN:
            self._heads.clear()
        self._heads[key] = head
        return head


def _head(
    model: str,
    version: str,
    tensors: Mapping[str, np.ndarray],
    parameters: Mapping[str, messages.Parameter],
    codec: Mapping[str, str],
) -> bytes:
    message = pb.ModelInferRequest(model_name=model, model_version=version)
    for name, array in tensors.items():
        message.inputs.add(name=name, datatype=messages.datatype(array.dtype), shape=array.shape)
    named = {f"codec.{name}": codec[name] for name in tensors if codec.get(name, "none") != "none"}
    messages.put(message.parameters, {**parameters, **named})
    return message.SerializeToString()  # type: ignore[no-any-return]


def _contents(array: np.ndarray, codec: str) -> tuple[Any, ...]:
    if codec != "none":
        data = codecs.encode(codec, array)
        return _RAW, _length(len(data)), data
    if not array.flags.c_contiguous:
        array = np.ascontiguousarray(array)
    return _RAW, _length(array.nbytes), array.data


def _length(size: int) -> bytes:
    """A number as protobuf writes lengths: 7 bits a byte, the low ones first."""
    if size < 0x80:
        return bytes((size,))
    found = bytearray()
    while size >= 0x80:
        found.append(size & 0x7F | 0x80)
        size >>= 7
    found.append(size)
    return bytes(found)
