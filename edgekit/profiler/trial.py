"""One fresh process at a time: opens a job's graph, runs it, and tells what was seen."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from edgekit.profiler.process import OverBudget, Worker
from edgekit.profiler.targets import Job, shapes
from edgekit_runtime.errors import Refused
from edgekit_runtime.measurement import Memory, OpCost

WARM_LIMIT_S = 1.0
FEWEST_RUNS = 3
TRACE_S = 0.3


@dataclasses.dataclass(frozen=True)
class Opened:
    """A graph that has answered once, in a live worker."""

    worker: Worker
    engine_version: str
    open_ms: float
    first_ms: float
    rss_before_bytes: int
    rss_after_bytes: int
    inputs: dict[str, tuple[int, ...]]


@dataclasses.dataclass(frozen=True)
class Trial:
    """What one fresh process saw. Times in ms, in order of time."""

    engine_version: str
    open_ms: float
    first_ms: float
    samples_ms: tuple[float, ...]
    seconds: float
    foreign_seconds: float
    involuntary_switches: int
    steady: bool
    inputs: dict[str, tuple[int, ...]]


@dataclasses.dataclass(frozen=True)
class Weighed:
    """Memory and operators of one job, from a process that does nothing else."""

    engine_version: str
    memory: Memory
    ops: tuple[OpCost, ...]
    inputs: dict[str, tuple[int, ...]]
    remark: str = ""


@contextmanager
def opened(job: Job, folder: Path, *, memory_limit_bytes: int | None = None) -> Iterator[Opened]:
    """Starts a worker, opens the job's graph and runs it once.

    Raises:
        EdgekitError: The engine refuses the file, the inputs do not fit, or the process died.
    """
    with Worker(folder, job.label, memory_limit_bytes=memory_limit_bytes) as worker:
        begin(worker, job)
        yield finish(worker, job, folder)


def begin(worker: Worker, job: Job) -> None:
    """Tells the worker to open the graph, without waiting: two workers can open at the same time."""
    target = job.target
    worker.tell("open", engine=job.engine, path=str(target.path), threads=job.threads, signature=job.signature)


def finish(worker: Worker, job: Job, folder: Path) -> Opened:
    """Waits for `begin` and makes the first run."""
    answer = worker.wait()
    attempt, refusal = 0, None
    while (arrays := job.inputs(answer["inputs"], attempt)) is not None:
        path = folder / f"inputs-{worker.pid}-{attempt}.npz"
        np.savez(path, **arrays)  # type: ignore[arg-type]  # numpy's stub takes the names for keyword options
        try:
            first_ms = worker.ask("first", inputs=str(path))["first_ms"]
        except OverBudget:
            raise
        except Refused as error:
            attempt, refusal = attempt + 1, refusal or error
            continue
        finally:
            path.unlink()
        return Opened(
            worker=worker,
            engine_version=answer["engine_version"],
            open_ms=answer["open_ms"],
            first_ms=first_ms,
            rss_before_bytes=answer["rss_before_bytes"],
            rss_after_bytes=answer["rss_after_bytes"],
            inputs=shapes(arrays),
        )
    assert refusal is not None
    raise refusal


def measure(job: Job, folder: Path, *, duration_s: float, enough: int) -> Trial:
    """Latency in one fresh process: open, first run, warm up until steady, then samples.

    Args:
        job: What to run.
        folder: Work folder.
        duration_s: Seconds of sampling.
        enough: Samples after which it stops earlier, once half the duration has been watched.
    """
    with opened(job, folder) as graph:
        warm = graph.worker.ask("warm", limit_s=WARM_LIMIT_S)
        every = max(1, int(duration_s / 2 * 1000 / (enough * warm["run_ms"])))
        sampled = graph.worker.ask("sample", duration_s=duration_s, min_runs=FEWEST_RUNS, max_runs=enough, every=every)
        return Trial(
            engine_version=graph.engine_version,
            open_ms=graph.open_ms,
            first_ms=graph.first_ms,
            samples_ms=tuple(sampled["samples_ms"]),
            seconds=sampled["seconds"],
            foreign_seconds=sampled["foreign_seconds"],
            involuntary_switches=sampled["involuntary_switches"],
            # A graph that runs for longer than a third of the limit cannot fill the windows that would prove it.
            steady=warm["steady"] or warm["run_ms"] > WARM_LIMIT_S * 1000 / 3,
            inputs=graph.inputs,
        )


def weigh(job: Job, folder: Path, *, memory_limit_bytes: int | None) -> Weighed:
    """Memory in a process of its own, then the engine's own profile of the operators.

    Raises:
        OverBudget: It needs more than the limit; found out before loading where the file alone is larger.
    """
    size = job.target.file_bytes
    if memory_limit_bytes is not None and size > memory_limit_bytes:
        raise OverBudget(job.label, size, memory_limit_bytes)
    with opened(job, folder, memory_limit_bytes=memory_limit_bytes) as graph:
        sampled = graph.worker.ask("sample", duration_s=0.0, min_runs=FEWEST_RUNS, max_runs=FEWEST_RUNS)
        peak = graph.worker.ask("memory")["peak_rss_bytes"]
        if memory_limit_bytes is not None and peak > memory_limit_bytes:
            raise OverBudget(job.label, peak, memory_limit_bytes)
        memory = Memory(
            file_bytes=size,
            open_bytes=max(0, graph.rss_after_bytes - graph.rss_before_bytes),
            peak_rss_bytes=peak,
        )
        runs = int(min(50, max(3, TRACE_S * 1000 / max(float(np.median(sampled["samples_ms"])), 1e-3))))
        ops, remark = _trace(graph.worker, runs) if memory_limit_bytes is None else _unlimited_trace(job, folder, runs)
        return Weighed(graph.engine_version, memory, ops, graph.inputs, remark)


def _trace(worker: Worker, runs: int) -> tuple[tuple[OpCost, ...], str]:
    try:
        answer: dict[str, Any] = worker.ask("trace", runs=runs)
    except Refused as error:  # the latency stands without the operators
        return (), f"no figures per operator: {error.message}"
    return msgspec.convert(answer["ops"], tuple[OpCost, ...]), ""


def _unlimited_trace(job: Job, folder: Path, runs: int) -> tuple[tuple[OpCost, ...], str]:
    """Tracing opens the graph a second time: under a memory budget it gets a process of its own, without one."""
    with opened(job, folder) as graph:
        return _trace(graph.worker, runs)
