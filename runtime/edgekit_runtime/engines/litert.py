"""LiteRT (and its frozen predecessor tflite-runtime) behind the engine protocol.

The two wheels bring the same Interpreter class. A file is checked by our own reader first (`tflite_file`), because the
interpreter follows the file's offsets without looking. Tensors are set and read by their index: the wheels' own
signature runner resizes and reallocates at every call. The few underscore names used for that have been the same in
both wheels since 2.8; a test holds them.
"""

from __future__ import annotations

import importlib
import math
import re
import threading
from collections.abc import Mapping, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np

from edgekit_runtime.engines import tflite_file
from edgekit_runtime.engines.base import Arrays
from edgekit_runtime.engines.quiet import without_info_lines
from edgekit_runtime.errors import Refused, UsageError
from edgekit_runtime.macs import macs, read_bytes
from edgekit_runtime.manifest import Quantization, Tensor
from edgekit_runtime.measurement import OpCost

_EIGHT_BIT = {"int8", "uint8", "int4", "int2"}
# Position of the weights of the operators that multiply; for BATCH_MATMUL they may be activations too.
_WEIGHTS = {
    "CONV_2D": 1,
    "DEPTHWISE_CONV_2D": 1,
    "TRANSPOSE_CONV": 1,
    "FULLY_CONNECTED": 1,
    "BATCH_MATMUL": 1,
    "UNIDIRECTIONAL_SEQUENCE_LSTM": 2,
    "BIDIRECTIONAL_SEQUENCE_LSTM": 2,
    "UNIDIRECTIONAL_SEQUENCE_RNN": 1,
    "SVDF": 1,
}
_ITEM_BYTES = {"int4": 0.5, "int2": 0.25, "bfloat16": 2.0, "string": 0.0, "resource": 0.0, "variant": 0.0}


class LiteRT:
    """The engine `litert` (CPU, XNNPACK)."""

    name = "litert"
    formats = ("tflite",)
    module = "ai_edge_litert.interpreter"
    distribution = "ai-edge-litert"

    def __init__(self) -> None:
        self._interpreter = importlib.import_module(self.module).Interpreter
        self.version: str = metadata.version(self.distribution)
        self._announced = False

    def load(self, path: Path, *, threads: int = 1, signature: str = "") -> LiteRTGraph:
        """Opens a TFLite file. See `base.Engine.load`."""
        structure = tflite_file.read(path)
        return LiteRTGraph(_Opened(self._open(path, threads, structure), structure, path.name), signature)

    def trace(
        self, path: Path, inputs: Mapping[str, np.ndarray], *, threads: int = 1, runs: int = 1
    ) -> Sequence[OpCost]:
        """What ran, operator by operator. See `base.Engine.trace`.

        The Python API gives no times: `ms` is None. Of a ladder, the rung whose shapes the inputs have is run.
        """
        structure = tflite_file.read(path)
        graph = LiteRTGraph(
            _Opened(self._open(path, threads, structure), structure, path.name), _rung_for(structure, inputs)
        )
        for _ in range(runs):
            graph.run(inputs)
        return graph.costs()

    def timed_trace(
        self, path: Path, inputs: Mapping[str, np.ndarray], *, threads: int = 1, runs: int = 1
    ) -> Sequence[OpCost]:
        """As `trace`, with times from LiteRT's own profiler. For a process that does nothing else.

        Raises:
            Refused: This version or file cannot be profiled; says why.
        """
        from edgekit_runtime.engines import litert_profile

        if self.name != "litert" or not litert_profile.supported(self.version):
            raise Refused(
                f"{self.name} {self.version} gives no times for single operators (ai-edge-litert "
                f"{'.'.join(map(str, litert_profile.OLDEST))} or newer does)"
            )
        structure = tflite_file.read(path)
        rung = _rung_for(structure, inputs)
        rows = self.trace(path, inputs, threads=threads, runs=1)
        seen = litert_profile.record(path, rung, inputs, threads=threads, runs=runs)
        looped = any(op.body >= 0 for subgraph in structure.subgraphs for op in subgraph.operators)
        return litert_profile.join(rows, seen, looped=looped)

    def _open(self, path: Path, threads: int, structure: tflite_file.TfliteFile) -> Any:
        try:
            if self._announced:
                return self._create(path, threads)
            with without_info_lines():  # the delegate's line comes once a process
                interpreter = self._create(path, threads)
            self._announced = True
            return interpreter
        except (ValueError, RuntimeError) as error:
            raise _refusal(path.name, error, structure, f"{self.name} {self.version}") from error

    def _create(self, path: Path, threads: int) -> Any:
        interpreter = self._interpreter(model_path=str(path), num_threads=threads)
        interpreter.allocate_tensors()
        return interpreter


