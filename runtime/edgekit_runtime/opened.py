"""The pieces of a chain, open on one engine: each file once, and pieces between which nobody looks as one graph.

seg0 ──► seg1 ──► head       Group: run as one graph where the engine can join them, else piece by piece
"""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from edgekit_runtime import engines
from edgekit_runtime.bundle import Bundle
from edgekit_runtime.engines.base import Arrays, Engine, LoadedGraph
from edgekit_runtime.errors import EngineMissing, Refused
from edgekit_runtime.manifest import Graph


class Files:
    """The graph files of a chain, each opened once."""

    def __init__(self, bundle: Bundle, graph: Graph, engine: str, threads: int) -> None:
        names = engines.for_format(graph.format)
        if not engine and not names:
            raise EngineMissing(
                f"no engine is installed that runs {graph.format}", remedy=engines.pip_lines({graph.format})
            )
        self.engine: Engine = engines.get(engine or names[0])
        self._bundle, self._threads = bundle, threads
        self._open: dict[Path, LoadedGraph] = {}
        self._opened: list[LoadedGraph] = []

    def joined(self, graphs: Sequence[Graph], outputs: set[str]) -> LoadedGraph | None:
        """Pieces as one graph; None where the engine cannot."""
        join = getattr(self.engine, "load_joined", None)
        if join is None or graphs[0].signatures:
            return None
        try:
            loaded: LoadedGraph = join([self._bundle.graph_path(g) for g in graphs], outputs, threads=self._threads)
        except Refused:  # an engine before it could read shared weights beside bytes: piece by piece works there
            return None
        self._opened.append(loaded)
        return loaded

    def single(self, graph: Graph, rung: int) -> LoadedGraph:
        """One piece at one rung."""
        path = self._bundle.graph_path(graph)
        signature = graph.signatures[rung].name if graph.signatures else ""
        first = self._open.get(path)
        at = getattr(first, "at", None)
        if at is not None:
            found: LoadedGraph = at(signature)
            return found
        loaded = self.engine.load(path, threads=self._threads, signature=signature)
        self._open[path] = loaded
        self._opened.append(loaded)
        return loaded

    def close(self) -> None:
        """Frees the engine's memory."""
        for loaded in self._opened:
            loaded.close()


class Group:
    """Pieces that run one after the other with nobody looking in between."""

    def __init__(self, files: Files, graphs: Sequence[Graph], outputs: set[str]) -> None:
        self._files, self._graphs = files, graphs
        self._wanted = outputs
        self._rungs: dict[int, list[LoadedGraph]] = {}
        self._lock = threading.Lock()

    def run(self, values: Mapping[str, np.ndarray], rung: int) -> Arrays:
        """Runs all of them; returns the outputs that are wanted later."""
        loaded = self._rungs.get(rung) or self._load(rung)
        if len(loaded) == 1:
            return loaded[0].run({tensor.name: values[tensor.name] for tensor in loaded[0].inputs})
        here = dict(values)
        for piece in loaded:
            here.update(piece.run({tensor.name: here[tensor.name] for tensor in piece.inputs}))
        return {name: here[name] for name in self._wanted if name in here}

    def _load(self, rung: int) -> list[LoadedGraph]:
        with self._lock:
            if rung not in self._rungs:
                joined = self._files.joined(self._graphs, self._wanted) if len(self._graphs) > 1 else None
                pieces = [joined] if joined else [self._files.single(graph, rung) for graph in self._graphs]
                self._rungs[rung] = pieces
            return self._rungs[rung]
