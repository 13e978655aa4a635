"""How many bytes of a graph's file are no constant: operators, tensors, names, and in TFLite scales."""

from __future__ import annotations

import math
from pathlib import Path

from benchmarks.cells import FORMATS
from edgekit_runtime.bundle import Bundle
from edgekit_runtime.selection import ANSWERING


def structure_of(bundle: Bundle) -> dict[str, tuple[int, int]]:
    """By format: (bytes that are no constant, all bytes) of the int8 graph that answers; with what lies beside it."""
    found = {}
    for graph in bundle.manifest.graphs:
        if graph.role in ANSWERING and not graph.variant and graph.precision == "int8" and graph.format in FORMATS:
            path = bundle.graph_path(graph)
            constants = _onnx(path) if graph.format == "onnx" else _tflite(path)
            found[graph.format] = graph.bytes - constants, graph.bytes
    return found


def _onnx(path: Path) -> int:
    import onnx

    tensors = onnx.load(path, load_external_data=False).graph.initializer
    return sum(onnx.helper.tensor_dtype_to_np_dtype(t.data_type).itemsize * math.prod(t.dims) for t in tensors)


def _tflite(path: Path) -> int:
    from edgekit_converters.tflite import flatbuffer

    return sum(len(buffer.data) for buffer in flatbuffer.read(path).buffers if buffer.data is not None)
