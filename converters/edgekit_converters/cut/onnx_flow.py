"""An ONNX file as a `Flow`: its steps are those of the engine's fused graph.

    file:   Conv ─ Relu ─ Q ─ DQ ─ Conv ─ …        the engine runs  QLinearConv ─ QLinearConv ─ …
    places: between the fused steps only, so that each half is fused as the whole is and gives the same bits

A fused step's outputs keep their names in the file, so a place found here is cut in the file itself, which stays free
of the engine's own operators. With quantize and dequantize pairs the tensor that crosses is the int8 one: the quantizer
stays with its producer, the dequantizer goes with each reader.
"""

from __future__ import annotations

import dataclasses
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from edgekit_converters.captured import Arrays
from edgekit_converters.cut.flow import Flow, Step
from edgekit_runtime.errors import Refused
from edgekit_runtime.macs import macs
from edgekit_runtime.manifest import Axis, Quantization, Tensor

if TYPE_CHECKING:
    import onnx

# A step that reads a constant of more values than this has weights.
_SMALL = 64
_UNKNOWN = "the engine makes it itself; it is not in the file"
_TRANSPORT = ("float32", "float16", "int8", "uint8", "int16", "uint16", "int32", "int64", "bool")


@dataclasses.dataclass(frozen=True)
class Seen:
    """A graph as a flow, and the tensors that may cross.

    Attributes:
        flow: See `Flow`.
        tensors: By name, with symbols in their shapes where a size follows a dynamic axis.
    """

    flow: Flow
    tensors: Mapping[str, Tensor]


def see(path: Path, probes: list[Arrays], axes: tuple[Axis, ...], symbols: list[dict[str, int]]) -> Seen:
    """Reads a file.

    Args:
        path: The `.onnx` file.
        probes: Inputs of several sizes; the first is one sample of the example's size, which is billed.
        axes: The student's dynamic axes.
        symbols: The size of each axis in each probe.
    """
    import onnx

    model = onnx.load(path)
    fused = _fused(path)
    names = [name for node in fused.graph.node for name in node.output if name]
    in_file = {name for node in model.graph.node for name in node.output}
    looked = _look(model, [name for name in names if name in in_file], probes)
    first = looked[0]
    known = {tensor.name: tensor for tensor in _tensors(looked, symbols)}
    pairs = _quantizers(model)
    known = {name: _with_codes(tensor, pairs.get(name)) for name, tensor in known.items()}
    shapes = {name: array.shape for name, array in {**first, **probes[0]}.items()}
    shapes |= {tensor.name: tuple(tensor.dims) for tensor in fused.graph.initializer}
    sizes = {name: _wire_bytes(array) for name, array in {**first, **probes[0]}.items()}
    closed = {name: _UNKNOWN for name in names if name not in in_file}
    closed |= {n: f"{t.dtype} cannot be sent" for n, t in known.items() if t.dtype not in _TRANSPORT}
    flow = Flow(
        steps=tuple(_steps(model, fused, shapes)),
        inputs=tuple(value.name for value in model.graph.input),
        outputs=tuple(value.name for value in model.graph.output),
        bytes=sizes,
        closed=closed,
    )
    return Seen(flow, known)


def _fused(path: Path) -> onnx.ModelProto:
    """The graph as the engine fuses it, before it rearranges memory for this processor."""
    import onnx
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_EXTENDED
    options.log_severity_level = 4
    options.intra_op_num_threads = 1
    with tempfile.TemporaryDirectory(prefix="edgekit-cut-") as folder:
        options.optimized_model_filepath = str(Path(folder) / "fused.onnx")
        try:
            onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        except Exception as error:  # ORT's errors share no base but Exception
            raise _refusal(path.name, error) from error
        return onnx.load(options.optimized_model_filepath, load_external_data=False)  # only shapes are read


def _look(model: onnx.ModelProto, names: list[str], probes: list[Arrays]) -> list[Arrays]:
    """Runs the graph as it is written and fetches inner tensors, of each probe.

    One session serves all: opening reads every weight, which takes longer than a run where tables are large.
    """
    import onnx

    from edgekit_converters.onnx.session import open_session, run_session

    watched = onnx.ModelProto()
    watched.CopyFrom(model)
    already = {output.name for output in watched.graph.output}
    watched.graph.output.extend(onnx.ValueInfoProto(name=name) for name in names if name not in already)
    try:
        session = open_session(watched.SerializeToString(), optimise=False)
        return [run_session(session, inputs) for inputs in probes]
    except Exception as error:  # ORT's errors share no base but Exception
        raise _refusal("the graph", error) from error


