"""What a request comes to, and whether what a server says is an answer to it."""

from __future__ import annotations

import dataclasses
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


@dataclasses.dataclass(frozen=True)
class Timing:
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


@dataclasses.dataclass(frozen=True)
class Result:
    """Outputs by name, the decision and where the time went."""

    outputs: Arrays
    decision: Decision
    timing: Timing


class Expected(msgspec.Struct, frozen=True, eq=False):
    """What an answer must look like.

    Attributes:
        outputs: Name, dtype and shape of each.
        sha256: Of the graph that was meant; empty: any.
        sizes: Of the symbols in the shapes, as far as they are known.
    """

    outputs: Sequence[Tensor]
    sha256: str
    sizes: Mapping[str, int]


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


def _of_kind(array: np.ndarray, dtype: str) -> bool:
    """The dtype, or an integer of another width: a server may run another of the bundle's graphs."""
    return array.dtype == dtype or (array.dtype.kind in "iu" and np.dtype(dtype).kind in "iu")


def check(tensors: Arrays, sha256: Any, expected: Expected) -> None:
    """Is it an answer to the request?

    Args:
        tensors: Of the answer.
        sha256: Of the graph it is of, as the server says.
        expected: What it must look like.

    Raises:
        Refused: Another graph's, a wrong name, dtype or shape, or numbers that are none.
    """
    if expected.sha256 and sha256 != expected.sha256:
        raise Refused("the answer is of another graph", remedy="serve the bundle that the device has")
    for tensor in expected.outputs:
        array = tensors.get(tensor.name)
        if array is None or not _of_kind(array, tensor.dtype) or array.ndim != len(tensor.shape):
            raise Refused(f"the answer has no {tensor.name} {tensor.dtype}", remedy="look at the server")
        wanted = [expected.sizes.get(size) if isinstance(size, str) else size for size in tensor.shape]
        if any(size is not None and size != got for size, got in zip(wanted, array.shape, strict=True)):
            raise Refused(f"{tensor.name} has shape {array.shape}, not {wanted}", remedy="look at the server")
        if array.dtype.kind == "f" and not _finite(array):
            raise Refused(f"{tensor.name} holds what is no number", remedy="look at the server")
