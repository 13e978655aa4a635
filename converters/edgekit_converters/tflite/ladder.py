"""Which fixed sizes a TFLite file offers for a student's dynamic axes.

LiteRT runs fixed shapes, so every dynamic axis becomes a size in each signature:

    role batch    1: the runtime slices and concatenates
    role length   rungs: powers of two up to the axis's maximum; the runtime pads to the next rung
    role other    the example's size and, where there are few, those of the data; more only when the caller asks
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from edgekit_converters.captured import Arrays, Captured
from edgekit_runtime.errors import InputMismatch, Refused, UsageError
from edgekit_runtime.ladder import plan as choose
from edgekit_runtime.manifest import Axis, Signature

MAX_RUNGS = 6
SMALLEST_RUNG = 16
ONLY = "serving_default"  # the name every TFLite tool gives to a single signature


def rung_sizes(axis: Axis) -> tuple[int, ...]:
    """Sizes of a `length` axis: powers of two from max(16, min) on, the largest is the axis's maximum.

    At most six; with more, the smallest are dropped, as padding costs most where requests are long.

    Returns:
        Sizes in rising order. Just the maximum where it is 16 or less.
    """
    if axis.max <= SMALLEST_RUNG:
        return (axis.max,)
    size = 1 << (max(SMALLEST_RUNG, axis.min) - 1).bit_length()
    sizes = []
    while size < axis.max:
        sizes.append(size)
        size *= 2
    return (*sizes[-(MAX_RUNGS - 1) :], axis.max)


def plan(student: Captured, asked: Mapping[str, Sequence[int]] | None = None) -> tuple[Signature, ...]:
    """The signatures of a student's file, smallest first; one signature without a ladder is `serving_default`.

    Several `length` axes step together: the k-th rung takes the k-th size of each, the shorter list stays at its
    largest size.

    Args:
        student: Gives axes and the example.
        asked: Sizes the caller wants, by symbol; they replace the defaults.

    Raises:
        UsageError: A symbol the student does not have, or a size outside the axis's range.
    """
    asked = asked or {}
    for symbol in asked:
        if all(axis.symbol != symbol for axis in student.axes):
            known = ", ".join(axis.symbol for axis in student.axes) or "none"
            raise UsageError(f"sizes given for the axis {symbol!r}; the student's dynamic axes are: {known}")
    choices = {axis.symbol: _choices(axis, student, asked.get(axis.symbol)) for axis in student.axes}
    rungs = max((len(sizes) for sizes in choices.values()), default=1)
    table = [
        {symbol: sizes[max(0, len(sizes) - rungs + step)] for symbol, sizes in choices.items()} for step in range(rungs)
    ]
    stepping = [symbol for symbol, sizes in choices.items() if len(sizes) > 1]
    return tuple(Signature(name=_name(sizes, stepping), sizes=sizes) for sizes in table)


def sizes_of_data(student: Captured, samples: Iterable[Arrays]) -> dict[str, tuple[int, ...]]:
    """Sizes to ask for, so that every sample finds a rung: those that axes which cannot be padded have in the data.

    Args:
        student: Gives axes, inputs and the example.
        samples: Calibration and evaluation samples.

    Returns:
        Sizes by symbol, for `plan`; nothing for axes whose only size is the example's.

    Raises:
        Refused: The data have more sizes than a file gets rungs, or two axes that do not step together.
    """
    if student.parts or all(axis.role != "other" for axis in student.axes):
        return {}
    seen = [_sizes(student, sample) for sample in samples]
    asked = {}
    for axis in student.axes:
        found = {sizes[axis.symbol] for sizes in seen if axis.symbol in sizes} | {example_size(student, axis.symbol)}
        inside = tuple(sorted(size for size in found if axis.min <= size <= axis.max))
        if axis.role == "other" and len(inside) > MAX_RUNGS:
            raise Refused(
                f"padding changes the answers along the axis {axis.symbol!r}, so in TFLite each of its sizes needs a "
                f"graph of its own; the data have {len(inside)} ({inside[0]} to {inside[-1]}), a file gets {MAX_RUNGS}",
                remedy=f"{_UNPADDABLE} at most {MAX_RUNGS} sizes",
            )
        if axis.role == "other" and len(inside) > 1:
            asked[axis.symbol] = inside
    if asked:
        _check_rungs(plan(student, asked), {axis.symbol: axis for axis in student.axes}, seen)
    return asked


_UNPADDABLE = (
    "mask padding in the student, so that it changes no answer; or --format onnx, which takes every size; or give "
    "calibration and evaluation data of"
)


def _sizes(student: Captured, sample: Arrays) -> dict[str, int]:
    return {
        symbol: int(sample[tensor.name].shape[place])
        for tensor in student.inputs
        if tensor.name in sample
        for place, symbol in enumerate(tensor.shape)
        if isinstance(symbol, str)
    }


def _check_rungs(rungs: Sequence[Signature], axes: Mapping[str, Axis], seen: Sequence[Mapping[str, int]]) -> None:
    for sizes in seen:
        try:
            choose(rungs, axes, sizes)
        except InputMismatch as error:
            raise Refused(
                f"of the data's sizes, {error.message}", remedy=f"{_UNPADDABLE} one of those sizes"
            ) from error


def _choices(axis: Axis, student: Captured, asked: Sequence[int] | None) -> tuple[int, ...]:
    if asked:
        wrong = [size for size in asked if not axis.min <= size <= axis.max]
        if wrong:
            raise UsageError(
                f"size {wrong[0]} asked for the axis {axis.symbol!r}, which takes {axis.min} to {axis.max}"
            )
        return tuple(sorted(set(asked)))
    if axis.role == "batch":
        return (max(1, axis.min),)
    if axis.role == "length":
        return rung_sizes(axis)
    return (example_size(student, axis.symbol),)


def example_size(student: Captured, symbol: str) -> int:
    """The size that the example has along the axis `symbol`."""
    for tensor in student.inputs:
        if symbol in tensor.shape:
            return int(student.example[tensor.name].shape[tensor.shape.index(symbol)])
    raise UsageError(f"no input of the student has the axis {symbol!r}")


def _name(sizes: Mapping[str, int], stepping: Sequence[str]) -> str:
    return "_".join(f"{symbol.lower()}{sizes[symbol]}" for symbol in stepping) or ONLY


def shape_at(shape: Sequence[int | str], sizes: Mapping[str, int]) -> tuple[int, ...]:
    """A shape with its symbols replaced by the sizes of one signature."""
    return tuple(sizes[entry] if isinstance(entry, str) else entry for entry in shape)