class TfliteRuntime(LiteRT):
    """The engine `tflite-runtime`: the same interpreter, frozen at 2.14, on old boards."""

    name = "tflite-runtime"
    module = "tflite_runtime.interpreter"
    distribution = "tflite-runtime"


class _Opened:
    """One interpreter with its lock. The rungs of a file share it, as each interpreter packs the weights of all."""

    def __init__(self, interpreter: Any, structure: tflite_file.TfliteFile, file: str) -> None:
        self.interpreter = interpreter
        self.structure = structure
        self.file = file
        self.lock = threading.Lock()
        if structure.stateful:
            # Resetting variables walks all signatures, and fails on one whose tensors have no memory yet.
            for number in range(1, len(structure.subgraphs)):
                interpreter._interpreter.AllocateTensors(number)


class LiteRTGraph:
    """One signature of an open file. Runs from several threads take turns: the interpreter holds the tensors."""

    def __init__(self, opened: _Opened, signature: str) -> None:
        self._opened = opened
        self._wrapper: Any = opened.interpreter._interpreter
        name, self._subgraph, inputs, outputs = _entry(opened, signature)
        self.signature = name
        self._inputs = tuple(inputs.items())
        self._outputs = tuple(outputs.items())
        try:
            if self._subgraph:
                self._wrapper.AllocateTensors(self._subgraph)
        except (ValueError, RuntimeError) as error:
            raise _refusal(opened.file, error, opened.structure, "the interpreter") from error
        self.inputs = tuple(self._tensor(key, index) for key, index in self._inputs)
        self.outputs = tuple(self._tensor(key, index) for key, index in self._outputs)
        self._shapes: list[tuple[int, ...]] = [
            tuple(int(size) for size in self._wrapper.TensorSize(index, self._subgraph)) for _, index in self._inputs
        ]
        self._stateful = opened.structure.stateful

    def at(self, signature: str) -> LiteRTGraph:
        """Another signature of the same open file; memory is shared with this one."""
        return LiteRTGraph(self._opened, signature)

    def run(self, inputs: Mapping[str, np.ndarray]) -> Arrays:
        """Runs once. Outputs are copies. State that the file keeps in variables starts afresh at every run."""
        wrapper, subgraph = self._wrapper, self._subgraph
        try:
            with self._opened.lock:
                shapes = [inputs[name].shape for name, _ in self._inputs]
                if shapes != self._shapes:
                    self._resize(shapes)
                for name, index in self._inputs:
                    wrapper.SetTensor(index, inputs[name], subgraph)
                if self._stateful:
                    wrapper.ResetVariableTensors()
                wrapper.Invoke(subgraph)
                return {name: wrapper.GetTensor(index, subgraph) for name, index in self._outputs}
        except (ValueError, RuntimeError, AttributeError) as error:
            if wrapper is None:
                raise UsageError(f"{self._opened.file} is closed", remedy="open it again") from error
            raise Refused(
                f"LiteRT failed while running {self._opened.file}: {str(error).strip()}",
                remedy="check the values given (indices in range?); `edgekit verify` tells whether the file is sound",
            ) from error

    def _resize(self, shapes: list[tuple[int, ...]]) -> None:
        self._shapes = []  # should the interpreter refuse these sizes, the next run sets them again
        for (_, index), shape in zip(self._inputs, shapes, strict=True):
            self._wrapper.ResizeInputTensor(index, np.array(shape, np.int32), False, self._subgraph)
        self._wrapper.AllocateTensors(self._subgraph)
        self._shapes = shapes

    def close(self) -> None:
        """Frees the interpreter, together with the other signatures of its file."""
        with self._opened.lock:
            self._wrapper = None
            self._opened.interpreter = None

    def costs(self) -> tuple[OpCost, ...]:
        """One row an operator of this signature, with the shapes it has now.

        A subgraph that is run for each step of a sequence has its operators listed once, with the work of all calls.
        """
        subgraphs = self._opened.structure.subgraphs
        operators = subgraphs[self._subgraph].operators
        here = [self._shape(index, tensor) for index, tensor in enumerate(subgraphs[self._subgraph].tensors)]
        rows = _costs(subgraphs[self._subgraph], here)
        bodies = [op.body for op in operators if op.body >= 0]
        for body in dict.fromkeys(bodies):
            fixed = [tensor.shape for tensor in subgraphs[body].tensors]
            rows += _costs(subgraphs[body], fixed, calls=bodies.count(body), prefix=f"step{body}/")
        return tuple(rows)

    def _shape(self, index: int, tensor: tflite_file.FileTensor) -> tuple[int, ...]:
        if tensor.constant or -1 not in tensor.shape:
            return tensor.shape
        return tuple(int(size) for size in self._wrapper.TensorSize(index, self._subgraph))

    def _tensor(self, name: str, index: int) -> Tensor:
        wrapper, subgraph = self._wrapper, self._subgraph
        open_sizes = wrapper.TensorSizeSignature(index, subgraph)
        sizes = wrapper.TensorSize(index, subgraph)
        shape = tuple(int(size) for size in (open_sizes if len(open_sizes) == len(sizes) else sizes))
        scale, zero_point = wrapper.TensorQuantization(index, subgraph)
        return Tensor(
            name=name,
            dtype=np.dtype(wrapper.TensorType(index, subgraph)).name,
            shape=tuple(f"{name}_{axis}" if size < 0 else size for axis, size in enumerate(shape)),
            quantization=Quantization(scale=float(scale), zero_point=int(zero_point)) if scale else None,
        )


