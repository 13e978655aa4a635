from __future__ import annotations

import json

import numpy as np
import pytest

import edgekit
import edgekit_runtime as er
from edgekit_runtime.bundle import Bundle
from edgekit_runtime.chain import Chain, exits_of, split_points
from edgekit_runtime.errors import UsageError

from .conftest import Exits, images, loud, texts  # type: ignore[import-not-found]

GRAPHS = ("onnx.fp32", "onnx.int8", "tflite.fp32", "tflite.int8")


def requests(name: str) -> list[dict[str, np.ndarray]]:
    if name == "image":
        return [{"image": images(n, seed=n)} for n in (1, 8, 3)]
    return [{"ids": texts(n, length, seed=n)} for n, length in ((1, 20), (8, 7), (3, 32), (2, 1))]
