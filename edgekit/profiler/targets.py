"""What is measured: the graphs behind a path, each with the engines that run it and the inputs it takes."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from edgekit.profiler import inputs
from edgekit_runtime import decoding, engines, ladder
from edgekit_runtime.bundle import Bundle, open_bundle
from edgekit_runtime.chain import Chain
from edgekit_runtime.errors import EngineMissing, InputMismatch, Refused, UsageError
from edgekit_runtime.manifest import Graph, Manifest, Tensor
from edgekit_runtime.paths import sha256
from edgekit_runtime.tensors import batch_place

SUFFIXES = {".onnx": "onnx", ".tflite": "tflite"}


@dataclasses.dataclass(frozen=True)
class Target:
    """One graph file, from a bundle or bare.

    Attributes:
        label: How messages call it.
        graph: Graph id in the bundle, or the file's name.
        path: The file.
        format: onnx or tflite.
        precision: As the manifest says; empty for a bare file (found out by tracing it).
        sha256: Hash of the file.
        file_bytes: Bytes on disk, external data of a bare file included.
        bundle: The bundle it is from; None for a bare file.
    """

    label: str
    graph: str
    path: Path
    format: str
    precision: str
    sha256: str
    file_bytes: int
    bundle: Bundle | None = dataclasses.field(default=None, repr=False)

    def entry(self) -> Graph | None:
        """The graph's entry in the manifest; None for a bare file."""
        return self.bundle.graph(self.graph) if self.bundle else None


@dataclasses.dataclass(frozen=True)
class Job:
    """One target on one engine with one number of threads, one batch size and one length.

    Attributes:
        length: Size of the bundle's length axes; None: that of the golden inputs.
        sizes: Sizes of dynamic axes of a bare file, by symbol.
        given: Inputs to run on instead of the bundle's golden ones.
    """

    target: Target
    engine: str
    threads: int = 1
    batch: int = 1
    length: int | None = None
    sizes: Mapping[str, int] = dataclasses.field(default_factory=dict)
    given: Mapping[str, np.ndarray] = dataclasses.field(default_factory=dict, repr=False)

    @property
    def label(self) -> str:
        """For progress and messages."""
        batch = f", batch {self.batch}" if self.batch > 1 else ""
        length = f", length {self.length}" if self.length else ""
        return f"{self.target.label} on {self.engine}, {self.threads} thread{'s' * (self.threads > 1)}{batch}{length}"

    @property
    def on_card(self) -> bool:
        """It runs on a graphics card."""
        return self.engine in engines.ON_REQUEST

    @property
    def short(self) -> str:
        """For a progress bar: what tells it from the other jobs of a plan."""
        sizes = f" b{self.batch}" * (self.batch > 1) + (f" l{self.length}" if self.length else "")
        return f"{self.target.graph} {self.engine} {self.threads}t{sizes}"

    @property
    def signature(self) -> str:
        """The rung of a ladder that the runtime would take for the golden inputs at this batch size; "" without one."""
        entry, bundle = self.target.entry(), self.target.bundle
        if entry is None or bundle is None or not entry.signatures:
            return ""
        axes = {axis.symbol: axis for axis in bundle.manifest.axes}
        batches = {symbol for symbol, axis in axes.items() if axis.role == "batch"}
        whole = [
            rung
            for rung in entry.signatures
            if all(rung.sizes.get(symbol, self.batch) == self.batch for symbol in batches)
        ]
        return ladder.plan(whole or entry.signatures, axes, _sizes_needed(bundle, self.batch, self.length)).rung.name

    def inputs(self, declared: Sequence[Any], attempt: int = 0) -> inputs.Arrays | None:
        """The arrays to run on.

        Args:
            declared: The opened graph's inputs, as decoded JSON.
            attempt: 0 first; a bare file that refuses sizes of 1 on its unnamed axes is tried with larger ones.

        Returns:
            Arrays named as the file's inputs; None when there is nothing more to try.
        """
        tensors = tuple(msgspec.convert(item, Tensor) for item in declared)
        bundle = self.target.bundle
        golden = dict(self.given) or (bundle.golden_inputs() if bundle else {})
        if golden:
            if attempt:
                return None
            entry = self.target.entry()
            names = {tensor.name for tensor in entry.inputs} if entry else set()
            if bundle and self.length:
                golden = stretched(golden, bundle.manifest, self.length)
            if bundle and entry and names - golden.keys():
                golden = handed_over(bundle, entry, golden, self.engine)
            chosen = {name: array for name, array in golden.items() if name in names} or golden
            places = None if bundle is None else _places(bundle, entry)
            return inputs.fit(chosen, _limited(tensors, self.batch), batch=self.batch, places=places)
        unnamed = any(
            isinstance(size, str) and size not in self.sizes for tensor in tensors for size in tensor.shape[1:]
        )
        sizes = (1, 64, 512) if unnamed else (1,)
        if attempt >= len(sizes):
            return None
        limited = _limited(tensors, self.batch, self.sizes)
        return inputs.synthetic(limited, self.sizes, batch=self.batch, default=sizes[attempt])


