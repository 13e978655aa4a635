"""Sounds to tensors."""

from __future__ import annotations

import io
import os
import wave
from typing import TYPE_CHECKING

import numpy as np

from edgekit_runtime.errors import Refused, UsageError

if TYPE_CHECKING:
    from edgekit_runtime.preprocess import AudioInput


def encode(rule: AudioInput, item: object) -> np.ndarray:
    """One sound as frames.

    Args:
        rule: Rate and window.
        item: Path or bytes of a wav file, or float [n] in -1 to 1 at the rule's rate.

    Returns:
        float32 [frames, window]; the last frame is padded with zeros.

    Raises:
        Refused: Not a PCM wav, or of another rate.
    """
    if isinstance(item, np.ndarray):
        if item.ndim != 1 or item.dtype.kind != "f":
            raise UsageError(f"a sound was expected as float [n], not {item.dtype} {list(item.shape)}")
        samples = item.astype(np.float32, copy=False)
    else:
        samples, rate = read_wav(item)
        if rate != rule.rate:
            raise Refused(f"the sound has {rate} samples a second, the student takes {rule.rate}", remedy="resample it")
    return frame(samples, rule.window or max(len(samples), 1), rule.hop)


def frame(samples: np.ndarray, window: int, hop: int = 0) -> np.ndarray:
    """Cuts [n] into [frames, window], a frame every `hop` samples (0: the window), zeros after the end."""
    step = hop or window
    count = max(1, -(-(len(samples) - window) // step) + 1)
    padded = np.zeros((count - 1) * step + window, np.float32)
    padded[: len(samples)] = samples
    return np.stack([padded[start : start + window] for start in range(0, count * step, step)])


def read_wav(item: object) -> tuple[np.ndarray, int]:
    """A PCM wav file as mono float32 in -1 to 1 (channels averaged), and its rate in samples a second.

    Raises:
        Refused: Not a PCM wav.
    """
    if isinstance(item, (bytes, bytearray)):
        source: str | io.BytesIO = io.BytesIO(item)
    elif isinstance(item, (str, os.PathLike)):
        source = os.fspath(item)
    else:
        raise UsageError(f"a sound was expected, not {type(item).__name__}", remedy="give a path, bytes or an array")
    try:
        with wave.open(source, "rb") as file:
            channels, width, rate = file.getnchannels(), file.getsampwidth(), file.getframerate()
            data = file.readframes(file.getnframes())
    except (wave.Error, EOFError, OSError) as error:
        raise Refused(f"the sound is no PCM wav file: {error}", remedy="convert it to 16-bit PCM wav") from error
    samples = _pcm(data[: len(data) // (width * channels) * width * channels], width)
    return samples.reshape(-1, channels).mean(axis=1, dtype=np.float32), rate


def _pcm(data: bytes, width: int) -> np.ndarray:
    """Little-endian PCM of 1 to 4 bytes as float32 in -1 to 1 (8-bit wav is unsigned)."""
    if width == 1:
        return (np.frombuffer(data, np.uint8).astype(np.float32) - 128) / 128
    if width == 3:
        wide = np.zeros((len(data) // 3, 4), np.uint8)
        wide[:, 1:] = np.frombuffer(data, np.uint8).reshape(-1, 3)
        return wide.view("<i4")[:, 0].astype(np.float32) / np.float32(2**31)
    return np.frombuffer(data, f"<i{width}").astype(np.float32) / np.float32(2 ** (8 * width - 1))
