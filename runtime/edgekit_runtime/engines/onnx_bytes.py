"""Consecutive pieces of one ONNX graph put together again, on the bytes of their files.

    seg0: image ──► … ──► v9          seg1: v9 ──► … ──► logits
    together: image ──► … ──► logits  (v9 an output as well, where it is asked for)

All pieces come from one graph, so equal names mean equal values: a node or constant that several pieces carry (a
DequantizeLinear at each of its readers, a subgraph of shapes) is written once. The engine then sees one graph, and a
chain costs what the uncut graph costs. Field numbers are those of onnx.proto (ModelProto, GraphProto); the wire format
is protobuf's: a tag (field number, wire type) and a value, one after the other.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence

from edgekit_runtime.errors import Refused

_MODEL_GRAPH, _MODEL_OPSETS = 7, 8
_NODE, _INITIALIZER, _INPUT, _OUTPUT, _VALUE_INFO = 1, 5, 11, 12, 13
_NODE_OUTPUT, _TENSOR_NAME, _VALUE_NAME = 2, 8, 1
_NODE_KIND, _NODE_ATTRIBUTE, _ATTRIBUTE_GRAPHS = 4, 5, (6, 11)
_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5

# (field number, the field with its tag, its payload)
Field = tuple[int, bytes, bytes]


def join(pieces: Sequence[bytes], outputs: Collection[str]) -> bytes:
    """One model of several consecutive pieces.

    Args:
        pieces: Serialized models in the order they run.
        outputs: Names of the outputs to keep, of any piece.

    Raises:
        Refused: Bytes that are no ONNX model.
    """
    head: list[bytes] = []
    nodes: list[bytes] = []
    constants: dict[bytes, bytes] = {}
    inputs: dict[bytes, bytes] = {}
    wanted: dict[bytes, bytes] = {}
    made: set[bytes] = set()
    opsets: dict[bytes, None] = {}
    keep = {name.encode() for name in outputs}
    for number, piece in enumerate(pieces):
        graph = b""
        for field, whole, payload in _fields(piece):
            if field == _MODEL_GRAPH:
                graph = payload
            elif field == _MODEL_OPSETS:
                opsets.setdefault(whole)
            elif number == 0:
                head.append(whole)
        for field, whole, payload in _fields(graph):
            if field == _NODE:
                names = [value for at, _, value in _fields(payload) if at == _NODE_OUTPUT and value]
                if not made.issuperset(names):
                    nodes.append(whole)
                    made.update(names)
            elif field == _INITIALIZER:
                constants.setdefault(_name(payload, _TENSOR_NAME), whole)
            elif field == _INPUT:
                name = _name(payload, _VALUE_NAME)
                if name not in made:
                    inputs.setdefault(name, whole)
            elif field == _OUTPUT:
                name = _name(payload, _VALUE_NAME)
                if name in keep:
                    wanted.setdefault(name, whole)
            elif field != _VALUE_INFO and number == 0:
                nodes.append(whole)
    body = b"".join((*nodes, *constants.values(), *inputs.values(), *wanted.values()))
    return b"".join((*head, *opsets, _tagged(_MODEL_GRAPH, body)))


def operator_types(model: bytes) -> frozenset[str]:
    """Types of all operators of a model, those in branches and loop bodies included.

    Raises:
        Refused: Bytes that are no ONNX model.
    """
    graphs = [payload for field, _, payload in _fields(model) if field == _MODEL_GRAPH]
    found: set[str] = set()
    while graphs:
        for node in (payload for field, _, payload in _fields(graphs.pop()) if field == _NODE):
            for field, _, payload in _fields(node):
                if field == _NODE_KIND:
                    found.add(payload.decode(errors="replace"))
                elif field == _NODE_ATTRIBUTE:
                    graphs += [inner for at, _, inner in _fields(payload) if at in _ATTRIBUTE_GRAPHS]
    return frozenset(found)


def _name(message: bytes, field: int) -> bytes:
    return next((value for at, _, value in _fields(message) if at == field), b"")


def _fields(data: bytes) -> Iterator[Field]:
    """The fields of one message in order."""
    at, end = 0, len(data)
    while at < end:
        start = at
        tag, at = _varint(data, at)
        kind = tag & 7
        if kind == _BYTES:
            size, at = _varint(data, at)
            payload = data[at : at + size]
            at += size
        elif kind == _VARINT:
            _, at = _varint(data, at)
            payload = b""
        elif kind in (_FIXED64, _FIXED32):
            at += 8 if kind == _FIXED64 else 4
            payload = b""
        else:
            raise Refused(f"not an ONNX model: wire type {kind}", remedy="copy the bundle again, whole")
        if at > end:
            raise Refused("not an ONNX model: a field ends behind its message", remedy="copy the bundle again, whole")
        yield tag >> 3, data[start:at], payload


def _varint(data: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        if at >= len(data) or shift > 63:
            raise Refused("not an ONNX model: a number is cut off", remedy="copy the bundle again, whole")
        byte = data[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at
        shift += 7


def _tagged(field: int, payload: bytes) -> bytes:
    return _encoded((field << 3) | _BYTES) + _encoded(len(payload)) + payload


def _encoded(value: int) -> bytes:
    out = bytearray()
    while value >= 0x80:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes((*out, value))
