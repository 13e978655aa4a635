"""Opening a bundle (or a bare graph file) and running requests on it."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, overload

import numpy as np

from edgekit_runtime import engines as registry
from edgekit_runtime import selection
from edgekit_runtime.bundle import Bundle, open_bundle
from edgekit_runtime.engines.base import Arrays, Engine, LoadedGraph
from edgekit_runtime.errors import EngineMissing, Refused, UsageError
from edgekit_runtime.machine import Machine, this_machine
from edgekit_runtime.manifest import Format, Graph, OperatingPoint, Precision, Tensor
from edgekit_runtime.measurement import Energy, Environment, Latency, Measurement, Memory, Verdict
from edgekit_runtime.paths import sha256
from edgekit_runtime.runner import Runner, Student
from edgekit_runtime.selection import Choice, Engines, Key, Reason, Wanted

if TYPE_CHECKING:
    from edgekit_runtime.decoding import Loop
    from edgekit_runtime.preprocess import Answer, Preprocessor
    from edgekit_runtime.remote.session import AdaptiveSession
    from edgekit_runtime.stream import Stream
    from edgekit_runtime.temporal import EarlyStream, Ending

    Runners = dict[Key, Runner | Loop]

_SUFFIXES: dict[str, Format] = {".onnx": "onnx", ".tflite": "tflite"}


class Session:
    """A graph ready for requests. A context manager; safe to call from several threads.

    Attributes:
        bundle: The bundle; None for a bare file.
        graph: The graph in use.
        engine_name: The engine in use.
        threads: Threads inside one operator.
        why: Reasons for the choice of graph and engine, as data; `why.explain()` in words.
    """

    def __init__(self, runner: Runner | Loop, choice: Choice, bundle: Bundle | None) -> None:
        self.bundle = bundle
        self.graph: Graph = runner.graph
        self.engine_name: str = choice.engine
        self.threads: int = choice.threads
        self.why: Choice = choice
        self.run = runner.run  # bound here: one call less on the way of every request
        self._runner = runner
        self._preprocessor: Preprocessor | None = None

    @property
    def inputs(self) -> tuple[Tensor, ...]:
        """What `run` takes: name, dtype and shape of each tensor."""
        return self._runner.inputs

    @property
    def outputs(self) -> tuple[Tensor, ...]:
        """What `run` gives."""
        return self._runner.outputs

    @overload
    def stream(
        self, *, fixed: Mapping[str, np.ndarray] | None = ..., initial: Mapping[str, np.ndarray] | None = ...
    ) -> Stream: ...

    @overload
    def stream(
        self,
        *,
        fixed: Mapping[str, np.ndarray] | None = ...,
        initial: Mapping[str, np.ndarray] | None = ...,
        until: OperatingPoint | Ending | str,
    ) -> EarlyStream: ...

    def stream(
        self,
        *,
        fixed: Mapping[str, np.ndarray] | None = None,
        initial: Mapping[str, np.ndarray] | None = None,
        until: OperatingPoint | Ending | str | None = None,
    ) -> Stream | EarlyStream:
        """Begins a sequence of steps whose state is carried by the runtime.

        Args:
            fixed: Inputs that are the same in every step, for example a sampling rate.
            initial: States before the first step by input name; others are zeros.
            until: Each sequence ends at the step at which it is sure: an operating point of the bundle that
                `calibrate-exits --steps` certified for this graph (or its id), or thresholds of your own (`Ending`).

        Raises:
            UsageError: The bundle tells no states, a name is none, or the operating point is not of this graph.
        """
        from edgekit_runtime.stream import Stream
        from edgekit_runtime.temporal import EarlyStream, Ending, ending_of

        states = self.bundle.manifest.states if self.bundle is not None else ()
        if not states:
            raise UsageError(
                "this student has no state to carry from step to step",
                remedy="convert it with --state INPUT=OUTPUT for each of its states",
            )
        plain = Stream(self.run, self.inputs, states, fixed=fixed, initial=initial)
        if until is None:
            return plain
        assert self.bundle is not None
        manifest = self.bundle.manifest
        batch = next((axis.symbol for axis in manifest.axes if axis.role == "batch"), "")
        ending = until if isinstance(until, Ending) else ending_of(manifest, self.graph, until)
        return EarlyStream(plain, self.inputs, batch, ending)

    def encode(self, **items: object) -> Arrays:
        """Turns raw items into inputs with the bundle's own tokenizer and preprocessing.

        Args:
            items: `text=`, `image=`, `audio=` or `tensor=` (by kind), or names of inputs. A text, a path, an array, or
                a list of them; a list makes a batch.

        Raises:
            Refused: The bundle does not say how, or an item cannot be read.
        """
        return self._preparation().encode(items)

    def decode(self, outputs: Mapping[str, np.ndarray]) -> list[Answer]:
        """Names the answer of each sample with the bundle's labels.

        Raises:
            Refused: The bundle has no labels, or no output has as many scores.
        """
        return self._preparation().decode(outputs)

    def _preparation(self) -> Preprocessor:
        if self._preprocessor is None:
            from edgekit_runtime.preprocess import Preprocessor

            if self.bundle is None:
                raise UsageError(
                    "a bare file has no tokenizer, preprocessing or labels",
                    remedy="convert it: edgekit convert FILE -o NAME.edge",
                )
            self._preprocessor = Preprocessor.of(self.bundle, self._runner.inputs)
        return self._preprocessor

    def close(self) -> None:
        """Frees the engine's memory and, for a packed bundle, its temporary folder."""
        self._runner.close()
        if self.bundle is not None:
            self.bundle.close()

    def __enter__(self) -> Session:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


