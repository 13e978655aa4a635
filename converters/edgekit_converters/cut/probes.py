"""Inputs of several sizes for looking at a graph and for proving its pieces."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from edgekit_converters.capture.axes import DynamicAxis, resized
from edgekit_converters.captured import Arrays
from edgekit_runtime.manifest import Axis, Tensor

Sizes = dict[str, int]


def looked_at(axes: Sequence[Axis], sample: Arrays, inputs: Sequence[Tensor]) -> list[Sizes]:
    """Two sets of sizes that differ in every axis: one sample as it is, and another one."""
    own = sizes_of(inputs, sample)
    first = {axis.symbol: axis.min if axis.role == "batch" else own[axis.symbol] for axis in axes}
    second = {}
    for number, axis in enumerate(axes):
        size = first[axis.symbol]
        # Odd steps, so that two axes and products of sizes are told apart.
        near = [size + 2 + number, size - 3 - number, size + 1, size - 1, axis.max, axis.min]
        second[axis.symbol] = next((n for n in near if axis.min <= n <= axis.max and n != size), size)
    return [first, second]


def proven(axes: Sequence[Axis], sample: Arrays, inputs: Sequence[Tensor]) -> list[Sizes]:
    """The sizes at which pieces are compared with the whole: batch 1 and 8, the other axes short, as seen and long."""
    own = sizes_of(inputs, sample)
    found: list[Sizes] = []
    for step, batch in enumerate((1, 8, 1, 3)):
        sizes = {}
        for axis in axes:
            if axis.role == "batch":
                sizes[axis.symbol] = min(max(batch, axis.min), axis.max)
            else:
                seen = own[axis.symbol]
                sizes[axis.symbol] = (seen, max(axis.min, seen // 2 + 1), axis.min, min(axis.max, seen + 5))[step]
        if sizes not in found:
            found.append(sizes)
    return found


def sizes_of(inputs: Sequence[Tensor], sample: Arrays) -> Sizes:
    """The size of each symbol in a sample."""
    return {
        symbol: size
        for tensor in inputs
        for symbol, size in zip(tensor.shape, sample[tensor.name].shape, strict=True)
        if isinstance(symbol, str)
    }


def at(inputs: Sequence[Tensor], samples: Sequence[Arrays], sizes: Sizes, batch: str) -> Arrays:
    """Inputs of the sizes given, from real samples: other samples along the batch axis, repeated along the others.

    Args:
        inputs: The student's inputs.
        samples: One sample each.
        sizes: Wanted size of each symbol.
        batch: Symbol of the batch axis; empty without one.
    """
    places = [
        DynamicAxis(tensor.name, axis, symbol)
        for tensor in inputs
        for axis, symbol in enumerate(tensor.shape)
        if isinstance(symbol, str)
    ]
    rows = [samples[number % len(samples)] for number in range(sizes.get(batch, 1))]
    for symbol in dict.fromkeys(place.symbol for place in places):
        rows = [resized(row, places, symbol, 1 if symbol == batch else sizes[symbol]) for row in rows]
    found = {}
    for tensor in inputs:
        parts = [row[tensor.name] for row in rows]
        joined = np.concatenate(parts, tensor.shape.index(batch)) if batch in tensor.shape else parts[0]
        found[tensor.name] = np.ascontiguousarray(joined)
    return found