def _costs(
    subgraph: tflite_file.Subgraph, shapes: Sequence[tuple[int, ...]], *, calls: int = 1, prefix: str = ""
) -> list[OpCost]:
    rows = []
    for number, op in enumerate(subgraph.operators):
        given = [() if index < 0 else shapes[index] for index in op.inputs]
        dtypes = ["" if index < 0 else subgraph.tensors[index].dtype for index in op.inputs]
        made = [shapes[index] for index in op.outputs]
        kinds = [subgraph.tensors[index].dtype for index in op.outputs]
        work = macs("CUSTOM" if op.kind.startswith("CUSTOM:") else op.kind, given, made)
        sizes = list(map(_bytes, dtypes, given))
        moved = read_bytes(op.kind, sizes, given, made) + sum(map(_bytes, kinds, made))
        rows.append(
            OpCost(
                name=f"{prefix}{op.kind}_{number}",
                kind=op.kind,
                ms=None,
                macs=None if work is None else work * calls,
                bytes=moved * calls,
                int8=_is_int8(op.kind, dtypes),
                calls=calls,
                inputs=tuple(given),
                outputs=tuple(made),
                dtype=_dtype(dtypes, kinds),
            )
        )
    return rows


def _entry(opened: _Opened, signature: str) -> tuple[str, int, dict[str, int], dict[str, int]]:
    """Signature name, subgraph, and tensor index by name; a file without signatures is called by its tensors' names."""
    structure = opened.structure
    if structure.signatures:
        found = [entry for entry in structure.signatures if entry.name == signature or not signature]
        if not found:
            known = ", ".join(entry.name for entry in structure.signatures)
            raise Refused(f"{opened.file} has no signature {signature!r}", remedy=f"it has: {known}")
        entry = found[0]
        return entry.name, entry.subgraph, entry.inputs, entry.outputs
    if signature:
        raise Refused(f"{opened.file} has no signatures, {signature!r} was asked for", remedy="open it without one")
    main = structure.subgraphs[0]
    return (
        "",
        0,
        {main.tensors[index].name: index for index in main.inputs},
        {main.tensors[index].name: index for index in main.outputs},
    )