@overload
def open(
    path: str | os.PathLike[str],
    graph: str | None = ...,
    engine: str | None = ...,
    threads: int | None = ...,
    keep: bool = ...,
    target: str | None = ...,
) -> Session: ...


@overload
def open(
    path: str | os.PathLike[str],
    graph: str | None = ...,
    engine: str | None = ...,
    threads: int | None = ...,
    keep: bool = ...,
    target: str | None = ...,
    *,
    server: str,
    **remote: Any,
) -> AdaptiveSession: ...


def open(
    path: str | os.PathLike[str],
    graph: str | None = None,
    engine: str | None = None,
    threads: int | None = None,
    keep: bool = False,
    target: str | None = None,
    *,
    server: str | None = None,
    **remote: Any,
) -> Session | AdaptiveSession:
    """Opens a bundle, or a bare `.onnx` or `.tflite` file, on the best graph and engine for this machine.

    Args:
        path: Folder, packed file, or graph file.
        graph: Id of a graph; None: the fastest whose quality gate passed.
        engine: Name of an engine; None: the fastest installed one.
        threads: Threads inside one operator. None: as the measurement that decided, else 1.
        keep: When a short measurement had to decide (at most 1.5 s), keep it in the bundle for the next time.
        target: Name of a device profile: only graphs made for it (or for all).
        server: `grpc://HOST:PORT` or `grpcs://HOST:PORT`: the session then has `infer`, which chooses for each request.
        remote: With a server: `policy=`, `ca=`, `cert=`, `key=`, `token=`, `log=`, `ours=`, `first=`
            (`edgekit_runtime.remote.connect`).

    Raises:
        Refused: The file cannot be taken; BundleInvalid, EngineMissing are kinds of it.
        UsageError: No such graph or engine.
    """
    if server is not None:
        from edgekit_runtime.remote import connect

        return connect(open(path, graph, engine, threads, keep, target), server, **remote)
    if remote:
        raise UsageError(f"{', '.join(remote)} without a server", remedy="server='grpcs://HOST:8001'")
    path = Path(path)
    if threads is not None and threads < 1:
        raise UsageError(f"threads is {threads}", remedy="give 1 or more, or None")
    wanted = Wanted(graph or "", engine or "", target or "", threads)
    if path.suffix in _SUFFIXES and not path.is_dir():
        return _open_file(path, wanted)
    bundle = open_bundle(path)
    try:
        bundle.check_files()
        return _open_bundle(bundle, wanted, keep)
    except BaseException:
        bundle.close()
        raise


def _open_file(path: Path, wanted: Wanted) -> Session:
    if wanted.graph:
        raise UsageError(f"{path.name} is a single graph, {wanted.graph!r} was asked for", remedy="leave graph= out")
    if not path.is_file():
        raise Refused(f"{path} does not exist", remedy="check the path")
    graph_format = _SUFFIXES[path.suffix]
    known = registry.for_format(graph_format)
    if wanted.engine:
        engine = registry.get(wanted.engine)
        if graph_format not in engine.formats:
            raise UsageError(
                f"{wanted.engine} does not run {path.suffix} files", remedy=f"installed: {', '.join(known)}"
            )
    elif known:
        engine = registry.get(known[0])
    else:
        raise EngineMissing(
            f"no engine is installed that runs {path.suffix} files", remedy=registry.pip_lines({graph_format})
        )
    threads = wanted.threads or 1
    loaded = engine.load(path, threads=threads)
    graph = bare_graph(path, engine, loaded)
    choice = Choice(path.name, engine.name, threads, "only", (Reason(path.name, engine.name, "chosen", "a bare file"),))
    student = Student(bare=True)
    return Session(Runner(graph, engine, path, threads=threads, student=student, loaded=loaded), choice, None)


