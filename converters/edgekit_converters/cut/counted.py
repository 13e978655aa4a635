"""How much of each piece of an int8 graph is int8, counted as for whole graphs."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import msgspec

from edgekit_converters.captured import Arrays
from edgekit_converters.onnx.coverage import coverage as onnx_coverage
from edgekit_converters.tflite.coverage import coverage as tflite_coverage
from edgekit_runtime.manifest import Graph, Manifest


def counted(root: Path, manifest: Manifest, full: Graph, inputs: Arrays, made: Mapping[str, Arrays]) -> Manifest:
    """The manifest with the int8 shares of a full graph's pieces; other precisions have none.

    Args:
        root: The bundle's folder.
        manifest: Lists the pieces.
        full: The graph they are pieces of.
        inputs: Golden inputs of the student.
        made: What each piece answers to them (`edgekit_runtime.segments.answers`).
    """
    if full.precision != "int8":
        return manifest
    tensors = {**inputs, **{name: array for arrays in made.values() for name, array in arrays.items()}}
    graphs = tuple(_counted(root, graph, tensors) if graph.of == full.id else graph for graph in manifest.graphs)
    return msgspec.structs.replace(manifest, graphs=graphs)


def _counted(root: Path, graph: Graph, tensors: Arrays) -> Graph:
    path = root / graph.path
    if graph.format == "onnx":
        weights, executed, _ = onnx_coverage(path, {tensor.name: tensors[tensor.name] for tensor in graph.inputs})
    else:
        weights, executed, _ = tflite_coverage(path, graph.signatures[-1].name)
    return msgspec.structs.replace(graph, int8_weight_bytes_fraction=weights, executed_int8_macs_fraction=executed)
