"""What a graph does, operator by operator, as traced on this machine: the work that a prediction puts a time to."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import msgspec

from edgekit.profiler import targets
from edgekit_runtime import engines
from edgekit_runtime.errors import EdgekitError, Refused
from edgekit_runtime.manifest import Base
from edgekit_runtime.measurement import OpCost


class Work(Base, frozen=True, kw_only=True):
    """One graph at one input size.

    Attributes:
        graph: As in a measurement document.
        graph_sha256: As there.
        bundle_id: As there.
        engine: Engine it was traced on.
        engine_version: Its version.
        precision: fp32, fp16 or int8.
        inputs: Shape of each input.
        outputs: How many there are.
        file_bytes: Bytes on disk.
        ops: What the engine's optimised graph ran, with shapes.
    """

    graph: str
    graph_sha256: str = ""
    bundle_id: str = ""
    engine: str
    engine_version: str
    precision: str
    inputs: dict[str, tuple[int, ...]]
    outputs: int = 1
    file_bytes: int
    ops: tuple[OpCost, ...]


def work_of(
    path: str | Path,
    graph: str | None = None,
    *,
    engine: str | None = None,
    batch: int = 1,
    sizes: Mapping[str, int] | None = None,
) -> list[Work]:
    """The work of the graphs behind a path, traced on this machine.

    Args:
        path: A bundle, or an `.onnx` or `.tflite` file.
        graph: One graph of a bundle; None: all its full graphs.
        engine: Engine to trace on; None: the first installed one for each format.
        batch: Batch size.
        sizes: Sizes of dynamic axes of a bare file, by symbol.

    Raises:
        EdgekitError: As `edgekit.profiler.targets` says, or the engine refuses a graph.
    """
    jobs, _ = targets.plan(targets.resolve(path, graph), engine=engine, batch=(batch,), sizes=sizes)
    return [of_job(job) for job in jobs]


def of_job(job: targets.Job) -> Work:
    """The work of one job of the profiler.

    Raises:
        EdgekitError: The engine refuses the graph, or no inputs fit it.
    """
    from edgekit.profiler.measure import precision_of

    runner = engines.get(job.engine)
    opened = runner.load(job.target.path, threads=1, signature=job.signature)
    declared, outputs = msgspec.to_builtins(opened.inputs), len(opened.outputs)
    opened.close()
    attempt, refusal = 0, None
    while (arrays := job.inputs(declared, attempt)) is not None:
        try:
            ops = tuple(runner.trace(job.target.path, arrays, threads=1, runs=1))
        except EdgekitError as error:
            attempt, refusal = attempt + 1, refusal or error
            continue
        bundle = job.target.bundle
        return Work(
            graph=job.target.graph,
            graph_sha256=job.target.sha256,
            bundle_id=bundle.bundle_id if bundle else "",
            engine=job.engine,
            engine_version=runner.version,
            precision=job.target.precision or precision_of(ops),
            inputs=targets.shapes(arrays),
            outputs=outputs,
            file_bytes=job.target.file_bytes,
            ops=ops,
        )
    raise refusal or Refused(f"no inputs could be made for {job.target.label}")