def _rung_for(structure: tflite_file.TfliteFile, inputs: Mapping[str, np.ndarray]) -> str:
    """The signature whose inputs have the shapes given; the first one where none has."""
    for entry in structure.signatures:
        tensors = structure.subgraphs[entry.subgraph].tensors
        if all(name in inputs and tensors[index].shape == inputs[name].shape for name, index in entry.inputs.items()):
            return entry.name
    return ""


def _is_int8(kind: str, dtypes: Sequence[str]) -> bool:
    """Does the kernel multiply 8-bit integers?

    Integer weights tell: with integer activations the kernel is the integer one, with float activations it is the
    hybrid one, which quantizes each row of activations first. Float arithmetic on int8 weights shows as a DEQUANTIZE
    operator before it, and float weights here.
    """
    position = _WEIGHTS.get(kind)
    if position is None:
        return bool(dtypes) and dtypes[0] in _EIGHT_BIT
    return len(dtypes) > position and dtypes[position] in _EIGHT_BIT


def _dtype(given: Sequence[str], made: Sequence[str]) -> str:
    """What a kernel computes in: what it makes, or where that is truth, what it is told from."""
    if made and made[0] != "bool":
        return made[0]
    return next((dtype for dtype in given if dtype), "")


def _bytes(dtype: str, shape: Sequence[int]) -> int:
    if not dtype:
        return 0
    item = _ITEM_BYTES[dtype] if dtype in _ITEM_BYTES else float(np.dtype(dtype).itemsize)
    return int(math.prod(shape) * item)


def _refusal(file: str, error: Exception, structure: tflite_file.TfliteFile, engine: str) -> Refused:
    """Why the interpreter does not take a file, in words, with the operator it stumbled on."""
    text = str(error).strip()
    wanted = f" (the file asks for TFLite runtime {structure.min_runtime_version} or newer)"
    needs = wanted if structure.min_runtime_version else ""
    custom = re.search(r"unresolved custom op: ([\w.:-]+)", text, re.IGNORECASE)
    if custom:
        return Refused(
            f"{engine} has no kernel for the custom operator {custom[1].rstrip('.')} in {file}{needs}",
            remedy="convert the student without this operator; it runs only where its kernel is linked in",
        )
    version = re.search(r"Didn't find op for builtin opcode '(\w+)' version '(\d+)'", text)
    if version:
        return Refused(
            f"{engine} has no kernel for {version[1]} version {version[2]} in {file}{needs}",
            remedy="install a newer ai-edge-litert, or convert again for this engine (--min-engine tflite=...)",
        )
    tensors = sorted({int(number) for number in re.findall(r"Tensor (\d+) has invalid quantization", text)})
    if tensors:
        kinds = sorted({kind for tensor in tensors for kind in structure.users(tensor)})
        reason = text.split(".")[0]
        return Refused(
            f"{engine} refuses {file}: the quantization of {len(tensors)} weight tensors of {', '.join(kinds)} is "
            f"invalid ({reason}){needs}",
            remedy="the file was made by an old converter: convert the student again from its source",
        )
    node = re.search(r"Node number (\d+) \(([\w.:-]+)\)", text)
    where = f"operator {node[2]} (number {node[1]}) of " if node else ""
    return Refused(f"{engine} refuses {where}{file}: {text}{needs}", remedy="convert the student again for this engine")
