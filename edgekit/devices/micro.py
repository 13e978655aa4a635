"""What a calibration measures: which kernels at which sizes. `micro_onnx` and `micro_tflite` build the graphs.

Sizes are a grid of round numbers over what small students have, and belong to no student in particular.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator

from edgekit.devices.families import Family


@dataclasses.dataclass(frozen=True)
class Micro:
    """One graph of a calibration: one kernel several times, with what is needed between.

    Attributes:
        family: As `families.Cell`.
        kind: As `families.Cell`.
        int8: As `families.Cell`.
        sizes: As `families.Cell`.
        repeats: Times the kernel stands in the graph.
        helpers: Other operators that stand in it: key of their table, sizes, how many. They are measured before.
    """

    family: Family
    kind: str
    int8: bool
    sizes: tuple[int, ...]
    repeats: int
    helpers: tuple[tuple[str, tuple[int, ...], int], ...] = ()

    @property
    def key(self) -> str:
        """Name of the table that its point goes to."""
        return f"{self.family}/{self.kind}/{'int8' if self.int8 else 'float'}"


Build = Callable[[Micro], bytes]

# rows x (inner, columns). Weights of each chain together exceed a second-level cache where one of them is large.
_ROWS = (1, 2, 16, 64, 128)
_DENSE = ((32, 8), (64, 64), (128, 128), (128, 512), (256, 256), (512, 512), (1024, 256), (384, 1536), (512, 2048))
# (side of the picture, channels in and out, kernel)
_CONV = (
    (32, 16, 16), (32, 32, 32), (32, 64, 64), (16, 16, 16), (16, 32, 32), (16, 64, 64), (8, 32, 32), (8, 64, 64),
    (8, 128, 128), (4, 128, 128), (4, 256, 256), (64, 8, 8), (64, 16, 16), (64, 32, 32),
    (128, 16, 16),
)  # fmt: skip
# (side, channels in, channels out) of first layers: few channels go in, so they do not chain and stand alone
_FIRST = ((32, 3, 16), (32, 3, 32), (64, 3, 16), (96, 3, 8), (28, 1, 16), (128, 3, 16))
# (length, channels in and out, kernel) of convolutions over one axis
_NARROW = ((32, 48, 3), (64, 100, 3), (64, 96, 5), (128, 64, 3), (128, 100, 4), (256, 64, 3), (1024, 32, 3))
_POINTWISE = ((32, 16), (32, 64), (16, 64), (16, 128), (8, 128), (8, 256), (4, 256), (4, 512))
_DEPTHWISE = ((48, 16), (32, 32), (24, 64), (16, 128), (8, 256), (4, 256))
# (batch of matrices, rows, inner, columns)
_MATMUL = (
    (2, 16, 16, 16), (32, 16, 16, 16), (16, 32, 32, 32), (4, 64, 32, 64), (4, 64, 64, 32), (8, 64, 64, 64),
    (1, 64, 256, 64), (12, 128, 32, 128), (12, 128, 128, 32),
)  # fmt: skip
# (steps, features, units)
_RECURRENT = ((8, 64, 64), (32, 64, 64), (32, 128, 128), (64, 128, 64), (64, 128, 128), (64, 256, 128), (64, 256, 256))
STREAM_WIDTH = 512  # of the square weights whose reading is timed
STREAM_BYTES = 4 * STREAM_WIDTH**2
_STREAMS = (1, 2, 8, 24, 64)  # layers of 1 MiB each
LINKS = 6  # links of a chain of element-wise kernels
_ELEMENTS = (256, 4096, 32768, 131072, 524_288)


def repeats(weight_bytes: int) -> int:
    """Copies of a layer that together hold about 2 MB of weights."""
    return max(3, min(12, 2_000_000 // max(weight_bytes, 1)))


def dense(kind: str, int8: bool, helper: str = "") -> Iterator[Micro]:
    """Products with constant weights, there and back again so that they chain."""
    for rows in _ROWS:
        for inner, columns in _DENSE:
            size = 1 if int8 else 4
            pairs = repeats(2 * inner * columns * size)
            helpers = tuple((helper, (rows * width,), pairs) for width in (inner, columns)) if helper else ()
            yield Micro("dense", kind, int8, (rows, inner, columns), 2 * pairs, helpers)


def convolutions(kinds: dict[Family, str], int8: bool, *, around: str = "") -> Iterator[Micro]:
    """Square pictures, as many channels out as in, and first layers, which stand alone.

    Args:
        kinds: Kernel of each family.
        int8: As in `Micro`.
        around: Key of what an engine puts before and behind a convolution that stands alone.
    """
    size = 1 if int8 else 4
    for side, inner, columns in _CONV:
        count = repeats(9 * inner * columns * size)
        yield Micro("conv", kinds["conv"], int8, (side * side, 9 * inner, columns), count)
    for side, inner, columns in _FIRST:
        pixels = side * side
        helpers = tuple((around, (pixels * width,), 1) for width in (inner, columns)) if around else ()
        yield Micro("conv", kinds["conv"], int8, (pixels, 9 * inner, columns), 1, helpers)
    for length, channels, kernel in _NARROW:
        sizes = (length, kernel * channels, channels)
        yield Micro("conv", kinds["conv"] + "1d", int8, sizes, repeats(kernel * channels * channels * size))
    for side, channels in _POINTWISE:
        count = repeats(channels * channels * size)
        yield Micro("pointwise", kinds["pointwise"], int8, (side * side, channels, channels), count)
    for side, channels in _DEPTHWISE:
        yield Micro("depthwise", kinds["depthwise"], int8, (side * side, 9, channels), 6)


def picture(micro: Micro) -> tuple[int, int, int, int, int]:
    """Height, width, channels in, kernel height and width of a convolution; height 1 over one axis."""
    pixels, inner, columns = micro.sizes
    if micro.kind.endswith("1d"):
        kernel = inner // columns
        return 1, pixels, inner // kernel, 1, kernel
    side, kernel = round(pixels**0.5), 1 if micro.family == "pointwise" else 3
    return side, side, columns if micro.family == "depthwise" else inner // kernel**2, kernel, kernel


def matmuls(kind: str) -> Iterator[Micro]:
    """Products of two activations."""
    for batch, rows, inner, columns in _MATMUL:
        yield Micro("matmul", kind, False, (batch * rows, inner, columns), 4)


def streams(kind: str) -> Iterator[Micro]:
    """One row times weights that together have a size: how fast they come from where they lie then."""
    for megabytes in _STREAMS:
        yield Micro("dense", kind, False, (megabytes * STREAM_BYTES,), megabytes)


def matrices(micro: Micro) -> tuple[int, int]:
    """Batch and rows of a product of two activations."""
    total, inner, columns = micro.sizes
    batch = next(b for b, r, i, c in _MATMUL if (b * r, i, c) == (total, inner, columns))
    return batch, total // batch


def recurrent(kind: str, int8: bool) -> Iterator[Micro]:
    """One LSTM, one direction."""
    for steps, features, units in _RECURRENT:
        yield Micro("recurrent", kind, int8, (steps, features + units, 4 * units), 1)


def units(micro: Micro) -> tuple[int, int, int]:
    """Steps, features and units of a recurrence."""
    steps, inner, gates = micro.sizes
    return steps, inner - gates // 4, gates // 4


def elements(
    family: Family, kind: str, int8: bool = False, helpers: tuple[str, ...] = (), per_link: int = 1
) -> Iterator[Micro]:
    """Kernels whose cost is told by the number of elements.

    Args:
        family: As in `Micro`.
        kind: As in `Micro`.
        int8: As in `Micro`.
        helpers: Keys of the operators that stand in each link of the chain beside the kernel, of the same size.
        per_link: Times the kernel stands in a link.
    """
    for size in _ELEMENTS:
        around = tuple((key, (size,), LINKS) for key in helpers)
        yield Micro(family, kind, int8, (size,), LINKS * per_link, around)
