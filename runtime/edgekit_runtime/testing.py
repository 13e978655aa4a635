"""Fakes for tests of code that uses edgekit: no torch, no onnx, no engine needed.

    def double(inputs):
        return {"y": inputs["x"] * 2}

    with using(FakeEngine("fake", {"g.onnx": double}, inputs=[...], outputs=[...])) as engine:
        session = er.open(bundle, engine="fake")

`make_bundle` writes a bundle with a real ONNX graph, byte by byte.
"""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np

from edgekit_runtime import engines, manifest
from edgekit_runtime.engines.base import Arrays
from edgekit_runtime.errors import Refused, UsageError
from edgekit_runtime.manifest import Axis, FileEntry, Graph, Manifest, Source, Tensor
from edgekit_runtime.measurement import OpCost

Function = Callable[[Mapping[str, np.ndarray]], Arrays]


class FakeEngine:
    """An engine that runs Python functions in place of graph files.

    Attributes:
        calls: How often a graph was run.
        opened: Names and signatures of the files opened, in order.
    """

    version = "1.0"

    def __init__(
        self,
        name: str,
        functions: Mapping[str, Function],
        *,
        inputs: Sequence[Tensor],
        outputs: Sequence[Tensor],
        formats: tuple[str, ...] = ("onnx",),
    ) -> None:
        """Makes an engine.

        Args:
            name: Under which it is registered.
            functions: The function by file name (without folder); other files are refused.
            inputs: What every function takes.
            outputs: What every function gives.
            formats: The formats it claims to run.
        """
        self.name = name
        self.formats = formats
        self.calls = 0
        self.opened: list[tuple[str, str]] = []
        self._functions = dict(functions)
        self._inputs, self._outputs = tuple(inputs), tuple(outputs)

    def load(self, path: Path, *, threads: int = 1, signature: str = "") -> FakeGraph:
        """Opens a file by its name; its bytes do not matter."""
        if path.name not in self._functions:
            raise Refused(f"{self.name} refuses {path.name}", remedy=f"it has: {', '.join(self._functions)}")
        self.opened.append((path.name, signature))
        return FakeGraph(self, self._functions[path.name], self._inputs, self._outputs)

    def trace(
        self, path: Path, inputs: Mapping[str, np.ndarray], *, threads: int = 1, runs: int = 1
    ) -> Sequence[OpCost]:
        """One operator: the function."""
        graph = self.load(path, threads=threads)
        for _ in range(runs):
            graph.run(inputs)
        return (OpCost(name=path.name, kind="Function"),)


class FakeGraph:
    """A function as an open graph."""

    def __init__(
        self, engine: FakeEngine, function: Function, inputs: tuple[Tensor, ...], outputs: tuple[Tensor, ...]
    ) -> None:
        self.inputs, self.outputs = inputs, outputs
        self._engine = engine
        self._function: Function | None = function

    def run(self, inputs: Mapping[str, np.ndarray]) -> Arrays:
        """Calls the function."""
        if self._function is None:
            raise UsageError("the graph is closed", remedy="open it again")
        self._engine.calls += 1
        return self._function(inputs)

    def close(self) -> None:
        """Running afterwards is an error."""
        self._function = None


@contextlib.contextmanager
def using(engine: FakeEngine) -> Iterator[FakeEngine]:
    """Registers an engine for the block."""
    engines.register(engine)
    try:
        yield engine
    finally:
        engines.unregister(engine.name)


def matmul_onnx(weights: np.ndarray) -> bytes:
    """An ONNX file `y = x @ weights` with x float32 [batch, K], made without the package onnx.

    Args:
        weights: float32 [K, N].

    Returns:
        The file's bytes (IR version 8, opset 13).
    """
    rows, columns = weights.shape
    tensor = _number(1, rows) + _number(1, columns) + _number(2, 1) + _bytes(8, b"w")
    tensor += _bytes(9, np.ascontiguousarray(weights, "<f4").tobytes())
    node = _bytes(1, b"x") + _bytes(1, b"w") + _bytes(2, b"y") + _bytes(3, b"product") + _bytes(4, b"MatMul")
    graph = _bytes(1, node) + _bytes(2, b"tiny") + _bytes(5, tensor)
    graph += _bytes(11, _value(b"x", rows)) + _bytes(12, _value(b"y", columns))
    return _number(1, 8) + _bytes(7, graph) + _bytes(8, _number(2, 13))


def _value(name: bytes, columns: int) -> bytes:
    """ValueInfoProto of float32 [batch, columns]."""
    shape = _bytes(1, _bytes(2, b"batch")) + _bytes(1, _number(1, columns))
    return _bytes(1, name) + _bytes(2, _bytes(1, _number(1, 1) + _bytes(2, shape)))


def _varint(value: int) -> bytes:
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*out, value])


def _number(field: int, value: int) -> bytes:
    return _varint(field << 3) + _varint(value)


def _bytes(field: int, value: bytes) -> bytes:
    return _varint(field << 3 | 2) + _varint(len(value)) + value


def make_bundle(
    folder: Path,
    *,
    files: Mapping[str, bytes] | None = None,
    graphs: Mapping[str, bytes] | None = None,
    change: Callable[[Manifest], Manifest] = lambda found: found,
    weights: np.ndarray | None = None,
) -> Path:
    """Writes a tiny valid bundle: x float32 [batch, K] in, y = x @ weights [batch, N] out, one fp32 ONNX graph.

    Args:
        folder: New folder, for example `tmp_path / "tiny.edge"`.
        files: Further files by their path in the bundle (assets, golden).
        graphs: Bytes by graph id in place of the one ONNX graph; the format is the id's first part.
        change: Changes the manifest before it is written.
        weights: float32 [K, N]; default [4, 3].

    Returns:
        The folder.
    """
    matrix = np.arange(12, dtype=np.float32).reshape(4, 3) if weights is None else weights
    tensors = (
        Tensor(name="x", dtype="float32", shape=("batch", matrix.shape[0])),
        Tensor(name="y", dtype="float32", shape=("batch", matrix.shape[1])),
    )
    contents = dict(files or {})
    rows = []
    for graph_id, data in (graphs or {"onnx.fp32": matmul_onnx(matrix)}).items():
        rows.append(_graph(graph_id, data, tensors))
        contents[rows[-1].path] = data
    listed = {name: FileEntry(bytes=len(data), sha256=_hash(data)) for name, data in contents.items()}
    document = Manifest(
        name=folder.stem,
        tool_versions={},
        source=Source(kind="test", exporter="none"),
        inputs=tensors[:1],
        outputs=tensors[1:],
        axes=(Axis(symbol="batch", min=1, max=64, role="batch"),),
        graphs=tuple(rows),
        files=listed,
    )
    for name, data in {**contents, "manifest.json": manifest.dump(change(document))}.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    return folder


def _graph(graph_id: str, data: bytes, tensors: tuple[Tensor, Tensor]) -> Graph:
    parts = graph_id.split(".")
    return Graph(
        id=graph_id,
        format="tflite" if parts[0] == "tflite" else "onnx",
        precision="int8" if parts[1] == "int8" else "fp32",
        variant=".".join(parts[2:]),
        path=f"graphs/{graph_id}.{parts[0]}",
        bytes=len(data),
        sha256=_hash(data),
        inputs=tensors[:1],
        outputs=tensors[1:],
        engine="litert" if parts[0] == "tflite" else "onnxruntime",
        min_engine_version="",
    )


def _hash(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()
