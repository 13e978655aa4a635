"""Tensors that cross at their rung's size, where what stands behind the request's own size is no zero. Pure.

    head, rung 16:  ids [1, 11], 5 zeros behind ─► table, + 1 ─► x [1, 16, 6, 6]
    cut to size:    x [1, 11, 6, 6] ─► the tail pads with zeros where the uncut graph has ones: another answer
    as it is:       x [1, 16, 6, 6] ─► the tail gets what the uncut graph has

Cut to size is right where zeros in give zeros, or the tail masks them; whether it is, the proof tells.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Sequence

import msgspec

from edgekit_converters.cut.onnx_flow import Seen
from edgekit_runtime.manifest import Axis, Graph, SplitPoint


def cut_to_size(graph: Graph, points: Sequence[SplitPoint], axes: Sequence[Axis]) -> dict[str, frozenset[str]]:
    """Tensors that a request shorter than its rung cuts to size, by id of the split point; those without left out.

    Args:
        graph: The full graph; one without rungs takes any size and pads nothing.
        points: Its split points.
        axes: The student's dynamic axes.
    """
    lengths = _lengths(axes)
    found = {
        point.id: frozenset(tensor.name for tensor in point.tensors if lengths & set(tensor.shape)) for point in points
    }
    return {name: tensors for name, tensors in found.items() if tensors} if graph.signatures else {}


def at_rung_size(seen: Seen, names: Collection[str], axes: Sequence[Axis]) -> Seen:
    """The tensors named with symbols of their own for axes of role `length`: they cross as the rung has them."""
    lengths = _lengths(axes)
    tensors = {
        name: msgspec.structs.replace(
            tensor,
            shape=tuple(f"{name}_{at}" if size in lengths else size for at, size in enumerate(tensor.shape)),
        )
        if name in names
        else tensor
        for name, tensor in seen.tensors.items()
    }
    return dataclasses.replace(seen, tensors=tensors)


def _lengths(axes: Sequence[Axis]) -> set[int | str]:
    return {axis.symbol for axis in axes if axis.role == "length"}
