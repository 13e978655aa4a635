"""`.onnx` and `.tflite` sources: the file is its own reference, on its own engine."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from edgekit_converters.capture.axes import DynamicAxis, resized, sizes_to_try
from edgekit_converters.capture.torch_student import with_interface
from edgekit_converters.captured import Arrays, Captured
from edgekit_runtime import engines
from edgekit_runtime.engines.base import LoadedGraph
from edgekit_runtime.errors import Refused
from edgekit_runtime.manifest import Tensor

DEFAULT_MAX = 64
# A weight tensor of one of these types, or one of these operators, says that the file is quantized already.
_QUANTIZED_OPS = {
    "QuantizeLinear",
    "DequantizeLinear",
    "DynamicQuantizeLinear",
    "MatMulInteger",
    "ConvInteger",
    "QLinearConv",
    "QLinearMatMul",
    "MatMulNBits",
    "DynamicQuantizeLSTM",
    "QAttention",
    "DynamicQuantizeMatMul",
}


def capture_file(
    path: Path, *, name: str, example: Arrays | None, dynamic: Sequence[DynamicAxis] = (), keep: bool = False
) -> Captured:
    """Captures an `.onnx` or `.tflite` file.

    Args:
        path: The file.
        name: Name of the student.
        example: One batch of inputs; None: seeded random numbers of the declared shapes.
        dynamic: Ranges the person declared for symbolic axes.
        keep: `--precision keep`: the file may be quantized already.

    Raises:
        Refused: The engine cannot take the file, it is quantized and `keep` is not set, or an axis it declares as
            dynamic does not take every size.
    """
    engine = "onnxruntime" if path.suffix == ".onnx" else "litert"
    quantized = is_quantized(path)
    if quantized and not keep:
        raise Refused(
            f"{path} is quantized already", remedy="--precision keep verifies, measures and packs it as it is"
        )
    graph = engines.get(engine).load(path)
    symbolic = _symbolic(graph.inputs, dynamic)
    ranges = {item.symbol: (item.min or 1, item.max or DEFAULT_MAX) for item in symbolic}
    example = example if example is not None else _synthetic(graph.inputs, ranges)
    _check_names(path, graph.inputs, example)
    ordered = {tensor.name: example[tensor.name] for tensor in graph.inputs}
    _prove_sizes(path, graph, ordered, symbolic, ranges)
    captured = Captured(
        name=name,
        kind="onnx" if engine == "onnxruntime" else "tflite",
        inputs=(),
        outputs=(),
        axes=(),
        example=ordered,
        reference=graph.run,
        path=path,
        exporter="none: the file is taken as it is",
        quantized=quantized,
    )
    return with_interface(captured, symbolic, ranges)


def is_quantized(path: Path) -> bool:
    """Whether a graph file holds int8 weights or quantized operators."""
    if path.suffix == ".onnx":
        return _onnx_is_quantized(path)
    from edgekit_runtime.engines import tflite_file

    subgraph = tflite_file.read(path).subgraphs[0]
    used = {index for operator in subgraph.operators for index in operator.inputs if index >= 0}
    return any(subgraph.tensors[i].constant and subgraph.tensors[i].dtype in ("int8", "uint8") for i in used)


def _onnx_is_quantized(path: Path) -> bool:
    import onnx
    from google.protobuf.message import DecodeError

    try:
        model = onnx.load(str(path), load_external_data=False)
    except (DecodeError, OSError, ValueError) as error:
        raise Refused(
            f"{path} is not a readable ONNX file: {error}", remedy="it may be truncated; export it again"
        ) from error
    if not model.graph.node:
        raise Refused(f"{path} is not an ONNX graph (it holds no operators)", remedy="export it again")
    return any(node.op_type in _QUANTIZED_OPS for node in model.graph.node)


def _symbolic(inputs: Sequence[Tensor], dynamic: Sequence[DynamicAxis]) -> tuple[DynamicAxis, ...]:
    said = {(item.input, item.axis): item for item in dynamic}
    found = []
    for tensor in inputs:
        for axis, size in enumerate(tensor.shape):
            if isinstance(size, int):
                continue
            item = said.get((tensor.name, axis))
            symbol = str(size) or (item.symbol if item else f"axis{axis}")
            found.append(DynamicAxis(tensor.name, axis, symbol, item.min if item else None, item.max if item else None))
    fixed = [k for k in said if k not in {(item.input, item.axis) for item in found}]
    if fixed:
        name, axis = fixed[0]
        raise Refused(
            f"--dynamic {name}:{axis}: that axis is fixed in the file",
            remedy="export the file again with the axis dynamic",
        )
    return tuple(found)


def _synthetic(inputs: Sequence[Tensor], ranges: Mapping[str, tuple[int, int]]) -> Arrays:
    """Seeded inputs: normal floats, small non-negative integers (valid ids of nearly every table)."""
    rng = np.random.default_rng(0)
    arrays = {}
    for tensor in inputs:
        shape = [size if isinstance(size, int) else max(ranges[size][0], 1) for size in tensor.shape]
        dtype = np.dtype(tensor.dtype)
        values = rng.standard_normal(shape) if dtype.kind == "f" else rng.integers(0, 2, shape)
        arrays[tensor.name] = values.astype(dtype)
    return arrays


def _check_names(path: Path, inputs: Sequence[Tensor], example: Arrays) -> None:
    names = [tensor.name for tensor in inputs]
    if set(names) != set(example):
        raise Refused(
            f"{path} takes inputs {', '.join(names)}; the example has {', '.join(example)}",
            remedy="name the arrays as the inputs of the graph",
        )


def _prove_sizes(
    path: Path,
    graph: LoadedGraph,
    example: Arrays,
    dynamic: Sequence[DynamicAxis],
    ranges: Mapping[str, tuple[int, int]],
) -> None:
    """Runs at the smallest, a middle and the largest size of each dynamic axis."""
    for symbol, (low, high) in ranges.items():
        for size in sizes_to_try(low, high):
            try:
                graph.run(resized(example, dynamic, symbol, size))
            except Refused as error:
                raise Refused(
                    f"{path} declares axis {symbol!r} as dynamic but does not run at size {size}: {error.message}",
                    remedy=f"the axis is frozen inside; declare what it takes (--dynamic NAME:AXIS={symbol}:MIN-MAX)",
                ) from error
