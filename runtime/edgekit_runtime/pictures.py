"""Pictures on the wire as JPEG or WebP, from uint8 and from the float tensors that students take. Lossy.

A float picture gives each of its channels the range that it has, so that no rule of preprocessing has to travel:

    pixel = round((x - low) / step), step = (high - low) / 255        low, step: float32, by picture and channel

    uint8, one picture        its file
    float, or several         for each picture:  low, step of each channel (float only) | length of the file | file

What it costs in accuracy is measured with the student (`offload` actions of the manifest). Needs `pillow`
(`edgekit[image]`).
"""

from __future__ import annotations

import io
import struct
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from edgekit_runtime.errors import Refused, UsageError

LEAST_SIDE = 16  # pixels; smaller ones are less than a file's own head
_CHANNELS = (1, 3)
_GREY = 4  # levels by which the channels of a grey WebP may differ, by rounding of its colour space
_LENGTH = struct.Struct("<I")


class Layout(NamedTuple):
    """Where the axes of a tensor of pictures are.

    Attributes:
        pictures: How many.
        height: Pixels.
        width: Pixels.
        channels: 1 or 3.
        first: Channels stand before height and width.
    """

    pictures: int
    height: int
    width: int
    channels: int
    first: bool


def layout(dtype: np.dtype[Any], shape: Sequence[int]) -> Layout | None:
    """How a tensor holds pictures; None: it does not.

    Args:
        dtype: uint8, or float16 to float64.
        shape: [H, W] or [H, W, C] for uint8, [N, H, W, C] or [N, C, H, W] for both; C is 1 or 3.
    """
    if dtype != np.uint8 and dtype.kind != "f":
        return None
    if dtype == np.uint8 and len(shape) in (2, 3):
        channels = 1 if len(shape) == 2 else shape[2]
        return Layout(1, shape[0], shape[1], channels, False) if channels in _CHANNELS else None
    if len(shape) != 4 or shape[0] < 1:
        return None
    if shape[3] in _CHANNELS and min(shape[1:3]) >= LEAST_SIDE:
        return Layout(shape[0], shape[1], shape[2], shape[3], False)
    if shape[1] in _CHANNELS and min(shape[2:]) >= LEAST_SIDE:
        return Layout(shape[0], shape[2], shape[3], shape[1], True)
    return None


def encode(kind: str, quality: int, array: np.ndarray) -> bytes:
    """Pictures as files.

    Args:
        kind: `jpeg` or `webp`.
        quality: 1 to 100.
        array: As `layout` has it.

    Raises:
        UsageError: It holds no pictures.
        Refused: It holds NaN or infinity.
    """
    found = layout(array.dtype, array.shape)
    if found is None:
        raise UsageError(
            f"{kind} takes uint8 images or float ones [N, H, W, C] or [N, C, H, W] of 1 or 3 channels, "
            f"not {array.dtype} {array.shape}",
            remedy="for other tensors: none, lz4, zstd, bitshuffle-lz4, bitshuffle-zstd",
        )
    whole = array.reshape((found.pictures, *_one(found)))
    whole = whole.transpose(0, 2, 3, 1) if found.first else whole
    if array.dtype == np.uint8 and found.pictures == 1:
        return _file(kind, quality, whole[0])
    parts: list[bytes] = []
    for picture in whole:
        pixels = picture
        if array.dtype != np.uint8:
            pixels, head = _pixels(kind, picture)
            parts.append(head)
        data = _file(kind, quality, pixels)
        parts += [_LENGTH.pack(len(data)), data]
    return b"".join(parts)


def decode(data: bytes, dtype: np.dtype[Any], shape: Sequence[int]) -> bytes:
    """The bytes of the tensor. What comes from outside is checked before a pixel is made.

    Raises:
        ValueError: It is another one.
        OSError: It is no picture.
    """
    found = layout(dtype, shape)
    if found is None:
        raise ValueError(f"{dtype} {tuple(shape)} is no picture")
    if dtype == np.uint8 and found.pictures == 1:
        return _back(_opened(data, found), found).tobytes()
    made = np.empty((found.pictures, *_one(found)), dtype)
    ranges = 0 if dtype == np.uint8 else 2 * found.channels
    at = 0
    for number in range(found.pictures):
        scales = np.frombuffer(data, "<f4", ranges, at)
        (length,) = _LENGTH.unpack_from(data, at + 4 * ranges) if len(data) >= at + 4 * ranges + 4 else (len(data),)
        at += 4 * ranges + 4
        if at + length > len(data):
            raise ValueError(f"picture {number} of {found.pictures} is cut off")
        pixels = _opened(data[at : at + length], found)
        at += length
        if ranges:
            low, step = scales.reshape(2, found.channels)
            with np.errstate(over="ignore", invalid="ignore"):  # ranges of somebody else: infinity is theirs
                pixels = pixels * step + low
        with np.errstate(over="ignore"):
            made[number] = _back(pixels, found).astype(dtype)
    if at != len(data):
        raise ValueError(f"{len(data) - at} bytes are left over")
    return made.tobytes()


def _one(found: Layout) -> tuple[int, int, int]:
    sides = (found.height, found.width)
    return (found.channels, *sides) if found.first else (*sides, found.channels)


def _back(pixels: np.ndarray, found: Layout) -> np.ndarray:
    return np.ascontiguousarray(pixels.transpose(2, 0, 1)) if found.first else pixels


def _pixels(kind: str, picture: np.ndarray) -> tuple[np.ndarray, bytes]:
    """uint8 [H, W, C] of a float picture, and its ranges."""
    values = picture.astype(np.float32)
    low, high = values.min((0, 1)), values.max((0, 1))
    if not (np.isfinite(low).all() and np.isfinite(high).all()):
        raise Refused(f"{kind} takes no NaN and no infinity", remedy="send such tensors without a lossy codec")
    step = (high.astype(np.float64) - low) / 255
    step = np.where(step > 0, step, 1.0).astype(np.float32)
    pixels = np.clip(np.rint((values - low) / step), 0, 255).astype(np.uint8)
    return pixels, low.astype("<f4").tobytes() + step.astype("<f4").tobytes()


def _file(kind: str, quality: int, pixels: np.ndarray) -> bytes:
    file = io.BytesIO()
    flat = pixels[:, :, 0] if pixels.shape[2] == 1 else pixels
    _pillow().fromarray(np.ascontiguousarray(flat)).save(file, kind.upper(), quality=quality)
    return file.getvalue()


def _opened(data: bytes, found: Layout) -> np.ndarray:
    """uint8 [H, W, C] of one file."""
    pillow = _pillow()
    try:
        opened = pillow.open(io.BytesIO(data), formats=("JPEG", "WEBP"))
    except pillow.DecompressionBombError as error:
        raise ValueError(str(error)) from error
    with opened as image:
        width, height = image.size
        bands = len(image.getbands())
        # WebP knows no grey: three equal channels stand for one.
        grey = found.channels == 1 and image.format == "WEBP" and bands == 3
        if (height, width) != (found.height, found.width) or (bands != found.channels and not grey):
            raise ValueError(f"it is {height} x {width} x {bands}")
        pixels = np.asarray(image).reshape(height, width, bands)
        if grey and np.ptp(pixels, axis=2).max() > _GREY:
            raise ValueError(f"it is {height} x {width} x {bands}, in colour")
        return pixels[:, :, :1] if grey else pixels


def _pillow() -> Any:
    from PIL import Image

    return Image
