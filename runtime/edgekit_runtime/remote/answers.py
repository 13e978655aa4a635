"""What a request comes to, and whether what a server says is an answer to it."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec
import numpy as np

from edgekit_runtime.adaptive import Decision
from edgekit_runtime.engines.base import Arrays
from edgekit_runtime.errors import Refused
from edgekit_runtime.manifest import Tensor

_FEW = 64


class Timing(msgspec.Struct, frozen=True):
    """Where the time of a request went, ms. Parts that did not happen are 0.

    Attributes:
        total_ms: From call to answer.
        local_ms: Runs on the device.
        encode_ms: Serialising and encoding.
        uplink_ms: Share of the network's time that went up, by the link's estimate.
        server_ms: In the server, waiting left out.
        queue_ms: Waiting in the server.
        downlink_ms: Share of the network's time that came down.
        fallback: Why the answer came from the local run after all; empty: it did not.
    """

    total_ms: float
    local_ms: float = 0.0
    encode_ms: float = 0.0
    uplink_ms: float = 0.0
    server_ms: float = 0.0
    queue_ms: float = 0.0
    downlink_ms: float = 0.0
    fallback: str = ""


class Result(msgspec.Struct, frozen=True, eq=False):
    """Outputs by name, the decision and where the time went."""

    outputs: Arrays
    decision: Decision
    timing: Timing


class Expected:
    """What an answer must look like; made once for all requests of the same shapes.

    Attributes:
        sha256: Of the graph that was meant; empty: any.
        rows: Of each output its name, dtype and shape; sizes that are not known are None.
    """

    __slots__ = ("rows", "sha256")

    def __init__(self, outputs: Sequence[Tensor], sha256: str, sizes: Mapping[str, int]) -> None:
        """Works out the shapes.

        Args:
            outputs: Name, dtype and shape of each.
            sha256: As the attribute.
            sizes: Of the symbols in the shapes, as far as they are known.
        """
        self.sha256 = sha256
        self.rows = tuple(
            (
                tensor.name,
                np.dtype(tensor.dtype),
                tuple([sizes.get(size) if isinstance(size, str) else size for size in tensor.shape]),
            )
            for tensor in outputs
        )


def _finite(array: np.ndarray) -> bool:
    if array.size <= _FEW:  # numpy's machinery, called once a request, is never in the caches
        return all(map(math.isfinite, array.ravel().tolist()))
    return int(np.count_nonzero(np.isfinite(array))) == array.size


def sizes_of(inputs: Sequence[Tensor], given: Mapping[str, Any]) -> dict[str, int]:
    """Sizes of the symbols in the shapes of a request. Inputs that do not fit tell nothing: a run refuses them."""
    return {
        symbol: size
        for tensor in inputs
        if tensor.name in given
        for symbol, size in zip(tensor.shape, np.shape(given[tensor.name]), strict=False)
        if isinstance(symbol, str)
    }


def accepted(tensors: Arrays, sha256: Any, expected: Expected) -> Arrays:
    """The outputs that were asked for, if this is an answer to the request; integers are made as wide as they are here.

    A server may run another of the bundle's graphs, whose integers have another width.

    Args:
        tensors: Of the answer.
        sha256: Of the graph it is of, as the server says.
        expected: What it must look like.

    Raises:
        Refused: Another graph's, a wrong name, dtype or shape, or numbers that are none.
    """
    if expected.sha256 and sha256 != expected.sha256:
        raise Refused("the answer is of another graph", remedy="serve the bundle that the device has")
    found: Arrays = {}
    for name, dtype, shape in expected.rows:
        array = tensors.get(name)
        if array is not None and array.dtype != dtype and array.dtype.kind in "iu" and dtype.kind in "iu":
            array = array.astype(dtype)
        if array is None or array.dtype != dtype or array.ndim != len(shape):
            raise Refused(f"the answer has no {name} {dtype}", remedy="look at the server")
        if array.shape != shape and any(
            size is not None and size != got for size, got in zip(shape, array.shape, strict=True)
        ):
            raise Refused(f"{name} has shape {array.shape}, not {list(shape)}", remedy="look at the server")
        if dtype.kind == "f" and not _finite(array):
            raise Refused(f"{name} holds what is no number", remedy="look at the server")
        found[name] = array
    return found
