"""Dynamic axes: what the person asked for, sizes to try, and what an axis turns out to be. Pure but for `axis_role`.

    --dynamic NAME:AXIS[=SYMBOL][:MIN-MAX]

An axis without a symbol gets one by its place (`batch` for axis 0, `axis1`, `axis2`, ...), so that the same place of
several inputs shares it.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable, Iterable, Mapping, Sequence

import numpy as np

from edgekit_converters.captured import Arrays
from edgekit_runtime.errors import UsageError
from edgekit_runtime.manifest import AxisRole, Tensor

_FORM = re.compile(r"^(?P<name>[^:=]+):(?P<axis>\d+)(=(?P<symbol>[A-Za-z_]\w*))?(:(?P<min>\d+)-(?P<max>\d+))?$")
DEFAULT_MAX = 64
# Relative to the reference output's range: float addition in another order, nothing more.
SAME = 1e-4


@dataclasses.dataclass(frozen=True)
class DynamicAxis:
    """One axis of one input that may change its size. `min`, `max` None: not said."""

    input: str
    axis: int
    symbol: str
    min: int | None = None
    max: int | None = None


def parse_dynamic(texts: Iterable[str]) -> tuple[DynamicAxis, ...]:
    """Reads `--dynamic` options.

    Raises:
        UsageError: A text of another form, a range that is none, or one axis given twice.
    """
    found: list[DynamicAxis] = []
    for text in texts:
        match = _FORM.match(text)
        if not match:
            raise UsageError(
                f"--dynamic {text!r} is not NAME:AXIS[=SYMBOL][:MIN-MAX]", remedy="for example --dynamic ids:1=T:1-128"
            )
        axis = int(match["axis"])
        low, high = (int(match["min"]), int(match["max"])) if match["min"] else (None, None)
        if low is not None and high is not None and (low < 1 or low > high):
            raise UsageError(f"--dynamic {text!r}: sizes {low}-{high} are not a range", remedy="MIN is 1 or more")
        if low is not None and low == high:
            raise UsageError(
                f"--dynamic {text!r}: an axis of one size is not dynamic", remedy="leave it out, or give a wider range"
            )
        if any((item.input, item.axis) == (match["name"], axis) for item in found):
            raise UsageError(
                f"--dynamic names axis {axis} of input {match['name']!r} twice",
                remedy="one symbol and one range an axis",
            )
        found.append(DynamicAxis(match["name"], axis, match["symbol"] or default_symbol(axis), low, high))
    return tuple(found)


def default_symbol(axis: int) -> str:
    """Symbol of an axis the person did not name."""
    return "batch" if axis == 0 else f"axis{axis}"


def bounds(dynamic: Sequence[DynamicAxis], example: Arrays) -> dict[str, tuple[int, int]]:
    """Smallest and largest size of each symbol; unsaid maxima are the larger of the example's size and 64.

    Raises:
        UsageError: An unknown input, an axis the input does not have, one symbol with two ranges or two sizes, an
            example outside the range.
    """
    said = said_ranges(dynamic)
    ranges: dict[str, tuple[int, int]] = {}
    sizes: dict[str, int] = {}
    for item in dynamic:
        if item.input not in example:
            raise UsageError(
                f"--dynamic names input {item.input!r}", remedy=f"the student's inputs are: {', '.join(example)}"
            )
        shape = example[item.input].shape
        if item.axis >= len(shape):
            raise UsageError(
                f"--dynamic {item.input}:{item.axis}: the input has only {len(shape)} axes",
                remedy=f"axes are counted from 0; the example's shape is {list(shape)}",
            )
        size = shape[item.axis]
        if sizes.setdefault(item.symbol, size) != size:
            raise UsageError(
                f"dynamic axis {item.symbol!r} has size {sizes[item.symbol]} and {size} in the example",
                remedy="give axes of different size different symbols: NAME:AXIS=SYMBOL",
            )
        low, high = ranges[item.symbol] = said.get(item.symbol, (1, max(size, DEFAULT_MAX)))
        if not low <= size <= high:
            raise UsageError(
                f"dynamic axis {item.symbol!r} is {low}-{high}, and {size} in the example",
                remedy="widen the range, or give an example (or calibration samples) within it",
            )
    return ranges


def said_ranges(dynamic: Sequence[DynamicAxis]) -> dict[str, tuple[int, int]]:
    """The ranges the person gave, by symbol.

    Raises:
        UsageError: One symbol with two ranges.
    """
    ranges: dict[str, tuple[int, int]] = {}
    for item in dynamic:
        if item.min is None or item.max is None:
            continue
        old = ranges.setdefault(item.symbol, (item.min, item.max))
        if old != (item.min, item.max):
            raise UsageError(
                f"dynamic axis {item.symbol!r} has two ranges: {old[0]}-{old[1]} and {item.min}-{item.max}",
                remedy="axes that share a symbol share a size: give the range once, or another symbol",
            )
    return ranges


def resized(arrays: Mapping[str, np.ndarray], dynamic: Sequence[DynamicAxis], symbol: str, size: int) -> Arrays:
    """The arrays with one dynamic axis cut, or repeated from the start, to `size`.

    Whole numbers of other inputs that may point into a cut axis (the edges of a graph, into its nodes) are folded to
    the new size: they still point somewhere.
    """
    result = dict(arrays)
    mine = [item for item in dynamic if item.symbol == symbol]
    for item in mine:
        array = result[item.input]
        index = np.arange(size) % array.shape[item.axis]
        result[item.input] = np.take(array, index, axis=item.axis)
    before = min((arrays[item.input].shape[item.axis] for item in mine), default=0)
    for name in set(arrays) - {item.input for item in mine} if size < before else ():
        array = result[name]
        if array.dtype.kind in "iu" and array.size and int(array.min()) >= 0 and size <= int(array.max()) < before:
            result[name] = array % array.dtype.type(size)
    return result


def padded(arrays: Mapping[str, np.ndarray], dynamic: Sequence[DynamicAxis], symbol: str, extra: int) -> Arrays:
    """The arrays with `extra` zeros at the end of one dynamic axis."""
    result = dict(arrays)
    for item in dynamic:
        if item.symbol == symbol:
            array = result[item.input]
            widths = [(0, extra if axis == item.axis else 0) for axis in range(array.ndim)]
            result[item.input] = np.pad(array, widths)
    return result


def sizes_to_try(low: int, high: int) -> tuple[int, ...]:
    """Smallest, a middle and the largest size."""
    return tuple(sorted({low, (low + high) // 2, high}))


def close(left: np.ndarray, right: np.ndarray, tolerance: float = SAME) -> bool:
    """Equal shape, and largest difference within `tolerance` of the range of `right`."""
    if left.shape != right.shape:
        return False
    if left.size == 0:
        return True
    if not np.issubdtype(right.dtype, np.floating):
        return bool(np.array_equal(left, right))
    span = float(np.nanmax(right) - np.nanmin(right)) or float(np.nanmax(np.abs(right))) or 1.0
    return bool(np.nanmax(np.abs(left - right)) <= tolerance * span) and bool(
        np.array_equal(np.isnan(left), np.isnan(right))
    )


def output_shapes(
    run: Callable[[Mapping[str, np.ndarray]], Arrays],
    example: Arrays,
    dynamic: Sequence[DynamicAxis],
    ranges: Mapping[str, tuple[int, int]],
) -> tuple[Tensor, ...]:
    """Runs at two sizes of each symbol to learn which axis of each output follows it."""
    base = run(example)
    shapes: dict[str, list[int | str]] = {name: list(value.shape) for name, value in base.items()}
    for symbol, (low, high) in ranges.items():
        first = next(item for item in dynamic if item.symbol == symbol)
        now = example[first.input].shape[first.axis]
        other = now + 1 if now < high else max(low, now - 1)
        if other == now:
            continue
        changed = run(resized(example, dynamic, symbol, other))
        for name, value in changed.items():
            for axis, size in enumerate(value.shape):
                if size != base[name].shape[axis]:
                    shapes[name][axis] = symbol
    return tuple(Tensor(name=name, dtype=str(base[name].dtype), shape=tuple(shapes[name])) for name in base)


def axis_role(
    run: Callable[[Mapping[str, np.ndarray]], Arrays],
    example: Arrays,
    dynamic: Sequence[DynamicAxis],
    symbol: str,
    limit: tuple[int, int],
    outputs: Sequence[Tensor],
) -> AxisRole:
    """Measures whether samples along the axis are independent, or zeros at its end change nothing.

    Args:
        run: The student.
        example: A batch of inputs.
        dynamic: All dynamic axes.
        symbol: The one in question.
        limit: Its smallest and largest size.
        outputs: Output tensors with their symbols.
    """
    mine = [item for item in dynamic if item.symbol == symbol]
    # Samples need not be told apart by the first axis: a state [layers, batch, units] has them in its second. A single
    # number (a sampling rate) belongs to all of them.
    places = {item.input: item.axis for item in mine}
    answered = all(symbol in tensor.shape for tensor in outputs)
    covered = set(places) == {name for name, array in example.items() if array.ndim} and len(places) == len(mine)
    leading = 0 in places.values()
    # One sample alone has to be allowed: it is what the others are compared with, and what the runtime cuts batches to.
    alone = limit[0] <= 1 and limit[1] >= 2
    if leading and answered and covered and alone and _independent(run, example, dynamic, symbol, outputs):
        return "batch"
    size = example[mine[0].input].shape[mine[0].axis]
    short = max(limit[0], min(size, limit[1] - 3))
    extra = min(3, limit[1] - short)
    if extra < 1:
        return "other"
    start = resized(example, dynamic, symbol, short)
    neutral = _padding_is_neutral(run, start, padded(start, dynamic, symbol, extra), symbol, outputs)
    return "length" if neutral else "other"


def _independent(
    run: Callable[[Mapping[str, np.ndarray]], Arrays],
    example: Arrays,
    dynamic: Sequence[DynamicAxis],
    symbol: str,
    outputs: Sequence[Tensor],
) -> bool:
    places = {item.input: item.axis for item in dynamic if item.symbol == symbol}
    answers = {tensor.name: tensor.shape.index(symbol) for tensor in outputs}
    varied = resized(example, dynamic, symbol, 2)
    for name, axis in places.items():
        # The second sample must differ from the first, or a student that mixes samples would look independent.
        first, second = (np.take(varied[name], [index], axis=axis) for index in range(2))
        varied[name] = np.concatenate([first, np.roll(second, 1, axis=-1)], axis=axis)
    together = run(varied)
    for index in range(2):
        one = {name: np.take(varied[name], [index], axis=axis) for name, axis in places.items()}
        alone = run(varied | one)
        if not all(close(np.take(together[name], [index], axis=axis), alone[name]) for name, axis in answers.items()):
            return False
    return True


def _padding_is_neutral(
    run: Callable[[Mapping[str, np.ndarray]], Arrays],
    short: Arrays,
    long: Arrays,
    symbol: str,
    outputs: Sequence[Tensor],
) -> bool:
    plain, wider = run(short), run(long)
    for tensor in outputs:
        right, left = plain[tensor.name], wider[tensor.name]
        for axis, entry in enumerate(tensor.shape):
            if entry == symbol:
                left = np.take(left, range(right.shape[axis]), axis=axis)
        if not close(left, right):
            return False
    return True
