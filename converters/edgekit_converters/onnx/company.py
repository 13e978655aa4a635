"""How far an answer depends on its company: the other samples of a batch, and the padding behind a sample.

Integers whose scale is taken from a whole tensor at run time change with what else is in that tensor. Samples are put
together as a person would put them, up to eight in a batch and padded to the longest, and each answer is held against
the one the sample gets alone.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np

from edgekit_converters.captured import Arrays
from edgekit_converters.onnx.session import run_session
from edgekit_converters.verify.metrics import cosine
from edgekit_runtime.manifest import Axis, Tensor
from edgekit_runtime.tensors import batch_place

TOGETHER = 8
# Samples looked at: bounds the time a large student takes.
MOST = 128


@dataclasses.dataclass(frozen=True)
class Company:
    """Samples alone and together.

    Attributes:
        alone: One set of arrays a sample.
        together: The same samples in batches, in the same order.
        places: For each sample its batch and its place there.
        sizes: For each sample its own size of each dynamic axis that is no batch.
    """

    alone: tuple[Arrays, ...]
    together: tuple[Arrays, ...]
    places: tuple[tuple[int, int], ...]
    sizes: tuple[dict[str, int], ...]


def gather(samples: Sequence[Arrays], inputs: Sequence[Tensor], axes: Sequence[Axis]) -> Company | None:
    """Puts samples together along the batch axis, padded with zeros along axes where that is known to change nothing.

    Args:
        samples: With one sample each.
        inputs: Of the student; symbols of their shapes are those of `axes`.
        axes: Of the student, with roles.

    Returns:
        None where nothing can be put together: no batch axis in every input, or no two samples that fit.
    """
    batch = next((axis for axis in axes if axis.role == "batch" and axis.max > 1), None)
    if batch is None or any(batch_place(tensor, axes) is None for tensor in inputs):
        return None
    lengths = {axis.symbol for axis in axes if axis.role == "length"}
    groups: dict[tuple[object, ...], list[Arrays]] = {}
    for sample in samples[:MOST]:
        groups.setdefault(_fixed(sample, inputs, lengths), []).append(sample)
    alone: list[Arrays] = []
    together: list[Arrays] = []
    places: list[tuple[int, int]] = []
    count = min(TOGETHER, batch.max)
    for group in groups.values():
        for start in range(0, len(group), count):
            some = group[start : start + count]
            if len(some) > 1:
                places += [(len(together), place) for place in range(len(some))]
                alone += some
                together.append(_joined(some, inputs, axes, lengths))
    sizes = tuple(_sizes(sample, inputs, lengths) for sample in alone)
    return Company(tuple(alone), tuple(together), tuple(places), sizes) if alone else None


def agreement(session: Any, company: Company, outputs: Sequence[Tensor], axes: Sequence[Axis]) -> float:
    """Smallest cosine between a sample's answer alone and together; of outputs of one number, over all samples.

    Args:
        session: An onnxruntime session of the graph.
        company: What `gather` gave.
        outputs: Of the student.
        axes: Of the student.
    """
    batches = [run_session(session, arrays) for arrays in company.together]
    pairs: dict[str, list[tuple[np.ndarray, np.ndarray]]] = {}
    for sample, (batch, place), sizes in zip(company.alone, company.places, company.sizes, strict=True):
        own = run_session(session, sample)
        for tensor in outputs:
            axis = batch_place(tensor, axes)
            if axis is not None:
                mine = np.take(batches[batch][tensor.name], [place], axis=axis)
                cut = tuple(slice(sizes.get(size) if isinstance(size, str) else None) for size in tensor.shape)
                pairs.setdefault(tensor.name, []).append((own[tensor.name], mine[cut]))
    found = [1.0]
    for seen in pairs.values():
        if all(left.size == 1 for left, _ in seen):
            found.append(cosine(*(np.concatenate([pair[side].ravel() for pair in seen]) for side in (0, 1))))
        else:
            found += [cosine(left, right) for left, right in seen if left.size]
    return min(found)


def _sizes(sample: Arrays, inputs: Sequence[Tensor], symbols: set[str]) -> dict[str, int]:
    return {
        symbol: size
        for tensor in inputs
        for symbol, size in zip(tensor.shape, sample[tensor.name].shape, strict=True)
        if isinstance(symbol, str) and symbol in symbols
    }


def _fixed(sample: Arrays, inputs: Sequence[Tensor], lengths: set[str]) -> tuple[object, ...]:
    """What samples of one batch have in common: every size but those that are padded."""
    return tuple(
        None if symbol in lengths else size
        for tensor in inputs
        for symbol, size in zip(tensor.shape, sample[tensor.name].shape, strict=True)
    )


def _joined(samples: Sequence[Arrays], inputs: Sequence[Tensor], axes: Sequence[Axis], lengths: set[str]) -> Arrays:
    every = [_sizes(sample, inputs, lengths) for sample in samples]
    longest = {symbol: max(sizes[symbol] for sizes in every) for symbol in every[0]}
    made: Arrays = {}
    for tensor in inputs:
        place = batch_place(tensor, axes)
        assert place is not None
        arrays = [sample[tensor.name] for sample in samples]
        wide = [
            np.pad(a, [(0, longest.get(str(s), size) - size) for s, size in zip(tensor.shape, a.shape, strict=True)])
            for a in arrays
        ]
        made[tensor.name] = np.concatenate(wide, axis=place)
    return made