def _refusal(what: str, error: Exception) -> Refused:
    told = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
    return Refused(f"{what} cannot be looked into: {told}", remedy="--split-points none leaves the student whole")


def _tensors(looked: list[Arrays], symbols: list[dict[str, int]]) -> Iterator[Tensor]:
    for name, array in looked[0].items():
        shapes = [other[name].shape for other in looked]
        yield Tensor(
            name=name,
            dtype=array.dtype.name if array.dtype.kind not in "OUS" else "str",
            shape=tuple(_size(name, axis, [s[axis] for s in shapes], symbols) for axis in range(array.ndim)),
        )


def _size(name: str, axis: int, sizes: list[int], symbols: list[dict[str, int]]) -> int | str:
    """A number where the size never changed, an axis where it changed with it, else a symbol of its own."""
    for symbol in symbols[0]:
        values = [probe[symbol] for probe in symbols]
        if values == sizes and len(set(values)) > 1:
            return symbol
    return sizes[0] if len(set(sizes)) == 1 else f"{name}_{axis}"


def _quantizers(model: onnx.ModelProto) -> dict[str, Quantization]:
    """Scale and zero point of each tensor that a QuantizeLinear with one scale makes."""
    from onnx import numpy_helper

    constants = {tensor.name: tensor for tensor in model.graph.initializer}
    found = {}
    for node in model.graph.node:
        if node.op_type == "QuantizeLinear" and len(node.input) == 3:
            scale, zero = (constants.get(name) for name in node.input[1:])
            if scale is not None and zero is not None and not scale.dims:
                found[node.output[0]] = Quantization(
                    scale=float(numpy_helper.to_array(scale)), zero_point=int(numpy_helper.to_array(zero))
                )
    return found


def _with_codes(tensor: Tensor, codes: Quantization | None) -> Tensor:
    if codes is None:
        return tensor
    return Tensor(name=tensor.name, dtype=tensor.dtype, shape=tensor.shape, quantization=codes)


def _wire_bytes(array: np.ndarray) -> int:
    """A float counts as int8, everything else as it is."""
    return int(array.size) if array.dtype.kind == "f" else int(array.nbytes)


def _steps(model: onnx.ModelProto, fused: onnx.ModelProto, shapes: Mapping[str, tuple[int, ...]]) -> Iterator[Step]:
    borders = {name for node in fused.graph.node for name in node.output}
    makers = {name: node for node in model.graph.node for name in node.output if name}
    constants = {tensor.name: int(np.prod(tensor.dims)) for tensor in fused.graph.initializer}
    for number, node in enumerate(fused.graph.node):
        given = [shapes.get(name, ()) for name in node.input]
        made = [shapes.get(name, ()) for name in node.output]
        read = [*node.input, *captured(node)]
        yield Step(
            name=f"{_place(node.output[0], makers, borders) or node.op_type}#{number}",
            inputs=tuple(dict.fromkeys(name for name in read if name and name not in constants)),
            outputs=tuple(name for name in node.output if name),
            macs=macs(node.op_type, given, made) or 0,
            fixed=any(constants.get(name, 0) > _SMALL for name in read) or node.op_type.startswith("Random"),
        )


def _place(name: str, makers: Mapping[str, Any], borders: set[str]) -> str:
    """Name of the node that makes a tensor, or of one before it in the same fused step that tells its module."""
    first = makers.get(name)
    node = first
    while node is not None and "/" not in node.name:
        inner = [makers[value] for value in node.input if value in makers and value not in borders]
        node = inner[0] if inner else None
    found = node or first
    return str(found.name) if found is not None else ""


def captured(node: Any) -> list[str]:
    """What the graphs inside an If, Loop or Scan read from outside."""
    found = []
    for attribute in node.attribute:
        for graph in (attribute.g, *attribute.graphs):
            inside = {name for inner in graph.node for name in inner.output}
            inside |= {value.name for value in (*graph.input, *graph.initializer)}
            for inner in graph.node:
                found += [name for name in (*inner.input, *captured(inner)) if name and name not in inside]
            found += [value.name for value in graph.output if value.name not in inside]
    return found
