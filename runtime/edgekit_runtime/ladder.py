"""Running a request of any size on a file of fixed sizes: rungs, padding, slices.

A rung is one set of fixed sizes. For a request the cheapest rung that fits is chosen:

    role `length`   the rung may be longer: inputs are padded with zeros at the end, outputs cropped
    role `batch`    the rung may have any size: the request is run in slices, the last padded, answers concatenated
    role `other`    the rung must have this very size

    request [3, 20]  on rungs {batch 1, length 16}, {batch 1, length 32}:  3 runs of the second rung
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Iterator, Mapping, Sequence

import numpy as np

from edgekit_runtime.errors import InputMismatch
from edgekit_runtime.manifest import Axis, Signature, Tensor

Arrays = dict[str, np.ndarray]
Run = Callable[[Mapping[str, np.ndarray]], Arrays]


@dataclasses.dataclass(frozen=True)
class Plan:
    """How one request runs.

    Attributes:
        rung: Which signature.
        sizes: The request's own size by symbol.
        slices: Number of runs.
        batch: Symbol along which it is sliced; empty for one run.
    """

    rung: Signature
    sizes: dict[str, int]
    slices: int = 1
    batch: str = ""

    @property
    def exact(self) -> bool:
        """The request has the rung's own sizes: nothing to pad, crop or slice."""
        return self.slices == 1 and all(self.rung.sizes.get(name, size) == size for name, size in self.sizes.items())


def plan(rungs: Sequence[Signature], axes: Mapping[str, Axis], sizes: Mapping[str, int], *, advice: str = "") -> Plan:
    """Chooses the rung that costs least: slices times the product of its sizes.

    Args:
        rungs: The fixed sizes there are.
        axes: Role of each symbol; a symbol without an axis counts as `other`.
        sizes: The request's size by symbol.
        advice: What to do when nothing fits, for the error.

    Raises:
        InputMismatch: No rung fits (lists the sizes there are).
    """
    roles = {symbol: axes[symbol].role if symbol in axes else "other" for symbol in sizes}
    batch = next((symbol for symbol, role in roles.items() if role == "batch"), "")
    best: tuple[int, Plan] | None = None
    for rung in rungs:
        if not all(_fits(roles[symbol], rung.sizes.get(symbol, size), size) for symbol, size in sizes.items()):
            continue
        slices = max(1, math.ceil(sizes[batch] / rung.sizes.get(batch, sizes[batch]))) if batch and sizes[batch] else 1
        cost = slices * math.prod(rung.sizes.values())
        if best is None or cost < best[0]:
            best = (cost, Plan(rung, dict(sizes), slices, batch))
    if best is None:
        there = "; ".join(", ".join(f"{name} {size}" for name, size in rung.sizes.items()) for rung in rungs)
        wanted = ", ".join(f"{name} {size}" for name, size in sizes.items())
        raise InputMismatch(f"no rung of the graph takes {wanted}; it has {there}", remedy=advice)
    return best[1]


def slices(axes: Mapping[str, Axis], sizes: Mapping[str, int]) -> tuple[Signature, ...]:
    """The rung of a file that takes every size, for a request with more samples than its batch axis was proven for.

    Returns:
        One rung of the request's sizes with the batch axis at its largest; nothing when the request fits as it is.
    """
    batch = {name: axis.max for name, axis in axes.items() if axis.role == "batch"}
    large = [name for name, size in sizes.items() if size > batch.get(name, size)]
    return (Signature(name="", sizes={**sizes, large[0]: axes[large[0]].max}),) if large else ()


def _fits(role: str, rung: int, size: int) -> bool:
    if role == "batch":
        return True
    return rung >= size if role == "length" else rung == size


def run(chosen: Plan, run_rung: Run, inputs: Sequence[Tensor], outputs: Sequence[Tensor], arrays: Arrays) -> Arrays:
    """Runs a request on its rung.

    Args:
        chosen: What `plan` said.
        run_rung: Runs the rung once, on arrays of exactly its sizes.
        inputs: Tensors whose shapes name the symbols.
        outputs: The same for the outputs.
        arrays: The request, checked.

    Raises:
        InputMismatch: More than one slice is needed and an output has no batch axis to concatenate along.
    """
    if chosen.slices > 1:
        for tensor in outputs:
            if chosen.batch not in tensor.shape:
                raise InputMismatch(
                    f"output {tensor.name} has no axis {chosen.batch}: the answers of slices cannot be put together",
                    remedy=f"send {chosen.rung.sizes[chosen.batch]} at a time",
                )
    answers = []
    for piece, padded in pieces(chosen, inputs, arrays):
        sizes = sizes_of(inputs, piece)
        made = run_rung(padded)
        answers.append({tensor.name: crop(made[tensor.name], tensor.shape, sizes) for tensor in outputs})
    if len(answers) == 1:
        return answers[0]
    return {
        tensor.name: np.concatenate([answer[tensor.name] for answer in answers], axis=tensor.shape.index(chosen.batch))
        for tensor in outputs
    }


def pieces(chosen: Plan, inputs: Sequence[Tensor], arrays: Arrays) -> Iterator[tuple[Arrays, Arrays]]:
    """The slices of a request, each as it is and padded to the rung's sizes."""
    step = chosen.rung.sizes.get(chosen.batch, 0)
    for number in range(chosen.slices):
        piece = arrays if chosen.slices == 1 else _slice(inputs, arrays, chosen.batch, number * step, step)
        yield piece, {tensor.name: _pad(piece[tensor.name], tensor.shape, chosen.rung.sizes) for tensor in inputs}


def sizes_of(tensors: Sequence[Tensor], arrays: Mapping[str, np.ndarray]) -> dict[str, int]:
    """The size of each symbol in arrays named as the tensors."""
    return {
        symbol: size
        for tensor in tensors
        for symbol, size in zip(tensor.shape, arrays[tensor.name].shape, strict=True)
        if isinstance(symbol, str)
    }


def _slice(tensors: Sequence[Tensor], arrays: Arrays, symbol: str, start: int, count: int) -> Arrays:
    """The samples from `start` on; what has no samples (a sampling rate) is the same in every slice."""
    made = {}
    for tensor in tensors:
        index = tuple(slice(start, start + count) if name == symbol else slice(None) for name in tensor.shape)
        # Indexing a number with nothing would make a numpy scalar of the array.
        made[tensor.name] = arrays[tensor.name][index] if index else arrays[tensor.name]
    return made


def _pad(array: np.ndarray, shape: Sequence[int | str], sizes: Mapping[str, int]) -> np.ndarray:
    wanted = tuple(
        sizes.get(name, size) if isinstance(name, str) else size for name, size in zip(shape, array.shape, strict=True)
    )
    if wanted == array.shape:
        return array
    result = np.zeros(wanted, array.dtype)
    result[tuple(slice(0, size) for size in array.shape)] = array
    return result


def crop(array: np.ndarray, shape: Sequence[int | str], sizes: Mapping[str, int]) -> np.ndarray:
    """An array of a rung cut to the request's own sizes."""
    window = tuple(slice(0, sizes[name]) if isinstance(name, str) and name in sizes else slice(None) for name in shape)
    cropped = array[window] if window else array
    return cropped if cropped.shape == array.shape else np.ascontiguousarray(cropped)
