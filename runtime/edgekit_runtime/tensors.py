"""Do the arrays a person gives fit the graph? Everything that does not is said at once, before an engine sees it.

Conversions happen only where no value can change its meaning: a list becomes an array, an integer type another one that
holds every value given, a float another float width. A float never becomes an integer, nor an integer array a float.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping, Sequence

import numpy as np

from edgekit_runtime.errors import InputMismatch
from edgekit_runtime.manifest import Axis, Tensor

Arrays = dict[str, np.ndarray]
Sizes = dict[str, int]


def check(
    expected: Sequence[Tensor], axes: Mapping[str, Axis], inputs: Mapping[str, object], *, bare: bool = False
) -> tuple[Arrays, Sizes]:
    """Checks and converts the inputs of one request.

    Args:
        expected: Tensors of the graph; a symbol in a shape takes one size everywhere.
        axes: Allowed sizes by symbol; a symbol without an entry takes any size.
        inputs: What the person gave: arrays, or what numpy makes arrays of.
        bare: The graph is a file without a manifest: an empty shape there can mean that the rank is open.

    Returns:
        Arrays in the order of `expected`, with the graph's dtypes, and the size of each symbol.

    Raises:
        InputMismatch: Lists every problem.
    """
    problems = _name_problems([tensor.name for tensor in expected], list(inputs))
    arrays: Arrays = {}
    sizes: dict[str, tuple[int, str]] = {}
    for tensor in expected:
        if tensor.name not in inputs:
            continue
        array, problem = convert(tensor, inputs[tensor.name])
        if array is None:
            problems.append(problem)
            continue
        arrays[tensor.name] = array
        if tensor.shape or not bare:
            problems += _shape_problems(tensor, array.shape, sizes)
    problems += _range_problems(sizes, axes)
    if problems:
        wanted = ", ".join(f"{tensor.name} {tensor.dtype} {show(tensor.shape)}" for tensor in expected)
        raise InputMismatch("the inputs do not fit: " + "; ".join(problems), remedy=f"the graph takes {wanted}")
    return arrays, {symbol: size for symbol, (size, _) in sizes.items()}


def show(shape: Sequence[int | str]) -> str:
    """A shape in words: `[batch, 3, 32, 32]`."""
    return "[" + ", ".join(str(size) for size in shape) + "]"


def batch_place(tensor: Tensor, axes: Iterable[Axis]) -> int | None:
    """Which axis of a tensor tells its samples apart; None where none does. A state's is often not its first."""
    batch = {axis.symbol for axis in axes if axis.role == "batch"}
    return next((place for place, size in enumerate(tensor.shape) if size in batch), None)


def convert(tensor: Tensor, value: object) -> tuple[np.ndarray | None, str]:
    """The value as an array of the tensor's dtype, or None and what stands against it."""
    try:
        given = np.asarray(value)
    except ValueError as error:
        return None, f"{tensor.name} is no array: {error}"
    if tensor.dtype == "str":
        return (given, "") if given.dtype.kind in "UO" else (None, f"{tensor.name} has dtype {given.dtype}, takes text")
    try:
        wanted = np.dtype(tensor.dtype)
    except TypeError:  # an element type numpy does not know (bfloat16): the engine must judge
        return given, ""
    if given.dtype == wanted:
        return given, ""
    kinds = given.dtype.kind + wanted.kind
    plain_list = not hasattr(value, "dtype")
    if kinds == "ff" or (plain_list and kinds in ("if", "uf") and given.size > 0):
        return _to_float(tensor, given, wanted)
    if kinds in ("ii", "iu", "ui", "uu", "bi", "bu"):
        return _to_integer(tensor, given, wanted)
    if given.size == 0 and plain_list:
        return given.astype(wanted), ""
    return None, f"{tensor.name} has dtype {given.dtype}, takes {wanted}{_advice(tensor, kinds)}"


def _to_float(tensor: Tensor, given: np.ndarray, wanted: np.dtype) -> tuple[np.ndarray | None, str]:
    with np.errstate(over="ignore"):
        result = given.astype(wanted)
    if wanted.itemsize < given.dtype.itemsize and not np.array_equal(np.isinf(result), np.isinf(given)):
        return None, f"{tensor.name} holds values too large for {wanted}"
    return result, ""


def _to_integer(tensor: Tensor, given: np.ndarray, wanted: np.dtype) -> tuple[np.ndarray | None, str]:
    if given.size and given.dtype.kind != "b":
        limits = np.iinfo(wanted)
        low, high = int(given.min()), int(given.max())
        if low < limits.min or high > limits.max:
            return None, f"{tensor.name} holds values from {low} to {high}, {wanted} holds {limits.min} to {limits.max}"
    return given.astype(wanted), ""


def _advice(tensor: Tensor, kinds: str) -> str:
    if kinds[1] == "f":
        return " (scale and convert it yourself, or use session.encode)"
    if kinds[0] == "f" and tensor.quantization is not None:
        scale, zero = tensor.quantization.scale, tensor.quantization.zero_point
        return f" (quantize it: round(x / {scale:g}) + {zero}, clipped)"
    return ""


def _name_problems(expected: list[str], given: list[str]) -> list[str]:
    problems = []
    missing = [name for name in expected if name not in given]
    for name in given:
        if name not in expected:
            near = difflib.get_close_matches(str(name), missing or expected, n=1)
            problems.append(f"unexpected input {name!r}" + (f", did you mean {near[0]!r}?" if near else ""))
    return [f"input {name!r} is missing" for name in missing] + problems


def _shape_problems(tensor: Tensor, shape: tuple[int, ...], sizes: dict[str, tuple[int, str]]) -> list[str]:
    if len(shape) != len(tensor.shape):
        return [f"{tensor.name} has shape {show(shape)}, takes {show(tensor.shape)}"]
    problems = []
    for axis, (size, wanted) in enumerate(zip(shape, tensor.shape, strict=True)):
        if isinstance(wanted, int):
            if size != wanted:
                problems.append(f"{tensor.name} has shape {show(shape)}: axis {axis} must be {wanted}, is {size}")
            continue
        known, where = sizes.setdefault(wanted, (size, tensor.name))
        if known != size:
            problems.append(f"{wanted} is {known} in {where} and {size} in {tensor.name}")
    return problems


def _range_problems(sizes: Mapping[str, tuple[int, str]], axes: Mapping[str, Axis]) -> list[str]:
    problems = []
    for symbol, (size, where) in sizes.items():
        axis = axes.get(symbol)
        if axis is None:
            continue
        # Independent samples are run in slices of at most `max`: there is no upper limit.
        high = axis.max if axis.role != "batch" else max(axis.max, size)
        if not axis.min <= size <= high:
            problems.append(f"{symbol} is {size} in {where}, allowed are {axis.min} to {axis.max}")
    return problems