def resolve(path: str | Path, graph: str | None = None) -> list[Target]:
    """The graphs behind a path.

    Args:
        path: A bundle (folder or packed file), or an `.onnx` or `.tflite` file.
        graph: One graph of a bundle; None: all its full graphs.

    Raises:
        Refused: Nothing is there, or it is neither.
        UsageError: There is no such graph.
    """
    path = Path(path)
    if path.suffix.lower() in SUFFIXES and not path.is_dir():
        return [_bare(path, graph)]
    bundle = open_bundle(path)
    bundle.check_files()
    if graph:
        chosen = [bundle.graph(graph)]
    else:
        chosen = [entry for entry in bundle.manifest.graphs if entry.role == "full"] or list(bundle.manifest.graphs)
    return [of_graph(bundle, entry, path.name) for entry in chosen]


def of_graph(bundle: Bundle, entry: Graph, name: str = "") -> Target:
    """One graph of an open bundle, whole or a piece.

    Args:
        bundle: Opened.
        entry: Of its manifest.
        name: The bundle's, in messages; empty: its folder's.
    """
    return Target(
        label=f"{name or bundle.root.name}:{entry.id}",
        graph=entry.id,
        path=bundle.graph_path(entry).resolve(),
        format=entry.format,
        precision=entry.precision,
        sha256=entry.sha256,
        file_bytes=entry.bytes,
        bundle=bundle,
    )


def split_spec(spec: str | Path) -> tuple[Path, str | None]:
    """`PATH` or `PATH:GRAPH` as path and graph id. A path that exists is taken as it is."""
    if isinstance(spec, Path) or Path(spec).exists() or ":" not in spec:
        return Path(spec), None
    path, _, graph = spec.rpartition(":")
    return (Path(path), graph) if path and graph else (Path(spec), None)


def plan(
    targets: Sequence[Target],
    *,
    engine: str | None = None,
    threads: Sequence[int] = (1,),
    batch: Sequence[int] = (1,),
    length: Sequence[int] = (),
    sizes: Mapping[str, int] | None = None,
) -> tuple[list[Job], list[str]]:
    """The jobs for some targets, and remarks on what was left out.

    Args:
        targets: What to measure.
        engine: Engine name; None: the first installed one for each format.
        threads: Numbers of threads to try.
        batch: Batch sizes to try.
        length: Sizes of a bundle's length axes to try; empty: that of its golden inputs.
        sizes: Sizes of a bare file's dynamic axes, by symbol.

    Raises:
        UsageError: Impossible numbers; an unknown engine, or one that runs none of the targets.
        EngineMissing: No installed engine runs any of the targets.
    """
    for name, values in (("--threads", threads), ("--batch", batch), ("--length", length or (1,))):
        if not values or any(value < 1 for value in values):
            raise UsageError(f"{name} takes positive numbers, got {list(values)}", remedy=f"{name} 1,4")
    jobs, remarks = [], []
    for target in targets:
        chosen = _engine_for(target, engine)
        if chosen is None:
            remarks.append(f"{target.label}: no engine for {target.format} ({engines.pip_lines({target.format})})")
            continue
        for size in dict.fromkeys(batch):
            if size > 1 and not _takes_batch(target, size):
                remarks.append(f"{target.label} has a fixed batch: batch {size} left out")
                continue
            lengths, left = _lengths(target, length)
            remarks += [remark for remark in left if remark not in remarks]
            jobs += [
                Job(target, chosen, count, size, each, sizes or {})
                for each in lengths
                for count in dict.fromkeys(threads)
            ]
    if jobs:
        return jobs, remarks
    if length and remarks and all("length" in remark for remark in remarks):
        raise UsageError("; ".join(remarks), remedy="leave --length out, or name a size within the range")
    formats = {target.format for target in targets}
    if engine is not None and not any("fixed batch" in remark for remark in remarks):
        raise UsageError(
            f"the engine {engine} runs {', '.join(engines.formats(engine))}, not {' or '.join(sorted(formats))}",
            remedy=f"engines here: {', '.join(engines.available()) or 'none'}",
        )
    if any("fixed batch" in remark for remark in remarks):
        raise UsageError("; ".join(remarks), remedy="leave --batch out, or convert with --dynamic on the batch axis")
    raise EngineMissing(f"no installed engine runs {' or '.join(sorted(formats))}", remedy=engines.pip_lines(formats))


