"""Graphs of a bundle run one after another: a head on the device, a tail on the server."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from edgekit_runtime import engines as registry
from edgekit_runtime.bundle import Bundle
from edgekit_runtime.engines.base import Arrays
from edgekit_runtime.manifest import Graph
from edgekit_runtime.runner import Runner, Student


def runner(bundle: Bundle, graph: Graph, engine: str, threads: int) -> Runner:
    """One graph, open on one engine."""
    manifest = bundle.manifest
    axes = {axis.symbol: axis for axis in manifest.axes}
    student = Student(inputs=manifest.inputs, outputs=manifest.outputs, axes=axes)
    return Runner(graph, registry.get(engine), bundle.graph_path(graph), threads=threads, student=student)


def run_all(steps: Sequence[Runner], tensors: Mapping[str, np.ndarray]) -> Arrays:
    """Runs graphs in order; each takes what it needs of everything there is by then. Returns everything."""
    values: Arrays = dict(tensors)
    for step in steps:
        values.update(step.run({tensor.name: values[tensor.name] for tensor in step.inputs}))
    return values
