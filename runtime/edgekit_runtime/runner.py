"""One graph of a bundle, open on one engine: takes requests as the student takes them, whatever sizes the file has."""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from pathlib import Path

import msgspec

from edgekit_runtime import ladder
from edgekit_runtime.engines.base import Arrays, Engine, LoadedGraph
from edgekit_runtime.errors import BundleInvalid, UsageError
from edgekit_runtime.manifest import Axis, Graph, Signature, Tensor
from edgekit_runtime.tensors import check

_MAX_KNOWN = 256

# What is remembered of a request's names, dtypes and shapes once they were checked: the plan, None for "as it is".
_Known = dict[tuple[object, ...], "ladder.Plan | None"]


class Runner:
    """Checks, pads, slices and runs. Safe from several threads.

    Attributes:
        inputs: What a caller gives: names and symbols of the student, dtypes of the file.
        outputs: What a caller gets.
    """

    def __init__(
        self,
        graph: Graph,
        engine: Engine,
        path: Path,
        *,
        threads: int,
        student: Student,
        loaded: LoadedGraph | None = None,
    ) -> None:
        self.graph = graph
        self.inputs = merge(graph.inputs, student.inputs)
        self.outputs = merge(graph.outputs, student.outputs)
        self._student = student
        self._engine, self._path, self._threads = engine, path, threads
        self._lock = threading.Lock()
        self._closed = False
        first = graph.signatures[0].name if graph.signatures else ""
        loaded = loaded or engine.load(path, threads=threads, signature=first)
        self._check_names(loaded)
        self._loaded: dict[str, LoadedGraph] = {first: loaded}
        self._first = loaded
        self._rungs = graph.signatures or fixed_sizes(self.inputs, loaded.inputs)
        self._in_order = [tensor.name for tensor in loaded.outputs] == [tensor.name for tensor in self.outputs]
        self._known: _Known = {}

    def run(self, inputs: Mapping[str, object]) -> Arrays:
        """Runs one request.

        Raises:
            InputMismatch: Names, dtypes or shapes do not fit, or no rung takes the size.
            Refused: The engine failed.
            UsageError: The runner is closed.
        """
        if self._closed:
            raise UsageError("the session is closed", remedy="open the bundle again")
        arrays = inputs
        try:
            key = tuple([(name, value.dtype, value.shape) for name, value in inputs.items()])  # type: ignore[attr-defined]
            chosen = self._known[key]
        except (AttributeError, KeyError):  # not arrays, or not seen before
            arrays, chosen = self._prepare(inputs)
        if chosen is None:
            answers = self._first.run(arrays)  # type: ignore[arg-type]
        else:
            rung = self._rung(chosen.rung.name)
            if chosen.exact:
                answers = rung.run(arrays)  # type: ignore[arg-type]
            else:
                return ladder.run(chosen, rung.run, self.inputs, self.outputs, arrays)  # type: ignore[arg-type]
        return answers if self._in_order else {tensor.name: answers[tensor.name] for tensor in self.outputs}

    def _prepare(self, inputs: Mapping[str, object]) -> tuple[Arrays, ladder.Plan | None]:
        arrays, sizes = check(self.inputs, self._student.axes, inputs, bare=self._student.bare)
        chosen = None
        rungs = self._rungs or ladder.slices(self._student.axes, sizes)
        if rungs:
            chosen = ladder.plan(rungs, self._student.axes, sizes, advice=self._student.advice)
        converted = any(arrays[name] is not value for name, value in inputs.items())
        if not converted:
            if len(self._known) >= _MAX_KNOWN:
                self._known.clear()
            self._known[tuple([(name, arrays[name].dtype, arrays[name].shape) for name in inputs])] = chosen
        return arrays, chosen

    def _rung(self, name: str) -> LoadedGraph:
        found = self._loaded.get(name)
        if found is None:
            with self._lock:
                found = self._loaded.get(name)
                if found is None:
                    found = self._loaded[name] = self._open_rung(name)
        return found

    def _open_rung(self, name: str) -> LoadedGraph:
        at = getattr(self._first, "at", None)  # engines whose open file serves every signature
        if at is not None:
            loaded: LoadedGraph = at(name)
            return loaded
        return self._engine.load(self._path, threads=self._threads, signature=name)

    def _check_names(self, loaded: LoadedGraph) -> None:
        for kind, listed, there in (
            ("inputs", self.inputs, loaded.inputs),
            ("outputs", self.outputs, loaded.outputs),
        ):
            wanted, found = {tensor.name for tensor in listed}, {tensor.name for tensor in there}
            if not wanted <= found or (kind == "inputs" and wanted != found):
                loaded.close()
                raise BundleInvalid(
                    f"{self._path.name} has {kind} {sorted(found)}, the manifest lists {sorted(wanted)}",
                    remedy="convert the student again",
                )

    def close(self) -> None:
        """Frees the engine's memory."""
        self._closed = True
        for loaded in self._loaded.values():
            loaded.close()


class Student(msgspec.Struct, frozen=True, kw_only=True):
    """What the runner must know beside the graph itself.

    Attributes:
        inputs: The student's inputs, whose shapes name the dynamic axes.
        outputs: The student's outputs.
        axes: Dynamic axes by symbol.
        bare: There is no manifest, only a file.
        advice: What to do when no rung fits.
    """

    inputs: tuple[Tensor, ...] = ()
    outputs: tuple[Tensor, ...] = ()
    axes: dict[str, Axis] = {}
    bare: bool = False
    advice: str = ""


def merge(own: Sequence[Tensor], student: Sequence[Tensor]) -> tuple[Tensor, ...]:
    """The graph's tensors with the student's shapes, which name the symbols a file of fixed sizes has lost."""
    by_name = {tensor.name: tensor for tensor in student}
    merged = []
    for tensor in own:
        model = by_name.get(tensor.name)
        same_rank = model is not None and len(model.shape) == len(tensor.shape)
        merged.append(msgspec.structs.replace(tensor, shape=model.shape) if model and same_rank else tensor)
    return tuple(merged)


def fixed_sizes(wanted: Sequence[Tensor], there: Sequence[Tensor]) -> tuple[Signature, ...]:
    """The one rung of a file without signatures whose sizes are fixed where the student's are open; () when none is."""
    by_name = {tensor.name: tensor for tensor in there}
    sizes = {
        symbol: size
        for tensor in wanted
        if len(tensor.shape) == len(by_name[tensor.name].shape)
        for symbol, size in zip(tensor.shape, by_name[tensor.name].shape, strict=True)
        if isinstance(symbol, str) and isinstance(size, int)
    }
    return (Signature(name="", sizes=sizes),) if sizes else ()