def _engine_for(target: Target, engine: str | None) -> str | None:
    if engine is not None:
        if engine not in engines.names():
            engines.get(engine)  # raises, naming the engines there are
        if engine in engines.ON_REQUEST:
            engines.get(engine)  # raises, saying what is missing
        elif engine not in engines.available():
            raise EngineMissing(f"the engine {engine} is not installed", remedy=engines.pip_lines({target.format}))
        return engine if target.format in engines.formats(engine) else None
    installed = engines.for_format(target.format)
    return installed[0] if installed else None


def _takes_batch(target: Target, batch: int) -> bool:
    entry = target.entry()
    if entry is None or target.bundle is None:
        return True  # a bare file is asked when it is opened
    symbols = {axis.symbol for axis in target.bundle.manifest.axes if axis.role == "batch"}
    if entry.signatures:
        return any(rung.sizes.get(symbol, 1) >= batch for rung in entry.signatures for symbol in symbols)
    return any(size in symbols for tensor in entry.inputs for size in tensor.shape)


def _lengths(target: Target, wanted: Sequence[int]) -> tuple[list[int | None], list[str]]:
    """The lengths of `wanted` that a target takes, and why others are left out."""
    if not wanted:
        return [None], []
    axes = [] if target.bundle is None else [axis for axis in target.bundle.manifest.axes if axis.role == "length"]
    entry = target.entry()
    if not axes or entry is None:
        how = "; for a bare file say --size AXIS=N" if target.bundle is None else ""
        return [], [f"{target.label} has no dynamic length{how}"]
    low, high = max(axis.min for axis in axes), min(axis.max for axis in axes)
    for rung in entry.signatures[-1:]:  # the longest rung ends the range of a ladder
        high = min([high, *(rung.sizes[axis.symbol] for axis in axes if axis.symbol in rung.sizes)])
    fitting: list[int | None] = [size for size in dict.fromkeys(wanted) if low <= size <= high]
    outside = [size for size in wanted if not low <= size <= high]
    return fitting, [f"{target.label} takes lengths {low} to {high}: {size} left out" for size in outside]


def stretched(arrays: Mapping[str, np.ndarray], manifest: Manifest, length: int) -> dict[str, np.ndarray]:
    """Golden inputs cut or repeated to a length along every axis of the role `length`."""
    symbols = {axis.symbol for axis in manifest.axes if axis.role == "length"}
    declared = {tensor.name: tensor.shape for tensor in manifest.inputs}
    made = {}
    for name, array in arrays.items():
        for axis, symbol in enumerate(declared.get(name, ())):
            if symbol in symbols and array.shape[axis]:
                array = np.take(array, np.arange(length) % array.shape[axis], axis=axis)
        made[name] = np.ascontiguousarray(array)
    return made


