"""One fresh process at a time: opens a job's graph, runs it, and tells what was seen."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from edgekit.profiler.process import OverBudget, Worker
from edgekit.profiler.statistics import percentile
from edgekit.profiler.targets import Job, shapes
from edgekit_runtime.errors import Refused
from edgekit_runtime.measurement import Duty

WARM_LIMIT_S = 1.0
FEWEST_RUNS = 3


@dataclasses.dataclass(frozen=True)
class Rhythm:
    """How an application calls: a pause, then `burst` runs, until there are `runs`."""

    name: str
    idle_s: float
    runs: int
    burst: int = 1


# About 25 s together. 11 runs are the fewest that support a median.
RHYTHMS = (
    Rhythm("after_pause", 2.0, 3),
    Rhythm("paced_1_hz", 1.0, 11),
    Rhythm("paced_5_hz", 0.2, 15),
    Rhythm("paced_30_hz", 1 / 30, 60),
    Rhythm("burst", 0.5, 40, burst=10),
)


@dataclasses.dataclass(frozen=True)
class Opened:
    """A graph that has answered once, in a live worker."""

    worker: Worker
    engine_version: str
    open_ms: float
    first_ms: float
    rss_before_bytes: int
    rss_after_bytes: int
    rss_first_bytes: int
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
    runs: int = 0
    page_ins: int = 0
    clocks_mhz: tuple[float, ...] = ()


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
            first = worker.ask("first", inputs=str(path))
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
            first_ms=first["first_ms"],
            rss_before_bytes=answer["rss_before_bytes"],
            rss_after_bytes=answer["rss_after_bytes"],
            rss_first_bytes=first["rss_bytes"],
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
        sampled = graph.worker.ask(
            "sample", duration_s=duration_s, min_runs=FEWEST_RUNS, max_runs=enough, every=every, clock=True
        )
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
            runs=sampled["runs"],
            page_ins=sampled["page_ins"],
            clocks_mhz=tuple(sampled["clocks_mhz"]),
        )


def duty(job: Job, folder: Path, rhythms: Sequence[Rhythm] = RHYTHMS) -> tuple[Duty, ...]:
    """Latency in the rhythms of applications, beside a tight loop in the same fresh process."""
    with opened(job, folder) as graph:
        graph.worker.ask("warm", limit_s=WARM_LIMIT_S)
        tight = graph.worker.ask("sample", duration_s=0.3, min_runs=FEWEST_RUNS, max_runs=2000)["samples_ms"]
        rows = []
        for rhythm in rhythms:
            seen = graph.worker.ask(
                "rhythm", name=rhythm.name, idle_s=rhythm.idle_s, runs=rhythm.runs, burst=rhythm.burst
            )
            rows.append(duty_row(rhythm, seen["samples_ms"], tight))
    return tuple(rows)


def duty_row(rhythm: Rhythm, samples_ms: Sequence[float], tight_ms: Sequence[float]) -> Duty:
    """One rhythm's figures from its samples (pure)."""
    median, tight = percentile(samples_ms, "p50"), percentile(tight_ms, "p50")
    return Duty(
        name=rhythm.name,
        idle_ms=rhythm.idle_s * 1e3,
        n=len(samples_ms),
        p50=median,
        mean=float(np.mean(samples_ms)),
        max=float(max(samples_ms)),
        samples=tuple(samples_ms),
        ratio=median / tight if median and tight else None,
    )
