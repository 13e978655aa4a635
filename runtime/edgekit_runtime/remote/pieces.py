"""Heads and tails: what of a bundle runs on which side, and how a tail is told from another bundle's."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from typing import Protocol

import numpy as np

from edgekit_runtime import engines as registry
from edgekit_runtime.bundle import Bundle
from edgekit_runtime.engines.base import Arrays
from edgekit_runtime.manifest import Graph, Manifest, SplitPoint, Tensor
from edgekit_runtime.runner import Runner, Student
from edgekit_runtime.tensors import batch_place


class Piece(Protocol):
    """Something that runs: a whole graph, a head or a tail."""

    @property
    def inputs(self) -> tuple[Tensor, ...]:
        """What `run` takes."""

    @property
    def outputs(self) -> tuple[Tensor, ...]:
        """What `run` gives."""

    def run(self, tensors: Mapping[str, object], /) -> Arrays:
        """Runs one request."""

    def close(self) -> None:
        """Frees the engine."""


def runner(bundle: Bundle, graph: Graph, engine: str, threads: int) -> Runner:
    """A whole graph, open on one engine."""
    manifest = bundle.manifest
    axes = {axis.symbol: axis for axis in manifest.axes}
    student = Student(inputs=manifest.inputs, outputs=manifest.outputs, axes=axes)
    return Runner(graph, registry.get(engine), bundle.graph_path(graph), threads=threads, student=student)


def tail_sha256(bundle: Bundle, point: SplitPoint) -> str:
    """What identifies the tail behind a split point: its graph's hash, or one over the hashes of its segments."""
    hashes = [bundle.graph(name).sha256 for name in point.after]
    return hashes[0] if len(hashes) == 1 else hashlib.sha256("\n".join(hashes).encode()).hexdigest()


def first_sample(manifest: Manifest, arrays: Mapping[str, np.ndarray]) -> Arrays:
    """The first sample of the student's inputs: what one request costs is measured on one."""
    places = {tensor.name: batch_place(tensor, manifest.axes) for tensor in manifest.inputs}
    return {
        name: array if (place := places.get(name)) is None else np.take(array, [0], axis=place)
        for name, array in arrays.items()
    }


def batch_symbol(manifest: Manifest) -> str:
    """Symbol of the batch axis, else empty."""
    return next((axis.symbol for axis in manifest.axes if axis.role == "batch"), "")


def batch_axis(manifest: Manifest, tensors: Sequence[Tensor]) -> str:
    """Symbol of the batch axis when it stands first in every tensor, else empty: requests can then not be joined."""
    for axis in manifest.axes:
        first = all(tensor.shape and tensor.shape[0] == axis.symbol for tensor in tensors)
        if axis.role == "batch" and first:
            return axis.symbol
    return ""
