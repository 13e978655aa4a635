"""`.onnx` and `.tflite` sources: the file is its own reference, on its own engine."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from edgekit_converters.capture.axes import DynamicAxis, resized, said_ranges, sizes_to_try
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
            f"{path} is quantized already",
            remedy="edgekit convert with --precision keep verifies, measures and packs it as it is",
        )
    graph = engines.get(engine).load(path)
    symbolic = _symbolic(graph.inputs, dynamic)
    said = said_ranges(symbolic)
    ranges = {item.symbol: said.get(item.symbol, (1, DEFAULT_MAX)) for item in symbolic}
    given = example is not None
    example = example if example is not None else _synthetic(graph.inputs, ranges)
    _check_names(path, graph.inputs, example)
    ordered = {tensor.name: example[tensor.name] for tensor in graph.inputs}
    if not given:
        _prove_synthetic(path, graph, ordered, symbolic, ranges)
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


def _prove_synthetic(
    path: Path,
    graph: LoadedGraph,
    example: Arrays,
    dynamic: Sequence[DynamicAxis],
    ranges: Mapping[str, tuple[int, int]],
) -> None:
    """Runs inputs of our own making, all dynamic axes at their smallest; if that fails, looks for the frozen axis.

    The frozen axis is the one that, alone, has a size at which the graph runs and answers in the shapes it declares.

    Raises:
        Refused: The graph does not run on them.
    """
    try:
        graph.run(example)
        return
    except Refused as error:
        problem = error
    for symbol, (low, high) in ranges.items():
        for size in range(low, min(high, low + DEFAULT_MAX) + 1):
            if _runs_as_declared(graph, resized(example, dynamic, symbol, size), {**_lows(ranges), symbol: size}):
                raise Refused(
                    f"{path} declares axis {symbol!r} as dynamic but runs at size {size}, not at {low}: "
                    f"{problem.message}",
                    remedy=f"the axis is frozen inside; declare what it takes (--dynamic NAME:AXIS={symbol}:MIN-MAX), "
                    "or export the file again with the axis fixed",
                ) from problem
    raise Refused(
        f"{path} does not run on made-up inputs ({', '.join(f'{s} = {low}' for s, (low, _) in ranges.items())}): "
        f"{problem.message}",
        remedy="give inputs it takes: --example FILE.npz",
    ) from problem


def _lows(ranges: Mapping[str, tuple[int, int]]) -> dict[str, int]:
    return {symbol: low for symbol, (low, _) in ranges.items()}


def _runs_as_declared(graph: LoadedGraph, inputs: Arrays, sizes: Mapping[str, int]) -> bool:
    try:
        answer = graph.run(inputs)
    except Refused:
        return False
    for tensor in graph.outputs:
        wanted = [sizes.get(size) if isinstance(size, str) else size for size in tensor.shape]
        got = answer[tensor.name].shape
        if len(got) != len(wanted) or any(w is not None and w != g for w, g in zip(wanted, got, strict=True)):
            return False
    return True


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
