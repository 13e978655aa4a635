"""Pictures to tensors."""

from __future__ import annotations

import io
import os
from typing import TYPE_CHECKING, Any

import numpy as np

from edgekit_runtime.errors import EngineMissing, Refused, UsageError

if TYPE_CHECKING:
    from edgekit_runtime.preprocess import ImageInput


def encode(rule: ImageInput, item: object) -> np.ndarray:
    """One picture as the rule says.

    Args:
        rule: Size, crop, colours, scale.
        item: Path, bytes of a picture file, a Pillow image, or uint8 [H, W, 3] (RGB) or [H, W].

    Returns:
        [C, H, W] or [H, W, C], float32 or uint8.

    Raises:
        Refused: The picture cannot be read.
        EngineMissing: Pillow is needed and not installed.
    """
    height, width = rule.size
    pixels = item if isinstance(item, np.ndarray) else None
    channels = 1 if rule.color == "gray" else 3
    if pixels is not None and pixels.shape == (height, width, 3) and channels == 3 and pixels.dtype == np.uint8:
        return finish(rule, pixels)  # the size already: no package needed
    picture = _open(item).convert("L" if rule.color == "gray" else "RGB")
    return finish(rule, np.asarray(_fit(rule, picture)).reshape(height, width, channels))


def finish(rule: ImageInput, pixels: np.ndarray) -> np.ndarray:
    """Channel order, scale, mean, std and layout on uint8 [H, W, C] of the final size."""
    if rule.color == "bgr":
        pixels = pixels[:, :, ::-1]
    if rule.dtype == "float32":
        pixels = pixels.astype(np.float32) * np.float32(rule.scale)
        if rule.mean:
            pixels = pixels - np.asarray(rule.mean, np.float32)
        if rule.std:
            pixels = pixels / np.asarray(rule.std, np.float32)
    return np.ascontiguousarray(pixels.transpose(2, 0, 1) if rule.layout == "nchw" else pixels)


def _pillow() -> Any:
    try:
        from PIL import Image
    except ImportError as error:
        raise EngineMissing("reading pictures needs Pillow", remedy="pip install 'edgekit[image]'") from error
    return Image


def _open(item: object) -> Any:
    image = _pillow()
    try:
        if isinstance(item, np.ndarray):
            return image.fromarray(item)
        if isinstance(item, (bytes, bytearray)):
            return image.open(io.BytesIO(item))
        if isinstance(item, (str, os.PathLike)):
            with image.open(item) as picture:
                picture.load()
                return picture
    except (OSError, TypeError, ValueError, image.DecompressionBombError) as error:
        raise Refused(f"the picture cannot be read: {error}", remedy="give a PNG, JPEG or uint8 [H, W, 3]") from error
    if hasattr(item, "convert"):
        return item
    raise UsageError(f"a picture was expected, not {type(item).__name__}", remedy="give a path, bytes or an array")


def _fit(rule: ImageInput, picture: Any) -> Any:
    image = _pillow()
    height, width = rule.size
    methods = {"nearest": image.Resampling.NEAREST, "bilinear": image.Resampling.BILINEAR}
    methods |= {"bicubic": image.Resampling.BICUBIC, "area": image.Resampling.BOX}
    method = methods[rule.interpolation]
    if rule.resize == "stretch":
        return picture.resize((width, height), method)
    if rule.resize == "pad":
        ratio = min(width / picture.width, height / picture.height)
        small = picture.resize((max(1, round(picture.width * ratio)), max(1, round(picture.height * ratio))), method)
        result = image.new(picture.mode, (width, height))
        result.paste(small, ((width - small.width) // 2, (height - small.height) // 2))
        return result
    if rule.resize == "shorter_side":
        ratio = (rule.resize_to or max(height, width)) / min(picture.width, picture.height)
        picture = picture.resize((round(picture.width * ratio), round(picture.height * ratio)), method)
    if rule.crop == "center":
        left, top = (picture.width - width) // 2, (picture.height - height) // 2
        if left >= 0 and top >= 0:
            picture = picture.crop((left, top, left + width, top + height))
    if (picture.height, picture.width) != (height, width):
        raise Refused(
            f"after resizing the picture has {picture.height} x {picture.width} pixels, not {height} x {width}",
            remedy='set resize = "stretch" or crop = "center" in preprocess.toml, or give a picture of that size',
        )
    return picture