def bare_graph(path: Path, engine: Engine, loaded: LoadedGraph) -> Graph:
    """Describes a file that has no manifest; its tensors are as the engine reads them.

    The precision is the name of the border's element type where that is int8 or fp16, else fp32: what lies inside a
    file tells `engine.trace`.
    """
    dtypes = {tensor.dtype for tensor in loaded.inputs}
    precision: Precision = "int8" if dtypes & {"int8", "uint8"} else "fp16" if "float16" in dtypes else "fp32"
    return Graph(
        id=path.name,
        format=_SUFFIXES[path.suffix],
        precision=precision,
        path=path.name,
        bytes=path.stat().st_size,
        sha256=sha256(path),
        inputs=loaded.inputs,
        outputs=loaded.outputs,
        engine=engine.name,
        min_engine_version="",
    )


def _open_bundle(bundle: Bundle, wanted: Wanted, keep: bool) -> Session:
    machine = this_machine()
    choice = selection.choose_graph(bundle.manifest, bundle.measurements(), _installed(wanted), machine, wanted)
    runners: Runners = {}
    if choice.undecided:
        choice = _measure(bundle, choice, machine, runners, keep)
    key = (choice.graph_id, choice.engine)
    runner = runners.pop(key, None) or _runner(bundle, key, choice.threads)
    for other in runners.values():
        other.close()
    return Session(runner, choice, bundle)


def _installed(wanted: Wanted) -> Engines:
    """The installed engines. One that was asked for and is missing is named with its pip line here."""
    if wanted.engine:
        registry.get(wanted.engine)
    names = registry.available()
    by_format: dict[str, list[str]] = {"onnx": [], "tflite": []}
    for name in names:
        for graph_format in registry.formats(name):
            by_format.setdefault(graph_format, []).append(name)
    versions = {name: registry.installed_version(name) for name in names}
    return Engines(by_format, versions, {name: registry.pip_lines({name}) for name in by_format})


def _runner(bundle: Bundle, key: Key, threads: int) -> Runner | Loop:
    graph = bundle.graph(key[0])
    manifest = bundle.manifest
    if graph.role == "decode_step":
        from edgekit_runtime.decoding import open_loop  # few bundles decode

        return open_loop(bundle, graph, key[1], threads)
    dynamic = [row.id for row in manifest.graphs if row.role == "full" and row.format == "onnx"]
    student = Student(
        inputs=manifest.inputs,
        outputs=manifest.outputs,
        axes={axis.symbol: axis for axis in manifest.axes},
        advice=f"graph={dynamic[0]!r} takes every size" if dynamic else "convert again with this size as an example",
    )
    return Runner(graph, registry.get(key[1]), bundle.graph_path(graph), threads=threads, student=student)


def _measure(bundle: Bundle, choice: Choice, machine: Machine, runners: Runners, keep: bool) -> Choice:
    """Decides by a short measurement on the golden inputs; leaves the opened runners in `runners`."""
    golden = bundle.golden_inputs()
    if not golden:
        return dataclasses.replace(choice, undecided=())
    refused: list[Reason] = []

    def starter(key: Key) -> selection.Start:
        def start() -> selection.Once | None:
            try:
                runner = _runner(bundle, key, choice.threads)
                runners[key] = runner
                runner.run(golden)
            except Refused as error:  # one graph this machine's engine does not take is no reason to fail: others do
                refused.append(Reason(*key, "rejected", error.message))
                return None
            return lambda: runner.run(golden)

        return start

    samples = selection.short_measure({key: starter(key) for key in choice.undecided})
    failed = {(row.graph, row.engine) for row in refused}
    medians = {key: selection.median(rows) for key, rows in samples.items() if key not in failed}
    if not any(medians.values()):
        raise Refused(
            "no engine of this machine runs any graph of the bundle: " + "; ".join(row.why for row in refused),
            remedy="`edgekit doctor` tells what is missing",
        )
    decided = selection.decide_by(medians, choice)
    if keep:
        for key, rows in samples.items():
            if rows:
                bundle.add_measurement(_document(bundle, key, rows, machine, choice.threads, golden))
    return dataclasses.replace(decided, reasons=(*decided.reasons, *refused))


def _document(
    bundle: Bundle, key: Key, samples: list[float], machine: Machine, threads: int, golden: Arrays
) -> Measurement:
    """A short measurement as a document: raw samples, no percentile that so few cannot carry."""
    graph = bundle.graph(key[0])
    return Measurement(
        device=machine.id,
        engine=key[1],
        engine_version=registry.get(key[1]).version,
        threads=threads,
        precision=graph.precision,
        graph=graph.id,
        graph_sha256=graph.sha256,
        bundle_id=bundle.bundle_id,
        inputs={name: array.shape for name, array in golden.items()},
        latency_ms=Latency(p50=selection.median(samples), n=len(samples), samples=tuple(samples)),
        withheld=dict.fromkeys(("p90", "p99", "mean", "interval_95"), "a short measurement carries the median only"),
        memory=Memory(file_bytes=graph.bytes),
        energy=Energy(kind="unavailable", reason="not read in a short measurement"),
        environment=Environment(cpu=machine.cpu),
        verdict=Verdict(kind="noisy", reasons=("short measurement at opening (at most 1.5 s for all candidates)",)),
    )
