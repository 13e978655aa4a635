"""A student as the chain of its segments: the head up to a split point, the tail from there, or all of it with exits.

    image ──► seg0 ──► seg1 ──► seg2 ──► … ──► answer           Chain(bundle, "onnx.int8")
    └──── head ─────┘  └──────── tail ───────────┘
                    ▲ split point "layer1"
    Chain(bundle, "onnx.int8", stop="layer1").run(inputs)    -> what the tail needs
    Chain(bundle, "onnx.int8", start="layer1").run(tensors)  -> the answer

Head and tail together give, bit by bit, what the uncut graph gives on the same engine. Segments between which nobody
looks are run as one graph where the engine can (ONNX Runtime), so a cut costs nothing until it is used.
"""

from __future__ import annotations

import dataclasses
import difflib
import hashlib
import threading
from collections.abc import Iterator, Mapping, Sequence

import numpy as np

from edgekit_runtime import exits, ladder
from edgekit_runtime.bundle import Bundle
from edgekit_runtime.engines.base import Arrays
from edgekit_runtime.errors import UsageError
from edgekit_runtime.manifest import Exit, Graph, Manifest, OperatingPoint, Signature, SplitPoint, Tensor
from edgekit_runtime.opened import Files, Group
from edgekit_runtime.tensors import check

_MAX_KNOWN = 256


@dataclasses.dataclass(frozen=True)
class Answered:
    """What a chain with exits answered.

    Attributes:
        outputs: The full answer's name -> answers of all samples.
        exits: [samples] number of the exit each left at, in order of depth; the last is the full answer.
    """

    outputs: Arrays
    exits: np.ndarray


def split_points(manifest: Manifest, graph: str) -> tuple[SplitPoint, ...]:
    """The split points of a full graph, in order of depth."""
    return tuple(sorted((p for p in manifest.split_points if p.of == graph), key=lambda point: len(point.before)))


def find_split_point(manifest: Manifest, graph: str, name: str) -> SplitPoint:
    """The split point of a full graph by its id or by its place.

    Raises:
        UsageError: There is none (names the nearest).
    """
    points = split_points(manifest, graph)
    for point in points:
        if name in (point.id, point.place):
            return point
    places = [point.place for point in points]
    near = difflib.get_close_matches(name, [*places, *(point.id for point in points)], n=3, cutoff=0.4)
    hint = f"nearest: {', '.join(near)}; " if near else ""
    there = f"it has: {', '.join(places)}" if places else "it was converted without: --split-points auto cuts it"
    raise UsageError(f"{graph} has no split point {name!r}", remedy=hint + there)


def exits_of(manifest: Manifest, graph: str) -> tuple[Exit, ...]:
    """The exits of a full graph in order of depth, the full answer last."""
    depth = {point.id: len(point.before) for point in manifest.split_points}
    found = [item for item in manifest.exits if item.of == graph]
    return tuple(sorted(found, key=lambda item: depth.get(item.after, len(manifest.graphs) + 1)))


def chain_of(manifest: Manifest, graph: str) -> tuple[tuple[str, ...], str]:
    """The segments and exit heads of a full graph in the order they run, and the sha256 over their files' sha256.

    A certificate holds for these files and no others.
    """
    by_id = {item.id: item for item in manifest.graphs}
    points = split_points(manifest, graph)
    heads = {len(p.before): e.graph for e in exits_of(manifest, graph) for p in points if p.id == e.after and e.graph}
    ids: list[str] = []
    for number, segment in enumerate((*points[0].before, *points[0].after) if points else (), start=1):
        ids += [segment, *([heads[number]] if number in heads else [])]
    digest = hashlib.sha256("".join(f"{name} {by_id[name].sha256}\n" for name in ids).encode())
    return tuple(ids), digest.hexdigest()