def handed_over(bundle: Bundle, entry: Graph, golden: inputs.Arrays, engine: str) -> inputs.Arrays:
    """What a piece of a cut graph, or a decoder's first step, takes when the pieces before it run on the golden inputs.

    Args:
        bundle: Opened.
        entry: The piece, or the step of a decoder; for any other graph the golden inputs are given back.
        golden: By input name of the student.
        engine: Runs the pieces before.

    Returns:
        By input name of the piece, in its order.

    Raises:
        Refused: The engine failed.
    """
    after = next((item.after for item in bundle.manifest.exits if item.graph == entry.id), None)
    if entry.role == "decode_step":
        with closing(decoding.open_loop(bundle, entry, engine, 1)) as loop:
            given = {tensor.name: golden[tensor.name] for tensor in bundle.manifest.inputs}
            return loop.first(given)
    points = [
        point
        for point in bundle.manifest.split_points
        if point.of == entry.of and (point.id == after or point.after[:1] == (entry.id,))
    ]
    if not points:
        return golden
    with Chain(bundle, entry.of, stop=points[0].id, engine=engine) as head:
        given = inputs.fit({tensor.name: golden[tensor.name] for tensor in head.inputs}, head.inputs)
        found = {**golden, **head.run(given)}
    return {tensor.name: found[tensor.name] for tensor in entry.inputs}


def _places(bundle: Bundle, entry: Graph | None) -> dict[str, int | None]:
    """Which axis of each input is the batch: none in a graph network, whose first axis counts nodes."""
    tensors = (*bundle.manifest.inputs, *(entry.inputs if entry else ()))
    return {tensor.name: batch_place(tensor, bundle.manifest.axes) for tensor in tensors}


def _sizes_needed(bundle: Bundle, batch: int, length: int | None = None) -> dict[str, int]:
    golden = bundle.golden_inputs()
    roles = {axis.symbol: axis.role for axis in bundle.manifest.axes}
    needed: dict[str, int] = {}
    for tensor in bundle.manifest.inputs:
        shape = golden[tensor.name].shape if tensor.name in golden else ()
        for symbol, size in zip(tensor.shape, shape, strict=False):
            if isinstance(symbol, str):
                wanted = {"batch": batch, "length": length}.get(roles.get(symbol, "other"))
                needed[symbol] = wanted or int(size)
    return needed


def _limited(tensors: Sequence[Tensor], batch: int, sizes: Mapping[str, int] | None = None) -> tuple[Tensor, ...]:
    """Checks that a batch above one can be had."""
    if batch > 1 and not any(tensor.shape and isinstance(tensor.shape[0], str) for tensor in tensors):
        fixed = {tensor.shape[0] for tensor in tensors if tensor.shape}
        if fixed != {batch}:
            raise InputMismatch(
                f"the graph has a fixed first axis of {sorted(map(str, fixed))}; batch {batch} was asked"
            )
    known = {size for tensor in tensors for size in tensor.shape if isinstance(size, str)}
    unknown = set(sizes or {}) - known
    if unknown:
        raise UsageError(
            f"the graph has no dynamic axis called {', '.join(sorted(unknown))}",
            remedy=f"it has: {', '.join(sorted(known)) or 'none'}",
        )
    return tuple(tensors)


def _bare(path: Path, graph: str | None) -> Target:
    if graph:
        raise UsageError(
            f"{path.name} is a bare file: it has no graph {graph!r} to choose", remedy="leave the graph out"
        )
    if not path.is_file():
        raise Refused(f"{path} does not exist", remedy="check the path; a bundle, an .onnx or a .tflite file is needed")
    weights = path.with_name(path.name + ".data")
    size = path.stat().st_size + (weights.stat().st_size if weights.is_file() else 0)
    return Target(
        label=path.name,
        graph=path.name,
        path=path.resolve(),
        format=SUFFIXES[path.suffix.lower()],
        precision="",
        sha256=sha256(path),
        file_bytes=size,
    )


def shapes(arrays: Mapping[str, np.ndarray]) -> dict[str, tuple[int, ...]]:
    """Shape of each array."""
    return {name: tuple(int(size) for size in array.shape) for name, array in arrays.items()}
