"""Ranges of activations over the calibration samples, shared by all signatures of a ladder.

Each sample runs on the smallest signature it fits, padded with zeros at the end as the runtime does. A tensor's range
is kept under its name without the signature's prefix: all rungs get the same scale for the same tensor.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from edgekit_converters.captured import Arrays
from edgekit_converters.quiet import quiet_native
from edgekit_converters.tflite.flatbuffer import Model, dtype_of, is_constant, read, text
from edgekit_converters.tflite.ladder import shape_at
from edgekit_converters.tflite.passes.names import tensor_key
from edgekit_runtime.errors import Refused
from edgekit_runtime.manifest import Signature, Tensor

ROW_SAMPLES = 32  # samples whose rows are kept: enough for the largest magnitude of a column
ROWS_A_SAMPLE = 16


@dataclasses.dataclass(frozen=True)
class Rows:
    """Sampled rows of one activation, [n, columns] float32, with the largest magnitude of each column over all rows."""

    sample: np.ndarray
    column_max: np.ndarray


@dataclasses.dataclass(frozen=True)
class Range:
    """Smallest and largest value of a tensor over all samples."""

    low: float
    high: float


def activation_ranges(
    path: Path, inputs: Sequence[Tensor], signatures: Sequence[Signature], samples: Sequence[Arrays]
) -> dict[str, Range]:
    """Runs the samples through the fp32 file and keeps the range of every activation.

    Args:
        path: The fp32 file.
        inputs: Named inputs with symbols in their shapes.
        signatures: Rungs, smallest first; empty for a file without dynamic axes.
        samples: Named arrays.

    Returns:
        Range by tensor name without the signature's prefix.

    Raises:
        Refused: A sample fits no signature.
    """
    ranges: dict[str, Range] = {}
    for key, values in activations(path, inputs, signatures, samples):
        low, high = float(values.min()), float(values.max())
        before = ranges.get(key)
        ranges[key] = Range(min(low, before.low), max(high, before.high)) if before else Range(low, high)
    return ranges


def activation_rows(
    path: Path,
    inputs: Sequence[Tensor],
    signatures: Sequence[Signature],
    samples: Sequence[Arrays],
    wanted: Sequence[str],
) -> dict[str, Rows]:
    """Rows of chosen activations over the samples (at most `ROW_SAMPLES` of them); arguments as `activation_ranges`.

    Args:
        path: The fp32 file.
        inputs: Named inputs with symbols in their shapes.
        signatures: Rungs, smallest first.
        samples: Named arrays.
        wanted: Tensor names without the signature's prefix.

    Returns:
        Rows by name; none for rows as long as the rung, which have no columns of their own.
    """
    kept: dict[str, list[np.ndarray]] = {name: [] for name in wanted}
    largest: dict[str, np.ndarray] = {}
    moving: set[str] = set()
    for key, values in activations(path, inputs, signatures, samples[:ROW_SAMPLES], frozenset(wanted)):
        rows = values.reshape(-1, values.shape[-1])
        peak = np.abs(rows).max(axis=0)
        if peak.shape != largest.get(key, peak).shape:
            moving.add(key)
            continue
        largest[key] = np.maximum(largest.get(key, peak), peak)
        kept[key].append(rows[:: max(1, len(rows) // ROWS_A_SAMPLE)].copy())
    still = {name: found for name, found in kept.items() if found and name not in moving}
    return {name: Rows(np.concatenate(found), largest[name]) for name, found in still.items()}


def activations(
    path: Path,
    inputs: Sequence[Tensor],
    signatures: Sequence[Signature],
    samples: Sequence[Arrays],
    wanted: frozenset[str] | None = None,
) -> Iterator[tuple[str, np.ndarray]]:
    """Yields (name without prefix, values) of every float activation of every sample; `wanted` limits the names.

    The values are only valid until the next one is taken.
    """
    for run in runs(path, inputs, signatures, samples, wanted):
        yield from run


def runs(
    path: Path,
    inputs: Sequence[Tensor],
    signatures: Sequence[Signature],
    samples: Sequence[Arrays],
    wanted: frozenset[str] | None = None,
) -> Iterator[Iterator[tuple[str, np.ndarray]]]:
    """As `activations`, run by run (a sample is a run for each of its batch's rows); int8 values come as real ones."""
    model = read(path)
    names = [text(signature.signatureKey) for signature in model.signatureDefs]
    keyed = [_activations_of(model, signature.subgraphIndex, names, wanted) for signature in model.signatureDefs]
    with quiet_native():
        from ai_edge_litert.interpreter import Interpreter

        interpreter = Interpreter(str(path), experimental_preserve_all_tensors=True, num_threads=1)
        runners = [interpreter.get_signature_runner(name) for name in names]
    for sample in samples:
        for piece, position in _pieces(sample, inputs, signatures):
            with quiet_native():
                runners[position](**piece)
            yield _values(interpreter, model, model.signatureDefs[position].subgraphIndex, keyed[position])


def _values(
    interpreter: Any, model: Model, subgraph_index: int, keyed: Sequence[tuple[int, str]]
) -> Iterator[tuple[str, np.ndarray]]:
    for index, key in keyed:
        try:
            values = interpreter.get_tensor(index, subgraph_index)
        except ValueError:
            continue  # a tensor inside a fused operator never exists
        if values.size:
            yield key, _real(values, model.subgraphs[subgraph_index].tensors[index])


def _real(values: np.ndarray, tensor: Any) -> np.ndarray:
    if values.dtype != np.int8:
        return values
    scale, zero = tensor.quantization.scale[0], tensor.quantization.zeroPoint[0]
    return (values.astype(np.float32) - np.float32(zero)) * np.float32(scale)


def _activations_of(
    model: Model, subgraph_index: int, names: Sequence[str], wanted: frozenset[str] | None
) -> list[tuple[int, str]]:
    tensors = model.subgraphs[subgraph_index].tensors
    keyed = [(index, tensor_key(text(tensor.name), names), tensor) for index, tensor in enumerate(tensors)]
    return [
        (index, key)
        for index, key, tensor in keyed
        if key
        and (dtype_of(tensor) == "float32" or _has_scale(tensor))
        and not is_constant(model, tensor)
        and (wanted is None or key in wanted)
    ]


def _has_scale(tensor: Any) -> bool:
    scales = None if tensor.quantization is None else tensor.quantization.scale
    return dtype_of(tensor) == "int8" and scales is not None and len(scales) == 1


def _pieces(sample: Arrays, inputs: Sequence[Tensor], signatures: Sequence[Signature]) -> list[tuple[Arrays, int]]:
    """A sample cut along its batch axis and padded to the smallest signature that fits, with that signature's place."""
    if not signatures:
        return [(_typed(sample, inputs), 0)]
    sizes = _sizes(sample, inputs)
    batch = [symbol for symbol in sizes if all(rung.sizes[symbol] == 1 for rung in signatures) and sizes[symbol] > 1]
    fitting = [
        place
        for place, rung in enumerate(signatures)
        if all(size <= rung.sizes[symbol] for symbol, size in sizes.items() if symbol not in batch)
    ]
    if not fitting:
        largest = ", ".join(f"{symbol} <= {size}" for symbol, size in signatures[-1].sizes.items())
        raise Refused(
            f"a calibration sample has sizes {sizes}; the largest signature takes {largest}",
            remedy="shorten the sample or raise the maximum of the dynamic axis",
        )
    rung = signatures[fitting[0]]
    count = max([sizes[symbol] for symbol in batch], default=1)
    return [(_fit(_typed(sample, inputs), inputs, rung, batch, number), fitting[0]) for number in range(count)]


def _sizes(sample: Arrays, inputs: Sequence[Tensor]) -> dict[str, int]:
    return {
        symbol: int(sample[tensor.name].shape[axis])
        for tensor in inputs
        for axis, symbol in enumerate(tensor.shape)
        if isinstance(symbol, str)
    }


def _typed(sample: Arrays, inputs: Sequence[Tensor]) -> Arrays:
    return {tensor.name: np.ascontiguousarray(sample[tensor.name], dtype=tensor.dtype) for tensor in inputs}


def _fit(sample: Arrays, inputs: Sequence[Tensor], rung: Signature, batch: Sequence[str], number: int) -> Arrays:
    fitted = {}
    for tensor in inputs:
        array = sample[tensor.name]
        for axis, symbol in enumerate(tensor.shape):
            if symbol in batch:
                array = array.take([number], axis=axis)
        wanted = shape_at(tensor.shape, rung.sizes)
        padding = [(0, size - have) for size, have in zip(wanted, array.shape, strict=True)]
        fitted[tensor.name] = np.pad(array, padding)
    return fitted