class Chain:
    """Consecutive segments of one full graph, open on one engine. A context manager; safe from several threads.

    Args:
        bundle: The bundle, its files checked.
        graph: Id of a full graph, such as `onnx.int8`.
        start: Split point (id or place) to begin behind; None: at the inputs.
        stop: Split point to end at; None: at the answer.
        engine: Name of an engine; empty: the first installed one that runs the format.
        threads: Threads inside one operator.

    Attributes:
        inputs: What `run` takes. Behind a split point: the tensors that cross, and the inputs that the tail needs.
        outputs: What `run` gives. At a split point: everything that the tail takes.
        exits: Exits on the way, in order of depth, the full answer last; empty where the chain is no whole student.

    Raises:
        UsageError: No such graph or split point, or `stop` does not lie behind `start`.
        EngineMissing: No engine is installed for the format.
    """

    def __init__(
        self,
        bundle: Bundle,
        graph: str,
        start: str | None = None,
        stop: str | None = None,
        *,
        engine: str = "",
        threads: int = 1,
    ) -> None:
        manifest = bundle.manifest
        self.graph = bundle.graph(graph)
        if self.graph.role != "full":
            raise UsageError(f"{graph} is no full graph", remedy=f"name the graph it is a piece of: {self.graph.of}")
        begin = find_split_point(manifest, graph, start) if start else None
        end = find_split_point(manifest, graph, stop) if stop else None
        self._axes = {axis.symbol: axis for axis in manifest.axes}
        points = split_points(manifest, graph)
        segments = (*points[0].before, *points[0].after) if points else (graph,)
        first, last = len(begin.before) if begin else 0, len(end.before) if end else len(segments)
        if first >= last:
            raise UsageError(f"stop {stop!r} does not lie behind start {start!r}", remedy="exchange them")
        self._student = {tensor.name: tensor for tensor in (*self.graph.inputs, *manifest.inputs)}
        self.inputs = self._wire(begin) if begin else tuple(self._named(tensor.name) for tensor in self.graph.inputs)
        whole = first == 0 and last == len(segments)
        self._pieces = [bundle.graph(name) for name in segments[first:last]]
        self.exits = exits_of(manifest, graph) if whole and len(segments) > 1 else ()
        made = {tensor.name: tensor for piece in self._pieces for tensor in piece.outputs}
        self.outputs = (
            self._wire(end) if end else tuple(_shaped(t, manifest.outputs) for t in self._answers(made, manifest))
        )
        self._files = Files(bundle, self.graph, engine, threads)
        self._rungs = self._pieces[0].signatures
        pieces = [self.graph] if whole and not self.exits else self._pieces
        self._all = Group(self._files, pieces, {tensor.name for tensor in self.outputs})
        self._points = {point.id: len(point.before) for point in points}
        self._heads = {item.graph: bundle.graph(item.graph) for item in self.exits if item.graph}
        self._chain = chain_of(manifest, graph)
        self._known: dict[tuple[object, ...], ladder.Plan | None] = {}
        self._groups: list[Group] | None = None
        self._lock = threading.Lock()

    def run(self, tensors: Mapping[str, object]) -> Arrays:
        """Runs one request, without looking at exits.

        Raises:
            InputMismatch: Names, dtypes or shapes do not fit.
            Refused: The engine failed.
        """
        arrays, chosen = self._prepare(tensors)
        if chosen is None:
            return self._pick(self._all.run(arrays, 0), arrays)
        number = self._number(chosen.rung)
        if chosen.exact:
            return self._pick(self._all.run(arrays, number), arrays)
        return ladder.run(
            chosen,
            lambda given: self._pick(self._all.run(given, number), given),
            self.inputs,
            self.outputs,
            arrays,
        )

    def infer(self, tensors: Mapping[str, object], point: OperatingPoint | Sequence[float]) -> Answered:
        """Runs one request; samples that an exit is sure of leave there, the rest go on.

        Args:
            tensors: As `run` takes them.
            point: An operating point of this graph, or one threshold an exit (the full answer's is not looked at).

        Raises:
            UsageError: The chain has no exits, or the operating point belongs to another chain.
        """
        thresholds, mixes, rule = self._thresholds(point)
        arrays, chosen = self._prepare(tensors)
        if chosen is None or chosen.exact:
            steps = self._steps(arrays, 0 if chosen is None else self._number(chosen.rung), None)
            early = exits.answer_early(steps, thresholds, rule=rule, mixes=mixes)
            return Answered({self.exits[-1].output: early.answers}, early.exits)
        found = [
            exits.answer_early(steps, thresholds, rule=rule, mixes=mixes) for steps in self._passes((arrays, chosen))
        ]
        answers = np.concatenate([early.answers for early in found])
        return Answered({self.exits[-1].output: answers}, np.concatenate([early.exits for early in found]))

    def scores(self, tensors: Mapping[str, object]) -> list[np.ndarray]:
        """What every exit says of every sample: logits [samples, ..., classes] of each, the full answer last."""
        found = [[step(None) for step in steps] for steps in self._passes(self._prepare(tensors))]
        return [np.concatenate(parts) for parts in zip(*found, strict=True)]

    def _passes(self, request: tuple[Arrays, ladder.Plan | None]) -> Iterator[list[exits.Step]]:
        """The steps of each slice of a request: one slice where the graphs take it as it is."""
        arrays, chosen = request
        if chosen is None or chosen.exact:
            yield self._steps(arrays, 0 if chosen is None else self._number(chosen.rung), None)
            return
        for piece, padded in ladder.pieces(chosen, self.inputs, arrays):
            yield self._steps(padded, self._number(chosen.rung), ladder.sizes_of(self.inputs, piece))

    def _steps(self, values: Arrays, rung: int, sizes: dict[str, int] | None) -> list[exits.Step]:
        """One step an exit: the segments up to it and its head, run on what the steps before have left in `values`."""

        def step(group: Group, output: str) -> exits.Step:
            def run(keep: np.ndarray | None) -> np.ndarray:
                if keep is not None:
                    for name in list(values):
                        values[name] = self._rows(name, values[name], keep)
                values.update(group.run(values, rung))
                made = values[output]
                return made if sizes is None else ladder.crop(made, self._shape_of(output), sizes)

            return run

        return [step(group, item.output) for group, item in zip(self._opened(), self.exits, strict=True)]

    def _rows(self, name: str, array: np.ndarray, keep: np.ndarray) -> np.ndarray:
        shape = self._shape_of(name)
        batch = [axis for axis, symbol in enumerate(shape) if self._is_batch(symbol)]
        return np.take(array, keep, axis=batch[0]) if batch else array

    def _is_batch(self, symbol: int | str) -> bool:
        return isinstance(symbol, str) and symbol in self._axes and self._axes[symbol].role == "batch"

    def _shape_of(self, name: str) -> tuple[int | str, ...]:
        if name in self._student:
            return self._student[name].shape
        for graph in (*self._pieces, *self._heads.values()):
            for tensor in (*graph.outputs, *graph.inputs):
                if tensor.name == name:
                    return tensor.shape
        return ()

    def _opened(self) -> list[Group]:
        """The segments between exits with the head of each, opened at the first request that uses them."""
        if not self.exits:
            raise UsageError(
                f"{self.graph.id} has no exits here",
                remedy="convert with --exits A,B,C (outputs in order of depth), and open the whole chain",
            )
        if self._groups is not None:
            return self._groups
        with self._lock:
            if self._groups is None:
                parts: list[list[Graph]] = []
                at = 0
                for item in self.exits:
                    upto = self._points.get(item.after, len(self._pieces))
                    parts.append(self._pieces[at:upto] + ([self._heads[item.graph]] if item.graph else []))
                    at = upto
                self._groups = []
                for number, part in enumerate(parts):
                    later = {t.name for graphs in parts[number + 1 :] for graph in graphs for t in graph.inputs}
                    self._groups.append(Group(self._files, part, later | {self.exits[number].output}))
            return self._groups

    def _thresholds(
        self, point: OperatingPoint | Sequence[float]
    ) -> tuple[Sequence[float], Sequence[Sequence[float]], str]:
        if not self.exits:
            self._opened()
        if not isinstance(point, OperatingPoint):
            return point, (), self.exits[0].score_rule
        ids, digest = self._chain
        if point.of != self.graph.id or point.graph_chain != ids or point.chain_sha256 not in ("", digest):
            raise UsageError(
                f"operating point {point.id} was certified for other graphs than those of this {self.graph.id}",
                remedy="certify this bundle: edgekit calibrate-exits BUNDLE --data FILE.npz -o NEW.edge",
            )
        return point.thresholds, point.mixes, point.score_rule

    def _prepare(self, tensors: Mapping[str, object]) -> tuple[Arrays, ladder.Plan | None]:
        """The request checked, and how it runs. Names, dtypes and shapes seen before are not checked again."""
        key = tuple([(name, getattr(v, "dtype", None), getattr(v, "shape", None)) for name, v in tensors.items()])
        if key in self._known:
            return dict(tensors), self._known[key]  # type: ignore[arg-type]
        arrays, sizes = check(self.inputs, self._axes, tensors)
        rungs = self._rungs or ladder.slices(self._axes, sizes)
        chosen = ladder.plan(rungs, self._axes, sizes) if rungs else None
        if all(arrays[name] is value for name, value in tensors.items()):
            if len(self._known) >= _MAX_KNOWN:
                self._known.clear()
            self._known[key] = chosen
        return arrays, chosen

    def _number(self, rung: Signature) -> int:
        return next((i for i, own in enumerate(self._rungs) if own.name == rung.name), 0)

    def _pick(self, values: Arrays, given: Mapping[str, np.ndarray]) -> Arrays:
        return {t.name: values[t.name] if t.name in values else given[t.name] for t in self.outputs}

    def _wire(self, point: SplitPoint) -> tuple[Tensor, ...]:
        crossing = tuple(Tensor(name=t.name, dtype=t.dtype, shape=t.shape) for t in point.tensors)
        return (*crossing, *(self._named(name) for name in point.tail_inputs))

    def _named(self, name: str) -> Tensor:
        own = next((tensor for tensor in self.graph.inputs if tensor.name == name), self._student[name])
        return _shaped(own, tuple(self._student.values()))

    def _answers(self, made: Mapping[str, Tensor], manifest: Manifest) -> tuple[Tensor, ...]:
        return tuple(made[tensor.name] for tensor in manifest.outputs if tensor.name in made)

    def close(self) -> None:
        """Frees the engine's memory."""
        self._files.close()

    def __enter__(self) -> Chain:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _shaped(tensor: Tensor, student: Sequence[Tensor]) -> Tensor:
    """A tensor of a file with the student's shape, which names the symbols that a file of fixed sizes has lost."""
    model = next((t for t in student if t.name == tensor.name and len(t.shape) == len(tensor.shape)), None)
    return Tensor(name=tensor.name, dtype=tensor.dtype, shape=model.shape if model else tensor.shape)
