"""Codecs for a tensor on the wire: none, lz4, zstd, both after a bit shuffle; lossy: int8 rows, JPEG and WebP.

A bit shuffle puts the first bits of all elements side by side, then the second bits, and so on: neighbours in a tensor
are alike in their high bits, so that runs appear which lz4 and zstd find.

    elements   e0 = b0 b1 … b7     e1 = b0 b1 … b7     …
    shuffled   all b0 | all b1 | … | all b7

`int8-row` gives each row of a float tensor a scale of its own (largest absolute value / 127) and sends round(x / scale)
in one byte: an error of at most half a scale. Tensors that are not float travel as they are.

    scales of all rows (float32; float64 for float64) | int8 of all rows

`jpeg` and `webp` take pictures, uint8 or float (`pictures`); `jpeg@75` says the quality, 1 to 100.

What is sent says nothing of itself: codec, dtype and shape travel in the request, and `decode` checks them against the
bytes. `lz4` and `zstandard` are optional (`edgekit[remote]`), as is `pillow` (`edgekit[image]`).
"""

from __future__ import annotations

import dataclasses
import math
import time
from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple

import numpy as np

from edgekit_runtime import pictures
from edgekit_runtime.errors import Refused, UsageError

_MAX_BYTES = 1 << 30  # no tensor of a request is larger; a hostile length is refused before anything is made
_LZ4_FAST, _ZSTD_FAST = 1, 1  # acceleration and level: on these sizes the higher ones cost more than they save
JPEG_QUALITY, WEBP_QUALITY = 90, 85
_QUALITIES = range(1, 101)
_MIN_ROW = 16  # elements; in shorter rows the scales would weigh more than the values


@dataclasses.dataclass(frozen=True)
class Measured:
    """What a codec did to some tensors on this machine: bytes in all, and milliseconds (the best of three)."""

    codec: str
    bytes: int
    encode_ms: float
    decode_ms: float


def encode(codec: str, array: np.ndarray) -> bytes:
    """Encodes a tensor.

    Args:
        codec: One of `known()`; `jpeg` and `webp` also with a quality: `jpeg@75`.
        array: Any numeric dtype and shape; for `jpeg` and `webp` one that `takes` says yes to.

    Raises:
        UsageError: There is no such codec, or it does not take this tensor.
        Refused: Its package is not installed.
    """
    made, _ = _codec(codec)
    return made(array)


def decode(codec: str, data: bytes, dtype: str, shape: Sequence[int]) -> np.ndarray:
    """Decodes a tensor and checks it.

    Args:
        codec: One of `known()`.
        data: What `encode` gave.
        dtype: numpy name of a numeric dtype.
        shape: Of the tensor.

    Raises:
        UsageError: There is no such codec.
        Refused: The bytes are not such a tensor, or its package is not installed.
    """
    _, read = _codec(codec)
    kind = _numeric(dtype)
    wanted = math.prod(shape) * kind.itemsize
    if any(size < 0 for size in shape) or wanted > _MAX_BYTES:
        raise Refused(f"a tensor of shape {tuple(shape)} {dtype} is not taken", remedy=f"{_MAX_BYTES} bytes at most")
    try:
        raw = read(data, Wanted(kind, tuple(shape), wanted))
    except (ValueError, RuntimeError, OSError, MemoryError) as error:
        raise Refused(f"{len(data)} bytes are no {codec} of {wanted} bytes: {error}", remedy="send it again") from error
    if len(raw) != wanted:
        raise Refused(f"{codec} gave {len(raw)} bytes, {tuple(shape)} {dtype} has {wanted}", remedy="send it again")
    return np.frombuffer(raw, kind).reshape(shape)


def known() -> tuple[str, ...]:
    """Every codec, installed or not."""
    return tuple(_TABLE)


def available(lossless: bool = True) -> tuple[str, ...]:
    """The codecs whose packages are installed."""
    return tuple(name for name in (LOSSLESS if lossless else _TABLE) if _installed(name))


def measure(codec: str, arrays: Iterable[np.ndarray], runs: int = 3) -> Measured:
    """Encodes and decodes tensors with one codec on this machine.

    Args:
        codec: One of `available()`.
        arrays: All of one request.
        runs: The best of these counts.
    """
    tensors = list(arrays)
    encode_ms = decode_ms = math.inf
    sent: list[bytes] = []
    for _ in range(runs):
        start = time.perf_counter()
        sent = [encode(codec, array) for array in tensors]
        middle = time.perf_counter()
        for data, array in zip(sent, tensors, strict=True):
            decode(codec, data, array.dtype.name, array.shape)
        encode_ms = min(encode_ms, (middle - start) * 1e3)
        decode_ms = min(decode_ms, (time.perf_counter() - middle) * 1e3)
    return Measured(codec, sum(map(len, sent)), encode_ms, decode_ms)


