"""The words between workstation and agent, and how they are framed.

A frame is four bytes of length (big-endian), one byte of kind, then the body: `J` is one of the messages below as JSON,
`D` is a piece of a file. A frame longer than the receiver allows ends the connection before its body is read.
"""

from __future__ import annotations

import struct
import time
from typing import Protocol

import msgspec

from edgekit.profiler.request import Request
from edgekit_runtime.errors import Refused
from edgekit_runtime.measurement import Measurement

VERSION = 1
PIECE_BYTES = 1 << 20
MOST_MESSAGE_BYTES = 1 << 20  # what an agent takes as one message; a file comes in pieces
MOST_ANSWER_BYTES = 256 << 20  # what a workstation takes: documents carry raw samples
_HEAD = struct.Struct(">Ic")


class Message(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, tag_field="say"):
    """Common settings of all messages."""


class Hello(Message, frozen=True, kw_only=True, tag="hello"):
    """First word of a workstation. `token` is empty where certificates or ssh stand for it."""

    version: int = VERSION
    token: str = ""


class Welcome(Message, frozen=True, kw_only=True, tag="welcome"):
    """The agent's answer: who it is, and what it takes."""

    version: int = VERSION
    edgekit: str
    machine: str
    device: str
    most_bytes: int


class OfferedFile(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One file of a bundle, by its path inside."""

    path: str
    bytes: int
    sha256: str


class Offer(Message, frozen=True, kw_only=True, tag="offer"):
    """What the workstation wants to have profiled. `name` is the bundle's folder or the bare file."""

    name: str
    bare: bool
    files: tuple[OfferedFile, ...]


class Need(Message, frozen=True, kw_only=True, tag="need"):
    """The paths that the agent lacks; their pieces follow in this order."""

    content: str
    paths: tuple[str, ...]


class Stored(Message, frozen=True, kw_only=True, tag="stored"):
    """Every file is there and has the hash it was offered with."""


class Start(Message, frozen=True, kw_only=True, tag="start"):
    """Profile what was stored."""

    content: str
    request: Request


class Calibrate(Message, frozen=True, kw_only=True, tag="calibrate"):
    """Measure the device itself and give its profile back."""

    name: str = ""
    engines: tuple[str, ...] = ()


class Plan(Message, frozen=True, kw_only=True, tag="plan"):
    """How many steps there are, and what is left out."""

    steps: int
    remarks: tuple[str, ...] = ()


class Step(Message, frozen=True, kw_only=True, tag="step"):
    """A step begins."""

    label: str


class Alive(Message, frozen=True, kw_only=True, tag="alive"):
    """Nothing new; the job goes on."""


class Done(Message, frozen=True, kw_only=True, tag="done"):
    """The documents."""

    measurements: tuple[Measurement, ...]


class Calibrated(Message, frozen=True, kw_only=True, tag="calibrated"):
    """A device profile and its predictor, as the text of their files."""

    name: str
    profile: str
    predictor: str


class Failure(Message, frozen=True, kw_only=True, tag="failure"):
    """An error of the agent's side: its kind is that of `edgekit_runtime.errors`."""

    kind: str
    message: str
    remedy: str = ""


Said = Hello | Welcome | Offer | Need | Stored | Start | Calibrate | Plan | Step | Alive | Done | Calibrated | Failure
_decoder: msgspec.json.Decoder[Said] = msgspec.json.Decoder(Said)


def decode(line: bytes) -> Said:
    """One message from its JSON. Raises msgspec's errors."""
    return _decoder.decode(line)


class Lost(Exception):
    """The other side is gone, or said nothing for too long."""


class Channel(Protocol):
    """Bytes in both directions."""

    def read(self, count: int, timeout_s: float) -> bytes:
        """Up to `count` bytes; empty at the end. Raises TimeoutError."""
        ...

    def write(self, data: bytes) -> None:
        """All of them."""
        ...

    def close(self) -> None:
        """Ends both directions."""
        ...


class Wire:
    """Messages over a channel.

    Args:
        channel: Bytes.
        most_bytes: Longest frame taken.
    """

    def __init__(self, channel: Channel, most_bytes: int = MOST_MESSAGE_BYTES) -> None:
        self._channel, self._most = channel, most_bytes

    def say(self, message: Said) -> None:
        """Sends one message.

        Raises:
            Lost: The other side is gone.
        """
        self._send(b"J", msgspec.json.encode(message))

    def send_piece(self, data: bytes) -> None:
        """Sends a piece of a file."""
        self._send(b"D", data)

    def hear(self, timeout_s: float) -> Said:
        """The next message.

        Raises:
            Lost: The other side is gone, or silent for longer.
            Refused: What came is no message, or too long.
        """
        kind, body = self._receive(timeout_s)
        if kind != b"J":
            raise Refused("a message was expected, a piece of a file came")
        try:
            return decode(body)
        except msgspec.MsgspecError as error:
            raise Refused(
                f"the other side said something this edgekit does not know: {error}",
                remedy="install the same version of edgekit on both sides",
            ) from error

    def hear_piece(self, timeout_s: float) -> bytes:
        """The next piece of a file. Raises as `hear` does."""
        kind, body = self._receive(timeout_s)
        if kind != b"D":
            raise Refused("a piece of a file was expected, a message came")
        return body

    def close(self) -> None:
        """Ends the connection."""
        self._channel.close()

    def _send(self, kind: bytes, body: bytes) -> None:
        try:
            self._channel.write(_HEAD.pack(len(body), kind) + body)
        except (OSError, ValueError) as error:
            raise Lost(str(error)) from error

    def _receive(self, timeout_s: float) -> tuple[bytes, bytes]:
        end = time.monotonic() + timeout_s
        length, kind = _HEAD.unpack(self._exactly(_HEAD.size, end))
        if length > self._most:
            raise Refused(f"a frame of {length} bytes is longer than the {self._most} that are taken")
        return kind, self._exactly(length, end)

    def _exactly(self, count: int, end: float) -> bytes:
        parts = bytearray()
        while len(parts) < count:
            try:
                part = self._channel.read(min(count - len(parts), PIECE_BYTES), max(0.01, end - time.monotonic()))
            except (OSError, ValueError) as error:  # TimeoutError is one of them
                raise Lost(str(error) or type(error).__name__) from error
            if not part:
                raise Lost("the connection was closed")
            parts += part
        return bytes(parts)
