"""An engine drawn out: this process plays a device that is so many times slower than the machine it runs on.

Each run is done that many times, so that it takes the time and the processor that a slower device would need.
"""

from __future__ import annotations

import contextlib
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np

from edgekit_runtime import engines
from edgekit_runtime.engines.base import Arrays, LoadedGraph
from edgekit_runtime.engines.onnxruntime import OnnxRuntime


class SlowGraph:
    """A graph whose runs are done a number of times."""

    def __init__(self, graph: LoadedGraph, times: int) -> None:
        self.inputs, self.outputs = graph.inputs, graph.outputs
        self._graph, self._times = graph, times

    def run(self, inputs: Mapping[str, np.ndarray]) -> Arrays:
        """The outputs of the last run."""
        for _ in range(self._times - 1):
            self._graph.run(inputs)
        return self._graph.run(inputs)

    def close(self) -> None:
        """Frees the engine's memory."""
        self._graph.close()


class SlowOnnxRuntime(OnnxRuntime):
    """ONNX Runtime on a slower device. Whole graphs, heads and exits all come through here."""

    name = "onnxruntime-slower"
    formats: tuple[str, ...] = ("onnx",)  # type: ignore[assignment]  # as wide as the protocol has it

    def __init__(self, times: int) -> None:
        super().__init__()
        self._times = times

    def load(self, path: Path, *, threads: int = 1, signature: str = "") -> SlowGraph:  # type: ignore[override]
        """Opens a file."""
        return SlowGraph(super().load(path, threads=threads, signature=signature), self._times)

    def load_joined(  # type: ignore[override]
        self, paths: Sequence[Path], outputs: Collection[str], *, threads: int = 1
    ) -> SlowGraph:
        """Opens consecutive pieces."""
        return SlowGraph(super().load_joined(paths, outputs, threads=threads), self._times)


@contextlib.contextmanager
def slower(times: int) -> Iterator[str]:
    """The name of an engine, there within the block, that is so many times slower than ONNX Runtime here."""
    engine = SlowOnnxRuntime(times)
    engines.register(engine)
    try:
        yield engine.name
    finally:
        engines.unregister(engine.name)
