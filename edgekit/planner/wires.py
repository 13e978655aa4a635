"""What crosses: bytes of each codec on real tensors, those of the bundle's golden input at each split point.

    golden input ─► seg0 ─► seg1 ─► …      each tensor encoded and decoded here, once for all devices and servers
               └─ codecs ┘ codecs ┘

A session measures the same tensors when it opens, so that both choose the same codec. Where no engine of this machine
runs the pieces, or a bundle has no golden input, only the size of what crosses is known.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import math
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path

import numpy as np

from edgekit_runtime import codecs
from edgekit_runtime.bundle import Bundle, open_bundle
from edgekit_runtime.chain import Chain, split_points
from edgekit_runtime.engines.base import Arrays
from edgekit_runtime.errors import EdgekitError
from edgekit_runtime.manifest import Manifest, SplitPoint, Tensor, WireTensor
from edgekit_runtime.remote.pieces import first_sample
from edgekit_runtime.remote.weigh import worth

INPUTS = ""  # the place of the inputs among the split points
_TRIED_BYTES = 1 << 18


@dataclasses.dataclass(frozen=True)
class Wires:
    """Of one graph of a bundle.

    Attributes:
        sizes: Of the symbols, one sample.
        seen: By id of the split point (`INPUTS`: the inputs) each codec measured; absent where nothing could be run.
    """

    sizes: Mapping[str, int]
    seen: Mapping[str, Mapping[str, codecs.Measured]]

    def lossless(self, place: str, plain_bytes: int) -> list[codecs.Measured]:
        """Codecs that nothing beats in both bytes and time, fewest bytes first; `none` among them."""
        found = self.seen.get(place, {})
        rows = [row for name, row in found.items() if name in codecs.LOSSLESS and name != "none"]
        return worth([*rows, codecs.Measured("none", plain_bytes, 0.0, 0.0)])

    def bytes_of(self, tensors: Sequence[Tensor | WireTensor]) -> int:
        """Of tensors as they are, one sample."""
        return sum(math.prod(self._shape(tensor)) * np.dtype(tensor.dtype).itemsize for tensor in tensors)

    def crossing(self, manifest: Manifest, point: SplitPoint) -> int:
        """Bytes of all that a tail needs, inputs that it takes again among them."""
        again = [tensor for tensor in manifest.inputs if tensor.name in point.tail_inputs]
        return self.bytes_of(point.tensors) + self.bytes_of(again)

    def int8(self, manifest: Manifest, point: SplitPoint) -> codecs.Measured:
        """`int8-row` on a float wire: as seen, else from the shapes, at the rate that this machine shows."""
        if codecs.INT8_ROW in self.seen.get(point.id, {}):
            return self.seen[point.id][codecs.INT8_ROW]
        floats = [tensor for tensor in point.tensors if np.dtype(tensor.dtype).kind == "f"]
        plain, rate = self.bytes_of(floats), _int8_rate()
        return dataclasses.replace(
            rate,
            bytes=self.crossing(manifest, point) - plain + sum(map(self._int8_bytes, floats)),
            encode_ms=rate.encode_ms * plain / _TRIED_BYTES,
            decode_ms=rate.decode_ms * plain / _TRIED_BYTES,
        )

    def _int8_bytes(self, tensor: WireTensor) -> int:
        """One byte an element and a scale for each row."""
        shape = self._shape(tensor)
        rows = math.prod(shape) // max(codecs.row_elements(shape), 1) if len(shape) > 1 else 1
        return math.prod(shape) + rows * max(np.dtype(tensor.dtype).itemsize, 4)

    def _shape(self, tensor: Tensor | WireTensor) -> list[int]:
        return [size if isinstance(size, int) else self.sizes.get(size, 1) for size in tensor.shape]


def wires(bundle: Bundle, graph: str) -> Wires:
    """What crosses where a graph is cut, and what is made of it."""
    return Wires(_sizes(bundle), _seen(bundle.root, bundle.bundle_id, graph))


@functools.lru_cache(maxsize=64)  # every device and server asks for the same; the id tells a bundle made anew
def _seen(root: Path, bundle_id: str, graph: str) -> Mapping[str, Mapping[str, codecs.Measured]]:
    with open_bundle(root) as bundle:
        golden = first_sample(bundle.manifest, bundle.golden_inputs())
        if not golden:
            return {}
        found = {INPUTS: _measured(golden)}
        points = split_points(bundle.manifest, graph)
        with contextlib.suppress(EdgekitError):  # no engine here runs the pieces: their sizes are known all the same
            found |= {name: _measured(values) for name, values in _crossing(bundle, graph, points, golden).items()}
        return found


def _crossing(bundle: Bundle, graph: str, points: Sequence[SplitPoint], golden: Arrays) -> dict[str, Arrays]:
    """The tensors at each split point, every piece run once."""
    found: dict[str, Arrays] = {}
    dtypes = {tensor.name: tensor.dtype for tensor in bundle.graph(graph).inputs}
    given = {name: np.asarray(array, dtypes.get(name, array.dtype)) for name, array in golden.items()}
    with ExitStack() as stack:
        start = None
        for point in points:
            piece = stack.enter_context(Chain(bundle, graph, start=start, stop=point.id))
            given = piece.run({tensor.name: given[tensor.name] for tensor in piece.inputs})
            found[point.id], start = given, point.id
    return found


def _measured(arrays: Arrays) -> dict[str, codecs.Measured]:
    tensors = list(arrays.values())
    found = {row.codec: row for row in codecs.measure_all(tensors)}
    if any(array.dtype.kind == "f" for array in tensors):
        with contextlib.suppress(EdgekitError):  # NaN or infinity, as in a mask, has no int8 form
            found[codecs.INT8_ROW] = codecs.measure(codecs.INT8_ROW, tensors)
    return found


@functools.cache
def _int8_rate() -> codecs.Measured:
    """What `int8-row` takes here for a tensor of `_TRIED_BYTES`; it goes through all bytes alike."""
    return codecs.measure(codecs.INT8_ROW, [np.ones((1, 64, _TRIED_BYTES // 256), np.float32)])


def _sizes(bundle: Bundle) -> dict[str, int]:
    """Sizes of the symbols: the golden input's, else the smallest allowed; one sample."""
    manifest = bundle.manifest
    sizes = {axis.symbol: 1 if axis.role == "batch" else max(axis.min, 1) for axis in manifest.axes}
    golden = bundle.golden_inputs() or {}
    batch = {axis.symbol for axis in manifest.axes if axis.role == "batch"}
    for tensor in manifest.inputs:
        if tensor.name in golden:
            for symbol, size in zip(tensor.shape, golden[tensor.name].shape, strict=False):
                if isinstance(symbol, str) and symbol not in batch:
                    sizes[symbol] = size
    return sizes
