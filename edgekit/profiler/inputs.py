"""What a graph is fed while it is measured: golden inputs made to fit, or synthetic ones of the declared shapes."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence

import numpy as np

from edgekit_runtime.errors import InputMismatch
from edgekit_runtime.manifest import Tensor

Arrays = dict[str, np.ndarray]


def synthetic(tensors: Sequence[Tensor], sizes: Mapping[str, int], *, batch: int = 1, default: int = 1) -> Arrays:
    """Seeded inputs of the declared dtypes and shapes.

    Args:
        tensors: The graph's inputs.
        sizes: Sizes of dynamic axes by symbol.
        batch: Size of a dynamic first axis that `sizes` does not name.
        default: Size of every other dynamic axis.

    Returns:
        Floats from a standard normal (or uniform between `min` and `max` where declared); quantized integers over their
        whole range; other integers 0 and 1, which every table and mask accepts; booleans true.
    """
    generator = np.random.default_rng(0)
    # An axis that comes first somewhere is the batch wherever its symbol comes back (a state beside its samples).
    first = {tensor.shape[0]: batch for tensor in tensors if len(tensor.shape) > 1 and isinstance(tensor.shape[0], str)}
    known = {**first, **sizes}
    arrays = {}
    for tensor in tensors:
        shape = tuple(
            size if isinstance(size, int) else known.get(size, batch if axis == 0 else default)
            for axis, size in enumerate(tensor.shape)
        )
        arrays[tensor.name] = _values(generator, tensor, shape)
    return arrays


def _values(generator: np.random.Generator, tensor: Tensor, shape: tuple[int, ...]) -> np.ndarray:
    dtype = np.dtype(tensor.dtype) if tensor.dtype != "bfloat16" else np.dtype("float32")
    if dtype.kind == "f":
        if tensor.min is not None and tensor.max is not None:
            return generator.uniform(tensor.min, tensor.max, shape).astype(dtype)
        return generator.standard_normal(shape).astype(dtype)
    if dtype.kind == "b":
        return np.ones(shape, dtype)
    if dtype.kind in "iu":
        if tensor.quantization is not None:
            range_ = np.iinfo(dtype)
            return generator.integers(range_.min, range_.max, shape, dtype=dtype, endpoint=True)
        low = int(tensor.min) if tensor.min is not None else 0
        high = int(tensor.max) if tensor.max is not None else 1
        return generator.integers(low, max(low, high), shape, dtype=dtype, endpoint=True)
    raise InputMismatch(
        f"input {tensor.name} has dtype {tensor.dtype}: edgekit makes up numbers only",
        remedy="convert the student into a bundle with calibration data; its golden inputs are used then",
    )


def fit(
    given: Mapping[str, np.ndarray],
    wanted: Sequence[Tensor],
    *,
    batch: int | None = None,
    places: Mapping[str, int | None] | None = None,
) -> Arrays:
    """The given inputs as a graph takes them: names, dtypes, layout and sizes.

    Names are matched, or positions where the names differ. Integers are cast, floats are quantized with the scale the
    graph declares. The batch axis is cut or repeated; other axes are padded with zeros at the end (the
    rung of a ladder), or permuted where one side has its channels last.

    Args:
        given: Arrays, for example the golden inputs.
        wanted: The graph's inputs as the engine declares them.
        batch: Size of a dynamic batch axis; None: as given.
        places: Which axis of each of `given` is the batch; without them (a bare file) the first one.

    Raises:
        InputMismatch: The inputs cannot be made to fit.
    """
    if len(given) != len(wanted):
        raise InputMismatch(
            f"{len(given)} inputs are given ({', '.join(given)}), the graph takes {len(wanted)} "
            f"({', '.join(tensor.name for tensor in wanted)})"
        )
    by_name = {tensor.name for tensor in wanted} == set(given)
    names = [tensor.name for tensor in wanted] if by_name else list(given)
    return {
        tensor.name: _fit_one(given[name], tensor, batch, 0 if places is None else places.get(name))
        for name, tensor in zip(names, wanted, strict=True)
    }


def _fit_one(array: np.ndarray, tensor: Tensor, batch: int | None, place: int | None) -> np.ndarray:
    if array.ndim != len(tensor.shape):
        raise _misfit(array, tensor)
    array = _permuted(array, tensor)
    for axis, size in enumerate(tensor.shape):
        have = array.shape[axis]
        target = size if isinstance(size, int) else (batch or have) if axis == place else have
        if axis == (place or 0) and target != have and have > 0:
            array = np.take(array, np.arange(target) % have, axis=axis)
        elif target > array.shape[axis]:
            padding = [(0, target - array.shape[axis] if other == axis else 0) for other in range(array.ndim)]
            array = np.pad(array, padding)
        elif target < array.shape[axis]:
            raise _misfit(array, tensor)
    return np.ascontiguousarray(_cast(array, tensor))


def _permuted(array: np.ndarray, tensor: Tensor) -> np.ndarray:
    """Channels first or last, whichever the graph declares; as given where the shape fits already or never will."""

    def fits(shape: tuple[int, ...]) -> bool:
        return all(
            not isinstance(size, int) or have == size for have, size in zip(shape[1:], tensor.shape[1:], strict=True)
        )

    if array.ndim < 3 or fits(array.shape):
        return array
    inner = tuple(range(1, array.ndim))
    for order in itertools.islice(((0, *inner[1:], inner[0]), (0, inner[-1], *inner[:-1])), 2):
        if fits(tuple(array.shape[axis] for axis in order)):
            return np.transpose(array, order)
    return array


def _cast(array: np.ndarray, tensor: Tensor) -> np.ndarray:
    dtype = np.dtype(tensor.dtype)
    if array.dtype.kind == "f" and dtype.kind in "iu" and tensor.quantization is not None:
        range_ = np.iinfo(dtype)
        scaled = np.rint(array / tensor.quantization.scale) + tensor.quantization.zero_point
        return np.clip(scaled, range_.min, range_.max).astype(dtype)
    if array.dtype.kind == "f" and dtype.kind in "iu":
        raise InputMismatch(f"input {tensor.name} takes {tensor.dtype}, {array.dtype} is given")
    return array.astype(dtype, copy=False)


def _misfit(array: np.ndarray, tensor: Tensor) -> InputMismatch:
    shape = ", ".join(str(size) for size in tensor.shape)
    return InputMismatch(f"input {tensor.name} has shape [{shape}] in the graph, {list(array.shape)} is given")
