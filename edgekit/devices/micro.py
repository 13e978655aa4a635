"""What a calibration measures: which kernels at which sizes. `micro_onnx` and `micro_tflite` build the graphs.

Sizes are a grid of round numbers over what small students have, and belong to no student in particular.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Iterator

from edgekit.devices import coordinates
from edgekit.devices.families import BINARY, MOVED_BY_RUNS, PRODUCTS, Family
from edgekit.devices.table import STREAM, WIRE


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

    @property
    def grid(self) -> tuple[int, ...]:
        """Where its point lies in the table, as `families.cell` finds the operators of a graph."""
        if self.family in ("conv", "pointwise"):
            return coordinates.product(self.kind, self.int8, self.sizes, picture(self)[2])
        if self.family == "depthwise":
            return coordinates.product(self.kind, False, self.sizes, 1)
        if self.kind == "GRU":  # three products where the sizes count four
            return self.sizes[0], self.sizes[1] * 3 // 4, self.sizes[2]
        if self.kind == "STRIDED_SLICE" and self.sizes[1] <= ROW:  # every second row: half is taken, one by one
            return self.sizes[0] // 2, 1
        if self.family == "dense" and self.kind != STREAM:
            return coordinates.product(self.kind, self.int8, self.sizes, self.sizes[1])
        return self.sizes

    @property
    def macs(self) -> int:
        """Multiply-accumulates of one call; 0: it is no product."""
        return math.prod(self.sizes) if self.family in PRODUCTS and self.kind != STREAM else 0


Build = Callable[[Micro], bytes]

# rows x (inner, columns). Weights of each chain together exceed a second-level cache where one of them is large.
_ROWS = (1, 2, 16, 64, 128)
_DENSE = ((32, 16), (64, 64), (128, 128), (128, 512), (256, 256), (512, 512), (1024, 256), (384, 1536), (512, 2048))
# (side of the picture, channels in and out, kernel)
_CONV = (
    (32, 16, 16), (32, 32, 32), (32, 64, 64), (16, 16, 16), (16, 32, 32), (16, 64, 64), (8, 32, 32), (8, 64, 64),
    (8, 128, 128), (4, 128, 128), (4, 256, 256), (64, 8, 8), (64, 16, 16), (64, 32, 32),
    (128, 16, 16),
)  # fmt: skip
# (side, channels in, channels out) of first layers: few channels go in, so they do not chain and stand alone
_FIRST = ((32, 3, 16), (32, 3, 32), (64, 3, 16), (96, 3, 8), (28, 1, 16), (128, 3, 16))
# The same where int8 channels widen or narrow: without, what goes in could not be told from what comes out
_WIDENING = ((16, 16, 64), (8, 32, 128), (32, 64, 16))
# (length, channels in and out, kernel) of convolutions over one axis
_NARROW = (
    (1, 32, 2), (1, 64, 3), (1, 128, 3), (1, 256, 3), (8, 96, 3), (32, 48, 3), (64, 100, 3), (64, 96, 5), (128, 64, 3),
    (128, 100, 4), (256, 64, 3), (512, 96, 3), (1024, 32, 3), (2048, 48, 3),
)  # fmt: skip
_POINTWISE = ((32, 16), (32, 64), (16, 64), (16, 128), (8, 128), (8, 256), (4, 256), (4, 512))
# (side, channels, kernel); not only as many channels fewer as there are pixels more
_DEPTHWISE = (
    (48, 16, 3), (32, 32, 3), (24, 64, 3), (16, 128, 3), (8, 256, 3), (4, 256, 3), (12, 64, 3), (8, 64, 3), (48, 64, 3),
    (16, 64, 5), (8, 128, 5),
)  # fmt: skip
# (batch of matrices, rows, inner, columns)
_MATMUL = (
    (1, 1, 64, 64), (1, 1, 256, 256), (4, 1, 64, 32), (8, 1, 32, 128), (2, 64, 64, 16),
    (2, 16, 16, 16), (32, 16, 16, 16), (16, 32, 32, 32), (4, 64, 32, 64), (4, 64, 64, 32), (8, 64, 64, 64),
    (1, 64, 256, 64), (12, 128, 32, 128), (12, 128, 128, 32),
)  # fmt: skip
# (steps, features, units)
_RECURRENT = (
    (16, 32, 32), (8, 64, 64), (32, 64, 64), (32, 128, 128), (64, 128, 64), (64, 128, 128), (64, 256, 128),
    (64, 256, 256),
)  # fmt: skip
STREAM_WIDTH = 512  # of the square weights whose reading is timed
STREAM_BYTES = 4 * STREAM_WIDTH**2
INT8_STREAM_WIDTH = 1024  # of as many bytes
# Rows at once, and layers of 1 MiB each
_STREAMS = (
    (1, 1), (1, 2), (1, 8), (1, 24), (1, 64), (8, 2), (8, 8), (8, 24), (8, 64), (64, 2), (64, 8), (64, 24), (64, 64),
)  # fmt: skip
# int8 is read at another pace: its product takes a quarter of the time that there is to read it
_INT8_STREAMS = ((1, 2), (1, 8), (1, 24), (8, 2), (8, 8), (8, 24), (64, 2), (64, 8), (64, 24))
LINKS = 6  # links of a chain of element-wise kernels
_PRODUCTS_OF_A_GRAPH = 4
_ELEMENTS = (256, 4096, 32768, 131072, 524_288)
ROW = 128  # elements of the last axis of the element-wise kernels
_MOVED = (512, 4096, 32768, 262_144)
# Rows of few columns, as the state of a convolution's step has them; over the links of a chain 2 to 7, in the mean:
_THIN_ROWS, _THIN_COLUMNS = (128, 1024, 8192), 4.5
_THIN = ("Concat", "Slice")
_WIRES = (128, 4096, 32768)
_BESIDE = 4  # convolutions of one graph that do not chain
# Elements of rows of 128, 16 and 1
_GATHERED, _NARROW_ROWS, _SINGLE = (256, 4096, 32768, 131072, 524_288), (256, 8192), (64, 1024, 16384)
# (side, channels) of pictures that are pooled
_POOLED = ((8, 32), (16, 64), (32, 32), (48, 64))

# (side, channels) of what is left of pictures that are halved
_HALVED = ((32, 16), (16, 8), (16, 32), (8, 64), (4, 64), (4, 16), (32, 64))


def repeats(weight_bytes: int) -> int:
    """Copies of a layer that together hold about 2 MB of weights."""
    return max(3, min(12, 2_000_000 // max(weight_bytes, 1)))


def dense(kind: str, int8: bool, helper: str = "") -> Iterator[Micro]:
    """Products with constant weights, there and back again so that they chain."""
    for rows in _ROWS:
        kernel = kind + coordinates.VECTOR if rows == 1 else kind
        for inner, columns in _DENSE:
            size = 1 if int8 else 4
            pairs = repeats(2 * inner * columns * size)
            helpers = tuple((helper, (rows * width,), pairs) for width in (inner, columns)) if helper else ()
            yield Micro("dense", kernel, int8, (rows, inner, columns), 2 * pairs, helpers)


def thin(micro: Micro) -> tuple[int, int] | None:
    """Rows, and columns at the begin of the chain, of a kernel that moves thin rows; None: it does not."""
    if micro.kind not in _THIN or micro.sizes[1] > _THIN_COLUMNS:
        return None
    return round(micro.sizes[0] / _THIN_COLUMNS), 1 if micro.kind == "Concat" else LINKS + 2


def convolutions(kinds: dict[Family, str], int8: bool, *, around: str = "", joined: str = "") -> Iterator[Micro]:
    """Square pictures, as many channels out as in, and first layers, which stand alone.

    Args:
        kinds: Kernel of each family.
        int8: As in `Micro`.
        around: Key of what an engine puts before and behind a convolution that does not chain.
        joined: Key of what adds up several of those, so that what stands around them weighs less; empty: one alone.
    """
    size = 1 if int8 else 4
    for side, inner, columns in _CONV:
        count = repeats(9 * inner * columns * size)
        yield Micro("conv", kinds["conv"], int8, (side * side, 9 * inner, columns), count)
    for side, inner, columns in (*_FIRST, *(_WIDENING if int8 else ())):
        pixels = side * side
        helpers = tuple((around, (pixels * width,), 1) for width in (inner, columns)) if around else ()
        if joined:
            helpers += ((joined, (pixels * columns,), _BESIDE - 1),)
        yield Micro("conv", kinds["conv"], int8, (pixels, 9 * inner, columns), _BESIDE if joined else 1, helpers)
    for length, channels, kernel in _NARROW:
        sizes = (length, kernel * channels, channels)
        name = kinds["conv"] + "1d" + (coordinates.VECTOR if length == 1 else "")
        yield Micro("conv", name, int8, sizes, repeats(kernel * channels * channels * size))
    for side, channels in _POINTWISE:
        count = repeats(channels * channels * size)
        yield Micro("pointwise", kinds["pointwise"], int8, (side * side, channels, channels), count)
    for side, channels, kernel in _DEPTHWISE:
        yield Micro("depthwise", kinds["depthwise"], int8, (side * side, kernel**2, channels), 6)


def is_narrow(micro: Micro) -> bool:
    """Whether a convolution goes over one axis."""
    return micro.kind.removesuffix(coordinates.VECTOR).endswith("1d")


def picture(micro: Micro) -> tuple[int, int, int, int, int]:
    """Height, width, channels in, kernel height and width of a convolution; height 1 over one axis."""
    pixels, inner, columns = micro.sizes
    if is_narrow(micro):
        kernel = inner // columns
        return 1, pixels, inner // kernel, 1, kernel
    side, kernel = round(pixels**0.5), 1 if micro.family == "pointwise" else 3
    if micro.family == "depthwise":
        kernel = round(inner**0.5)
        return side, side, columns, kernel, kernel
    return side, side, inner // kernel**2, kernel, kernel


def matmuls(kind: str, right: tuple[str, int], behind: tuple[str, int]) -> Iterator[Micro]:
    """Products of two activations.

    Args:
        kind: As in `Micro`.
        right: Key of what makes the second operand from a constant, and how often that is done.
        behind: Key of what brings the products together, and how often.
    """
    for batch, rows, inner, columns in _MATMUL:
        made, found = batch * inner * columns, batch * rows * columns
        around = ((right[0], at_once(right[0], made), right[1]), (behind[0], at_once(behind[0], found), behind[1]))
        yield Micro("matmul", kind, False, (batch, rows, inner, columns), _PRODUCTS_OF_A_GRAPH, around)


def at_once(key: str, size: int) -> tuple[int, ...]:
    """Sizes of a helper on whole tensors."""
    return (size, size) if key.split("/")[1] in BINARY else (size,)


def streams(kind: str, int8: bool = False) -> Iterator[Micro]:
    """One row times weights that together have a size: how fast they come from where they lie then."""
    for rows, megabytes in _INT8_STREAMS if int8 else _STREAMS:
        yield Micro("dense", kind, int8, (rows, megabytes * STREAM_BYTES), megabytes)


def wires(beside: str) -> Iterator[Micro]:
    """Inputs and outputs of a run besides the first.

    Args:
        beside: Key of the operator between each input and its output.
    """
    for size in _WIRES:
        yield Micro("move", WIRE, False, (size,), _BESIDE, ((beside, (size,), _BESIDE + 1),))


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
        around = tuple((key, beside(key, size), LINKS) for key in helpers)
        # int8 takes both operands from the chain: it has no row that is added to all.
        sizes = (size, size if int8 else ROW) if kind in BINARY else (size,)
        yield Micro(family, kind, int8, sizes, LINKS * per_link, around)
    if kind in BINARY and not int8:
        for size in _ELEMENTS[1:]:
            yield Micro(family, kind, int8, (size, size), LINKS)


def beside(key: str, size: int) -> tuple[int, ...]:
    """Sizes of a helper in a chain of rows."""
    return (size, ROW) if key.split("/")[1] in BINARY else (size,)


def moves(kind: str, int8: bool = False) -> Iterator[Micro]:
    """Kernels that copy: row by row, a column more or less, and all at once, a row more or less."""
    assert kind in MOVED_BY_RUNS
    parts = 2 if kind in ("Concat", "CONCATENATION") else 1
    for size in _MOVED:
        yield Micro("move", kind, int8, (size, ROW // parts), LINKS)
        if size >= 32 * ROW:  # a row more or less must not matter
            yield Micro("move", kind, int8, (size, size // parts), LINKS)
    for rows in _THIN_ROWS if kind in _THIN else ():
        yield Micro("move", kind, int8, (int(rows * _THIN_COLUMNS), int(_THIN_COLUMNS) // parts), LINKS)


def rows_of_tables(kind: str, int8: bool = False, helpers: tuple[str, ...] = ()) -> Iterator[Micro]:
    """Rows gathered from a table or added to one: wide ones, and single elements.

    Args:
        kind: As in `Micro`.
        int8: As in `Micro`.
        helpers: As in `elements`.
    """
    for width, sizes in ((ROW, _GATHERED), (16, _NARROW_ROWS), (1, _SINGLE)):
        for size in sizes:
            around = tuple((key, beside(key, size), LINKS) for key in helpers)
            yield Micro("gather", kind, int8, (size, width), LINKS, around)


def pools(kind: str, int8: bool = False, around: str = "") -> Iterator[Micro]:
    """Windows of 3 x 3 that overlap: counted by what is read."""
    for side, channels in _POOLED:
        helpers = ((around, (side * side, channels, channels), 1),) if around else ()
        yield Micro("reduce", kind, int8, (9 * side * side * channels,), LINKS, helpers)


def halvings(kind: str, joined: str) -> Iterator[Micro]:
    """Windows of 2 x 2 side by side, of pictures with channels last: counted by what comes out, pixel by pixel.

    Args:
        kind: As in `Micro`.
        joined: Key of what adds up those that stand beside each other.
    """
    for side, channels in _HALVED:
        size = side * side * channels
        yield Micro("reduce", kind, False, (size, channels), _BESIDE, ((joined, (size,), _BESIDE - 1),))


def pooled(micro: Micro) -> tuple[int, int]:
    """Side and channels of the picture of a pool."""
    return next((s, c) for s, c in _POOLED if 9 * s * s * c == micro.sizes[0])
