"""A small reader for flatbuffers that trusts nothing: every offset is checked before it is followed.

TFLite's interpreter maps a file and follows its offsets without a check, so a truncated or hostile file can crash the
process. Reading the structure here first turns that into a sentence.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator

from edgekit_runtime.errors import Refused


class Damaged(Refused):
    """An offset or a length that leaves the file."""


class Table:
    """One table of a flatbuffer. Fields are addressed by their number in the schema; absent fields read as default."""

    __slots__ = ("_data", "_end", "_position", "_vtable")

    def __init__(self, data: memoryview, position: int) -> None:
        self._data = data
        self._position = position
        self._vtable = position - self._number("<i", position)
        size = self._number("<H", self._vtable)
        self._number("<B", self._vtable + max(size, 4) - 1)
        self._end = size

    def _number(self, layout: str, position: int) -> int:
        try:
            if position < 0:
                raise struct.error
            return int(struct.unpack_from(layout, self._data, position)[0])
        except struct.error:
            raise Damaged(f"an offset points to byte {position}, the file has {len(self._data)}") from None

    def _field(self, number: int) -> int:
        """Position of a field's value, 0 when absent."""
        entry = 4 + 2 * number
        if entry + 2 > self._end:
            return 0
        offset = self._number("<H", self._vtable + entry)
        return self._position + offset if offset else 0

    def integer(self, number: int, layout: str = "<i", default: int = 0) -> int:
        """A scalar field."""
        at = self._field(number)
        return self._number(layout, at) if at else default

    def _vector(self, number: int, item_bytes: int) -> tuple[int, int]:
        """Start and length of a vector field, checked against the file's end."""
        at = self._field(number)
        if not at:
            return 0, 0
        at += self._number("<I", at)
        count = self._number("<I", at)
        if at + 4 + count * item_bytes > len(self._data):
            raise Damaged(f"a list of {count} items at byte {at} runs past the end of the file")
        return at + 4, count

    def integers(self, number: int) -> tuple[int, ...]:
        """A vector of int32."""
        start, count = self._vector(number, 4)
        return struct.unpack_from(f"<{count}i", self._data, start) if count else ()

    def data(self, number: int) -> memoryview:
        """A vector of bytes, not copied."""
        start, count = self._vector(number, 1)
        return self._data[start : start + count]

    def text(self, number: int) -> str:
        """A string; bytes that are not UTF-8 are replaced."""
        return bytes(self.data(number)).decode("utf-8", "replace")

    def tables(self, number: int) -> Iterator[Table]:
        """A vector of tables."""
        start, count = self._vector(number, 4)
        for at in range(start, start + 4 * count, 4):
            yield Table(self._data, at + self._number("<I", at))

    def table(self, number: int) -> Table | None:
        """A table field, None when absent."""
        at = self._field(number)
        return Table(self._data, at + self._number("<I", at)) if at else None

    def count(self, number: int) -> int:
        """Length of a vector of tables."""
        return self._vector(number, 4)[1]


def root(data: memoryview, identifier: bytes) -> Table:
    """The root table of a flatbuffer file.

    Raises:
        Damaged: The file is too short, carries another identifier, or its root lies outside.
    """
    if len(data) < 16:
        raise Damaged(f"the file has {len(data)} bytes, too few for any model")
    if bytes(data[4:8]) != identifier:
        raise Damaged(f"bytes 4 to 8 are {bytes(data[4:8])!r}, a file of this kind has {identifier!r}")
    return Table(data, struct.unpack_from("<I", data, 0)[0])