def measure_all(arrays: Iterable[np.ndarray]) -> tuple[Measured, ...]:
    """Every lossless codec that is installed, on the same tensors."""
    tensors = list(arrays)
    return tuple(measure(name, tensors) for name in available())


def best(found: Iterable[Measured], uplink_mbps: float, slowdown: float = 1.0) -> Measured:
    """The codec with the least time to encode, send and decode.

    Args:
        found: Measured on this machine.
        uplink_mbps: Of the link; above 0.
        slowdown: How much slower the sending device is than this machine.
    """
    return min(found, key=lambda row: row.encode_ms * slowdown + row.bytes * 8e-3 / uplink_mbps + row.decode_ms)


def shuffled(data: bytes, itemsize: int) -> bytes:
    """Bit-shuffles whole groups of eight elements; what is left over follows as it is."""
    body = len(data) - len(data) % (8 * itemsize)
    bits = np.unpackbits(np.frombuffer(data[:body], np.uint8).reshape(-1, itemsize), axis=1)
    return np.packbits(np.ascontiguousarray(bits.T), axis=1).tobytes() + data[body:]


def unshuffled(data: bytes, itemsize: int) -> bytes:
    """What `shuffled` was given."""
    body = len(data) - len(data) % (8 * itemsize)
    if not body:
        return data
    bits = np.unpackbits(np.frombuffer(data[:body], np.uint8).reshape(8 * itemsize, -1), axis=1)
    return np.packbits(np.ascontiguousarray(bits.T), axis=1).tobytes() + data[body:]


class Wanted(NamedTuple):
    """What a decoder is to make."""

    dtype: np.dtype[Any]
    shape: tuple[int, ...]
    bytes: int


_Encode = Callable[[np.ndarray], bytes]
_Decode = Callable[[bytes, Wanted], bytes]


def _raw(array: np.ndarray) -> bytes:
    return np.ascontiguousarray(array).tobytes()


def _lz4() -> Any:
    import lz4.block

    return lz4.block


def _zstd() -> Any:
    import zstandard

    return zstandard


def _lz4_encode(data: bytes) -> bytes:
    return _lz4().compress(data, mode="fast", acceleration=_LZ4_FAST, store_size=False)


def _lz4_decode(data: bytes, wanted: int) -> bytes:
    block = _lz4()
    try:
        return block.decompress(data, uncompressed_size=wanted) if wanted else b""
    except block.LZ4BlockError as error:
        raise ValueError(str(error)) from error


def _zstd_encode(data: bytes) -> bytes:
    return _zstd().ZstdCompressor(level=_ZSTD_FAST).compress(data)


def _zstd_decode(data: bytes, wanted: int) -> bytes:
    zstd = _zstd()
    try:
        # The size that the frame claims is not believed: at most `wanted` bytes are made.
        if zstd.frame_content_size(data) not in (wanted, -1):
            raise ValueError(f"the frame claims {zstd.frame_content_size(data)} bytes")
        return zstd.ZstdDecompressor().decompress(data, max_output_size=max(wanted, 1))
    except zstd.ZstdError as error:
        raise ValueError(str(error)) from error


def row_elements(shape: Sequence[int]) -> int:
    """Elements that share a scale in `int8-row`: all behind the first two axes, behind the first where those are few.

    A row is a token of [samples, tokens, width], a channel of [samples, channels, height, width] and never holds two
    samples.
    """
    behind = math.prod(shape[2:])
    return behind if len(shape) > 2 and behind >= _MIN_ROW else math.prod(shape[1:])


