"""Which tensors of a graph file are floating point? An integer-only student has none but its answers."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import onnx


def float_tensors(path: Path) -> list[str]:
    """Floating-point tensors of a file that are not its outputs, each as `operator: tensor`.

    Constants, values inside loops and steps, and what the operators compute are all looked at; graph outputs are left
    out, as the student's whole-number answers are given as float32.

    Args:
        path: An `.onnx` or `.tflite` file.
    """
    return sorted(_onnx(path) if path.suffix == ".onnx" else _tflite(path))


def _onnx(path: Path) -> Iterator[str]:
    import onnx

    model = onnx.shape_inference.infer_shapes(onnx.load(str(path)), strict_mode=False, data_prop=True)
    border = {value.name for value in model.graph.output}
    yield from _in_graph(model.graph, border)


def _in_graph(graph: onnx.GraphProto, border: set[str]) -> Iterator[str]:
    from onnx import TensorProto

    floating = {TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.DOUBLE, TensorProto.BFLOAT16}
    kinds = {value.name: value.type.tensor_type.elem_type for value in (*graph.input, *graph.value_info)}
    kinds |= {value.name: value.type.tensor_type.elem_type for value in graph.output}
    for constant in graph.initializer:
        if constant.data_type in floating:
            yield f"constant: {constant.name}"
    for node in graph.node:
        for attribute in node.attribute:
            if attribute.HasField("g"):
                yield from _in_graph(attribute.g, set())
        for name in filter(None, node.output):
            # A tensor whose type cannot be told is reported: an audit does not assume.
            if name not in border and kinds.get(name, 0) in floating | {0}:
                yield f"{node.op_type}: {name}"


def _tflite(path: Path) -> Iterator[str]:
    from edgekit_converters.tflite.flatbuffer import dtype_of, main_subgraphs, operators, read, text

    model = read(path)
    mains = {id(subgraph) for subgraph in main_subgraphs(model)}
    for subgraph in model.subgraphs:
        border = {int(index) for index in subgraph.outputs} if id(subgraph) in mains else set()
        makers = {int(i): kind for kind, operator in operators(model, subgraph) for i in operator.outputs}
        for index, tensor in enumerate(subgraph.tensors):
            if index not in border and dtype_of(tensor).startswith(("float", "bfloat")):
                yield f"{makers.get(index, 'constant')}: {text(tensor.name) or index}"
