"""Runs the fp32 graph and looks at inner tensors: shapes of one run, ranges over many.

A sample's tensors are looked at and dropped before the next sample runs: memory does not grow with the calibration set.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from edgekit_converters.captured import Arrays
from edgekit_converters.onnx.session import open_session, serialize
from edgekit_runtime.errors import Refused

if TYPE_CHECKING:
    import onnx_ir as ir

_BINS = 2048
# Tensors fetched in one run: bounds the memory that a large student needs while it is watched.
_AT_ONCE = 64


@dataclasses.dataclass(frozen=True)
class Range:
    """Smallest and largest value of a tensor; the interval always holds 0 so that 0 is exact in int8."""

    min: float
    max: float


def watched(model: ir.Model, names: Sequence[str]) -> Any:
    """A session of the graph as it is written, with the named inner tensors as extra outputs."""
    import onnx

    proto = onnx.load_from_string(serialize(model))
    already = {output.name for output in proto.graph.output}
    proto.graph.output.extend(onnx.ValueInfoProto(name=name) for name in names if name not in already)
    return open_session(proto.SerializeToString())


def shapes(model: ir.Model, example: Mapping[str, np.ndarray]) -> dict[str, tuple[int, ...]]:
    """Shape of every input and every computed tensor when the graph runs on the example."""
    import onnx

    names = [value.name for node in model.graph for value in node.outputs if value.name and value.uses()]
    names += [value.name for value in model.graph.outputs if value.name]
    proto = onnx.load_from_string(serialize(model))
    proto.graph.ClearField("output")
    for index, name in enumerate(names):
        proto.graph.node.append(onnx.helper.make_node("Shape", [name], [f"\0shape{index}"]))
        proto.graph.output.append(onnx.helper.make_tensor_value_info(f"\0shape{index}", onnx.TensorProto.INT64, None))
    session = open_session(proto.SerializeToString())
    wanted = {tensor.name for tensor in session.get_inputs()}
    found = session.run(None, {name: value for name, value in example.items() if name in wanted})
    given = {name: np.shape(value) for name, value in example.items() if name in wanted}
    return given | {name: tuple(int(size) for size in shape) for name, shape in zip(names, found, strict=True)}


def ranges(model: ir.Model, names: Sequence[str], samples: Iterable[Arrays]) -> dict[str, Range]:
    """Ranges of the named tensors over the samples, clipped where that lowers the squared error of uint8.

    Raises:
        Refused: A sample makes a tensor infinite or NaN.
    """
    kept = list(samples)
    found: dict[str, Range] = {}
    for start in range(0, len(names), _AT_ONCE):
        some = list(names[start : start + _AT_ONCE])
        session = watched(model, some)
        widest = _extremes(session, some, kept)
        counts = _histograms(session, some, kept, widest)
        found.update({name: best_clip(widest[name], counts[name]) for name in some})
    return found


def extremes(model: ir.Model, names: Sequence[str], samples: Iterable[Arrays]) -> dict[str, Range]:
    """Smallest and largest value of the named tensors over the samples, nothing clipped; empty without samples.

    Raises:
        Refused: A sample makes a tensor infinite or NaN.
    """
    kept = list(samples)
    return _extremes(watched(model, names), names, kept) if names and kept else {}


def _fetch(session: Any, names: Sequence[str], sample: Arrays) -> list[np.ndarray]:
    wanted = {tensor.name for tensor in session.get_inputs()}
    return session.run(list(names), {name: value for name, value in sample.items() if name in wanted})


def _extremes(session: Any, names: Sequence[str], samples: Sequence[Arrays]) -> dict[str, Range]:
    low, high = np.zeros(len(names)), np.zeros(len(names))
    for number, sample in enumerate(samples):
        for index, value in enumerate(_fetch(session, names, sample)):
            smallest, largest = float(value.min(initial=0.0)), float(value.max(initial=0.0))
            if not np.isfinite(smallest + largest):
                raise Refused(
                    f"calibration sample {number} makes an inner tensor infinite or NaN",
                    remedy="check that sample's values (NaN, wrong scale), or leave it out",
                )
            low[index], high[index] = min(low[index], smallest), max(high[index], largest)
    return {name: Range(float(low[i]), float(high[i])) for i, name in enumerate(names)}


def _histograms(
    session: Any, names: Sequence[str], samples: Sequence[Arrays], widest: Mapping[str, Range]
) -> dict[str, np.ndarray]:
    counts = {name: np.zeros(_BINS, np.int64) for name in names}
    for sample in samples:
        for name, value in zip(names, _fetch(session, names, sample), strict=True):
            span = widest[name]
            if span.max > span.min:
                counts[name] += np.histogram(value, bins=_BINS, range=(span.min, span.max))[0]
    return counts


def best_clip(span: Range, counts: np.ndarray) -> Range:
    """The range within `span` that gives the smallest squared error in 256 levels.

    Rounding costs step^2 / 12 for each value inside, clipping its distance squared for each value outside. Both ends
    are tried at 1 to 0.5 of their width. Exact zeros (a Relu's) cost nothing and do not count.

    Args:
        span: Smallest and largest value seen.
        counts: Histogram over `span`, equal bins.
    """
    if span.max <= span.min or not counts.any():
        return span
    centres = span.min + (np.arange(len(counts)) + 0.5) * (span.max - span.min) / len(counts)
    weight = counts.astype(np.float64)
    weight[np.abs(centres) <= (span.max - span.min) / len(counts)] = 0.0
    best, best_error = span, np.inf
    for high in np.linspace(1.0, 0.5, 26) if span.max > 0 else (1.0,):
        for low in np.linspace(1.0, 0.5, 11) if span.min < 0 else (1.0,):
            lo, hi = span.min * low, span.max * high
            step = (hi - lo) / 255
            outside = np.maximum(centres - hi, 0) + np.maximum(lo - centres, 0)
            error = float(weight @ (outside**2)) + float(weight.sum()) * step**2 / 12
            if error < best_error:
                best, best_error = Range(float(lo), float(hi)), error
    return best


def columns(model: ir.Model, names: Sequence[str], samples: Iterable[Arrays]) -> dict[str, np.ndarray]:
    """Largest absolute value in each column (last axis) of the named tensors over the samples, float32 [K] each."""
    if not names:
        return {}
    session = watched(model, names)
    found: dict[str, np.ndarray] = {}
    for sample in samples:
        for name, value in zip(names, _fetch(session, names, sample), strict=True):
            if value.size:
                largest = np.abs(value.reshape(-1, value.shape[-1])).max(axis=0)
                found[name] = np.maximum(found[name], largest) if name in found else largest
    return found