def _rows(array: np.ndarray) -> np.ndarray:
    long = row_elements(array.shape) if array.ndim > 1 else array.size
    return array.reshape(array.size // max(long, 1), long)


def _scale_dtype(dtype: np.dtype[Any]) -> np.dtype[Any]:
    return np.promote_types(dtype, np.float32).newbyteorder("<")


def _int8_encode(array: np.ndarray) -> bytes:
    if array.dtype.kind != "f":
        return _raw(array)
    kind = _scale_dtype(array.dtype)
    rows = _rows(array).astype(kind)
    scales = np.abs(rows).max(axis=1, initial=0.0) / kind.type(127)
    if not np.isfinite(scales).all():
        raise Refused("int8-row takes no NaN and no infinity", remedy=f"for such tensors: {', '.join(LOSSLESS)}")
    with np.errstate(over="ignore"):  # 127 scales of the largest number there is may be infinite by rounding
        scales = np.where(np.isinf(scales * kind.type(127)), np.nextafter(scales, kind.type(0)), scales)
    # A scale of 0 is a row of zeros, or of numbers too small for one.
    values = np.divide(rows, scales[:, None], out=np.zeros_like(rows), where=scales[:, None] > 0)
    values = np.clip(np.rint(values), -127, 127).astype(np.int8)
    return bytes(scales.astype(kind).tobytes() + values.tobytes())


def _int8_decode(data: bytes, wanted: Wanted) -> bytes:
    if wanted.dtype.kind != "f":
        return data
    kind = _scale_dtype(wanted.dtype)
    size = math.prod(wanted.shape)
    long = row_elements(wanted.shape) if len(wanted.shape) > 1 else size
    rows = size // max(long, 1)
    if len(data) != rows * kind.itemsize + size:
        raise ValueError(f"{rows} scales and {size} values are {rows * kind.itemsize + size} bytes")
    scales = np.frombuffer(data, kind, rows)
    values = np.frombuffer(data, np.int8, size, rows * kind.itemsize).reshape(rows, long)
    with np.errstate(over="ignore", invalid="ignore"):  # scales of somebody else: infinity is theirs
        return bytes((values * scales[:, None]).astype(wanted.dtype).tobytes())


def _picture(data: bytes, wanted: Wanted) -> bytes:
    return pictures.decode(data, wanted.dtype, wanted.shape)


_TABLE: dict[str, tuple[_Encode, _Decode, str]] = {
    "none": (_raw, lambda data, wanted: data, ""),
    "lz4": (lambda a: _lz4_encode(_raw(a)), lambda data, wanted: _lz4_decode(data, wanted.bytes), "lz4"),
    "zstd": (lambda a: _zstd_encode(_raw(a)), lambda data, wanted: _zstd_decode(data, wanted.bytes), "zstandard"),
    "bitshuffle-lz4": (
        lambda a: _lz4_encode(shuffled(_raw(a), a.itemsize)),
        lambda data, wanted: unshuffled(_lz4_decode(data, wanted.bytes), wanted.dtype.itemsize),
        "lz4",
    ),
    "bitshuffle-zstd": (
        lambda a: _zstd_encode(shuffled(_raw(a), a.itemsize)),
        lambda data, wanted: unshuffled(_zstd_decode(data, wanted.bytes), wanted.dtype.itemsize),
        "zstandard",
    ),
    "int8-row": (_int8_encode, _int8_decode, ""),
    "jpeg": (lambda a: pictures.encode("jpeg", JPEG_QUALITY, a), _picture, "PIL"),
    "webp": (lambda a: pictures.encode("webp", WEBP_QUALITY, a), _picture, "PIL"),
}
LOSSLESS = ("none", "lz4", "zstd", "bitshuffle-lz4", "bitshuffle-zstd")
INT8_ROW = "int8-row"
PICTURES = ("jpeg", "webp")
_PIP = {"lz4": "edgekit[remote]", "zstandard": "edgekit[remote]", "PIL": "edgekit[image]"}


def takes(codec: str, array: np.ndarray) -> bool:
    """Can a codec encode tensors of this dtype and shape?"""
    return parsed(codec)[0] not in PICTURES or pictures.layout(array.dtype, array.shape) is not None


def parsed(codec: str) -> tuple[str, int | None]:
    """Name and quality of a codec; None where it says none.

    Raises:
        UsageError: There is no such codec, or it has no such quality.
    """
    name, at, quality = codec.partition("@")
    if name not in _TABLE:
        raise UsageError(f"there is no codec {codec[:40]!r}", remedy=f"one of: {', '.join(_TABLE)}")
    if not at:
        return name, None
    if name not in PICTURES or not (quality.isascii() and quality.isdigit() and int(quality[:4]) in _QUALITIES):
        raise UsageError(f"there is no codec {codec[:40]!r}", remedy="jpeg@1 to jpeg@100, webp@1 to webp@100")
    return name, int(quality[:4])


def missing(codec: str) -> str:
    """The pip line of a codec whose package is not installed; empty: it is."""
    name, _ = parsed(codec)
    return "" if _installed(name) else f"pip install '{_PIP[_TABLE[name][2]]}'"


def _codec(codec: str) -> tuple[_Encode, _Decode]:
    name, quality = parsed(codec)
    if not _installed(name):
        raise Refused(f"the codec {name} needs {_TABLE[name][2]}", remedy=missing(name))
    if quality is not None:
        return lambda array: pictures.encode(name, quality, array), _picture
    return _TABLE[name][:2]


def _installed(name: str) -> bool:
    import importlib.util

    package = _TABLE[name][2]
    return not package or importlib.util.find_spec(package) is not None


def _numeric(dtype: str) -> np.dtype[Any]:
    try:
        kind = np.dtype(dtype)
    except TypeError as error:
        raise Refused(f"there is no dtype {dtype!r}", remedy="int8, uint8, float32 …") from error
    if kind.kind not in "biuf":
        raise Refused(f"a tensor of {dtype} is not taken", remedy="int8, uint8, float32 …")
    return kind
