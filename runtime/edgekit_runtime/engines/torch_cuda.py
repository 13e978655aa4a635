"""PyTorch on an NVIDIA card, where no onnxruntime wheel with CUDA is installed. Loaded by its name only.

    file (onnx) ─► steps, one a node, each with torch's function ─► run: numpy ─► card ─► steps in order ─► numpy

The graph runs as the file states it: an fp16 graph in fp16, an fp32 one in fp32 (torch's own settings hold:
convolutions may use TF32). Nothing falls back to the CPU: an operator that the tables do not have is refused at
opening, with all of its kind, and int8 graphs are, too.
Shapes are computed on the host, as every engine does, so that reading them does not wait for the card. A run includes
the copies to the card and back, as an application sees them.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx  # noqa: TID251 - this engine is loaded by name, with its own extra
import torch  # noqa: TID251 - as above

from edgekit_runtime.engines import torch_layers, torch_ops
from edgekit_runtime.engines.base import Arrays, middle_mean
from edgekit_runtime.engines.gpu import check_kinds
from edgekit_runtime.errors import EdgekitError, EngineMissing, Refused, UsageError
from edgekit_runtime.macs import macs, read_bytes
from edgekit_runtime.manifest import Tensor
from edgekit_runtime.measurement import OpCost

TABLE: dict[str, torch_ops.Function] = {**torch_ops.TABLE, **torch_layers.TABLE}
OLDEST_OPSET = 13  # since then axes and the like are inputs, and Softmax works on one axis
_HOST_VALUES = 64  # integer constants up to this size are shapes, axes and places: they stay on the host


@dataclasses.dataclass(frozen=True)
class Step:
    """One node: what to call, with which values.

    Attributes:
        name: Of the node, or of its first output.
        kind: Operator type.
        call: Function of the tables.
        inputs: Names; empty: an optional input that is not given.
        outputs: Names; empty: an output that nobody reads.
        attributes: Of the node, as Python values and tensors.
        host: Positions of inputs whose values are read on the host.
        last: Values that nobody reads afterwards.
    """

    name: str
    kind: str
    call: torch_ops.Function
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    attributes: Mapping[str, Any]
    host: frozenset[int]
    last: tuple[str, ...]


class TorchCuda:
    """The engine `torch`.

    Attributes:
        device: Where it computes, as torch spells it.
    """

    name = "torch"
    formats = ("onnx",)
    device = "cuda"

    def __init__(self) -> None:
        self.version = str(torch.__version__)
        if self.device == "cuda" and not torch.cuda.is_available():
            raise EngineMissing(
                f"torch {self.version} finds no NVIDIA card here",
                remedy="install a wheel of torch with CUDA where there is a card (nvidia-smi shows it), "
                "or run on the engine onnxruntime",
            )

    def load(self, path: Path, *, threads: int = 1, signature: str = "") -> TorchGraph:
        """Opens an ONNX file on the card. See `base.Engine.load`. Threads are the card's own matter.

        Raises:
            Refused: Also an int8 graph, an opset below 13, and operators that the tables do not have.
        """
        if signature:
            raise UsageError(f"{path.name} is an ONNX file: it has no signatures, {signature!r} was asked for")
        return TorchGraph(_read(path), path.name, torch.device(self.device))

    def trace(
        self, path: Path, inputs: Mapping[str, np.ndarray], *, threads: int = 1, runs: int = 1
    ) -> Sequence[OpCost]:
        """What ran, node by node. See `base.Engine.trace`. The card is waited for after each, which a run does not."""
        graph = self.load(path, threads=threads)
        rows: list[OpCost] = []
        graph.run(inputs)  # libraries choose their kernels
        seen = [graph.timed(inputs) for _ in range(max(runs, 1))]
        for number, (step, shapes, results, moved, _) in enumerate(seen[0]):
            rows.append(
                OpCost(
                    name=step.name,
                    kind=step.kind,
                    ms=middle_mean([run[number][4] for run in seen]) * 1e3,
                    macs=macs(step.kind, shapes, results),
                    bytes=moved,
                    int8=False,
                    delegate=f"torch {self.device}",
                    inputs=shapes,
                    outputs=results,
                )
            )
        graph.close()
        return tuple(rows)


Shapes = tuple[tuple[int, ...], ...]
Timed = tuple[Step, Shapes, Shapes, int, float]  # shapes in and out, bytes of both, seconds


class TorchGraph:
    """An ONNX graph as a list of torch calls. `run` is safe from several threads: a run keeps its own values."""

    def __init__(self, model: onnx.ModelProto, file: str, device: torch.device) -> None:
        graph = model.graph
        constants = {item.name: _constant(item, device) for item in graph.initializer}
        self.inputs = tuple(_tensor(item) for item in graph.input if item.name not in constants)
        self.outputs = tuple(_tensor(item) for item in graph.output)
        self._steps: tuple[Step, ...] | None = _steps(graph, device)
        self._constants, self._device, self._file = constants, device, file

    def run(self, inputs: Mapping[str, np.ndarray]) -> Arrays:
        """Runs once. See `base.LoadedGraph.run`."""
        return self._run(inputs, lambda step, given: _called(step, given))

    def timed(self, inputs: Mapping[str, np.ndarray]) -> list[Timed]:
        """Runs once, waiting for the card after each step."""
        rows: list[Timed] = []

        def call(step: Step, given: list[Any]) -> tuple[Any, ...]:
            self._wait()
            begin = time.perf_counter()
            made = _called(step, given)
            self._wait()
            seconds = time.perf_counter() - begin
            known = [value for value in given if value is not None]
            given_shapes, made_shapes = _shapes(known), _shapes(made)
            moved = read_bytes(step.kind, list(map(_size, known)), given_shapes, made_shapes) + sum(map(_size, made))
            rows.append((step, given_shapes, made_shapes, moved, seconds))
            return made

        self._run(inputs, call)
        return rows

    def close(self) -> None:
        """Frees the weights on the card."""
        self._steps = None
        self._constants = {}

    def _run(self, inputs: Mapping[str, np.ndarray], call: Callable[[Step, list[Any]], tuple[Any, ...]]) -> Arrays:
        if self._steps is None:
            raise UsageError(f"{self._file} is closed", remedy="open it again")
        values = dict(self._constants)
        step = None
        try:
            with torch.inference_mode():
                for item in self.inputs:
                    values[item.name] = torch.tensor(inputs[item.name], device=self._device)
                for step in self._steps:
                    given = [values[name] if name else None for name in step.inputs]
                    made = call(step, _placed(given, step.host, self._device))
                    values.update(zip(step.outputs, made, strict=False))
                    for name in step.last:
                        values.pop(name, None)
                return {item.name: values[item.name].cpu().numpy() for item in self.outputs}
        except EdgekitError:
            raise
        except (RuntimeError, IndexError, ValueError, TypeError, KeyError) as error:
            where = f" at {step.name} ({step.kind})" if step else ""
            raise Refused(
                f"torch failed while running {self._file}{where}: {str(error).strip().splitlines()[0]}",
                remedy="check the values given (indices in range?); `edgekit verify` tells whether the file is sound",
            ) from error

    def _wait(self) -> None:
        if self._device.type == "cuda":
            torch.cuda.synchronize(self._device)


def _called(step: Step, given: list[Any]) -> tuple[Any, ...]:
    made = step.call(step.attributes, *given)
    return made if isinstance(made, tuple) else (made,)


def _placed(given: list[Any], host: frozenset[int], device: torch.device) -> list[Any]:
    """Values where the step needs them: all on the card if one is there, but those that the host reads.

    Values that all lie on the host stay there: they are shapes.
    """
    on_card = any(v is not None and v.device.type == device.type for i, v in enumerate(given) if i not in host)
    placed: list[Any] = []
    for position, value in enumerate(given):
        if value is None:
            placed.append(None)
        elif position in host:
            placed.append(value.cpu())
        else:
            placed.append(value.to(device) if on_card else value)
    return placed


def _read(path: Path) -> onnx.ModelProto:
    from google.protobuf.message import DecodeError

    if not path.is_file():
        raise Refused(f"{path} does not exist", remedy="check the path")
    try:
        model = onnx.load(path)
    except (DecodeError, ValueError, OSError, onnx.checker.ValidationError) as error:
        raise Refused(
            f"{path.name} is not a whole ONNX file: {error}", remedy="copy or export the file again"
        ) from error
    if not model.graph.node and not model.graph.output:
        raise Refused(f"{path.name} is not a whole ONNX file: no graph", remedy="copy or export the file again")
    check_kinds(path.name, frozenset(node.op_type for node in model.graph.node), of="the engine torch")
    opset = next((item.version for item in model.opset_import if item.domain in ("", "ai.onnx")), 0)
    if opset < OLDEST_OPSET:
        raise Refused(
            f"{path.name} has opset {opset}; the engine torch reads {OLDEST_OPSET} and newer",
            remedy=f"convert again with --opset {OLDEST_OPSET} or higher",
        )
    unknown = {reason for node in model.graph.node if (reason := _why_not(node))}
    if unknown:
        raise Refused(
            f"the engine torch has no {', '.join(sorted(unknown))}, which {path.name} needs",
            remedy="install edgekit[onnxruntime-gpu] and take the engine onnxruntime-gpu, or run on the CPU",
        )
    return model


def _why_not(node: onnx.NodeProto) -> str:
    """What of a node is missing here; empty where nothing is."""
    if node.domain not in ("", "ai.onnx"):
        return f"{node.domain}.{node.op_type}"
    if node.op_type not in TABLE:
        return node.op_type
    attributes = {item.name: _attribute(item, torch.device("cpu")) for item in node.attribute}
    reason = torch_layers.why_not(node.op_type, attributes, node.input)
    return f"{node.op_type} with {reason}" if reason else ""


def _steps(graph: onnx.GraphProto, device: torch.device) -> tuple[Step, ...]:
    kept = {item.name for item in (*graph.output, *graph.initializer)}
    last: dict[str, int] = {}
    for number, node in enumerate(graph.node):
        last.update({name: number for name in (*node.input, *node.output) if name and name not in kept})
    ends: dict[int, list[str]] = {}
    for name, number in last.items():
        ends.setdefault(number, []).append(name)
    return tuple(
        Step(
            name=node.name or node.output[0],
            kind=node.op_type,
            call=TABLE[node.op_type],
            inputs=tuple(node.input),
            # A value without a name is one that nobody reads; it is kept under "" until the run ends.
            outputs=tuple(node.output),
            attributes={item.name: _attribute(item, device) for item in node.attribute},
            host=torch_ops.HOST.get(node.op_type, frozenset()),
            last=tuple(ends.get(number, ())),
        )
        for number, node in enumerate(graph.node)
    )


def _attribute(item: onnx.AttributeProto, device: torch.device) -> Any:
    value = onnx.helper.get_attribute_value(item)
    if isinstance(value, bytes):
        return value.decode()
    if isinstance(value, onnx.TensorProto):
        return _constant(value, device)
    return (
        [each.decode() if isinstance(each, bytes) else each for each in value] if isinstance(value, Sequence) else value
    )


def _constant(item: onnx.TensorProto, device: torch.device) -> torch.Tensor:
    value = torch.from_numpy(np.array(onnx.numpy_helper.to_array(item)))
    small = not value.is_floating_point() and value.numel() <= _HOST_VALUES and value.dim() <= 1
    return value if small else value.to(device)


def _tensor(item: onnx.ValueInfoProto) -> Tensor:
    kind = item.type.tensor_type
    dtype = str(onnx.helper.tensor_dtype_to_np_dtype(kind.elem_type))
    shape = tuple(
        axis.dim_value if axis.HasField("dim_value") else (axis.dim_param or f"{item.name}_{number}")
        for number, axis in enumerate(kind.shape.dim)
    )
    return Tensor(name=item.name, dtype=dtype, shape=shape)


def _size(value: torch.Tensor) -> int:
    return int(value.numel() * value.element_size())


def _shapes(values: Sequence[torch.Tensor]) -> Shapes:
    return tuple(tuple(value.shape) for value in values)
