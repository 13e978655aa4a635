"""Memory, operators and surroundings of one job, each in a process that does nothing else.

process 1   open, first run, three runs     memory: by opening, by the first run, the peak
            then the session around it      preprocessing, labels, checks
            then the engine's profile       operators with MACs and bytes
process 2   LiteRT's second profiler        times of single operators (should it crash, only they are missing)
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import psutil

from edgekit.profiler import card
from edgekit.profiler.process import OverBudget, Worker
from edgekit.profiler.targets import Job
from edgekit.profiler.trial import FEWEST_RUNS, opened
from edgekit_runtime.errors import Refused
from edgekit_runtime.measurement import Around, Memory, OpCost, Placement

TRACE_S = 0.3
_AROUND_S = 0.1
_TOO_SHORT = 0.5  # operators that add up to less than this part of the latency are below the profiler's resolution


@dataclasses.dataclass(frozen=True)
class Weighed:
    """What was seen of one job.

    Attributes:
        remarks: What could not be told, and why.
    """

    engine_version: str
    memory: Memory
    ops: tuple[OpCost, ...]
    inputs: dict[str, tuple[int, ...]]
    remarks: tuple[str, ...] = ()
    around: Around | None = None


def weigh(job: Job, folder: Path, *, memory_limit_bytes: int | None) -> Weighed:
    """Memory in a process of its own, then the surroundings, then the engine's own profile of the operators.

    Raises:
        OverBudget: It needs more than the limit, or than the machine has; found out before loading where the file
            alone is larger.
    """
    check_size(job, memory_limit_bytes, psutil.virtual_memory().total)
    with opened(job, folder, memory_limit_bytes=memory_limit_bytes) as graph:
        sampled = graph.worker.ask("sample", duration_s=0.0, min_runs=FEWEST_RUNS, max_runs=FEWEST_RUNS)
        peak = graph.worker.ask("memory")["peak_rss_bytes"]
        if memory_limit_bytes is not None and peak > memory_limit_bytes:
            raise OverBudget(job.label, peak, memory_limit_bytes)
        memory = Memory(
            file_bytes=job.target.file_bytes,
            open_bytes=max(0, graph.rss_after_bytes - graph.rss_before_bytes),
            arena_bytes=max(0, graph.rss_first_bytes - graph.rss_after_bytes),
            peak_rss_bytes=peak,
            card_bytes=card.memory_bytes(graph.worker.pid) if job.on_card else None,
        )
        run_ms = max(float(np.median(sampled["samples_ms"])), 1e-3)
        runs = int(min(50, max(3, TRACE_S * 1000 / run_ms)))
        if memory_limit_bytes is None:
            around, remarks = _around(graph.worker, job)
            ops, remark = _ask_ops(graph.worker, "trace", runs)
    if memory_limit_bytes is not None:  # both open the graph a second time: not under a budget
        with opened(job, folder) as graph:
            around, remarks = _around(graph.worker, job)
            ops, remark = _ask_ops(graph.worker, "trace", runs)
    remarks += [remark] if remark else []
    if ops and all(op.ms is None for op in ops):
        ops, remark = _timed(job, folder, ops, runs, run_ms)
        remarks += [remark] if remark else []
    return Weighed(graph.engine_version, memory, ops, graph.inputs, tuple(remarks), surroundings(around, ops, None))


def check_size(job: Job, memory_limit_bytes: int | None, machine_bytes: int) -> None:
    """Refuses a graph whose file alone is more than the process may take or the machine has. Nothing is loaded.

    Raises:
        OverBudget: It is.
    """
    size = job.target.file_bytes
    if memory_limit_bytes is not None and size > memory_limit_bytes:
        raise OverBudget(job.label, size, memory_limit_bytes, loaded=False)
    if machine_bytes and size > machine_bytes:
        raise OverBudget(job.label, size, machine_bytes, machine=True, loaded=False)


def placements(ops: Sequence[OpCost]) -> tuple[Placement, ...]:
    """Who runs what share of a graph, the largest share first; empty where the engine does not tell who."""
    named = [op for op in ops if op.delegate]
    total_ms = sum(op.ms or 0.0 for op in named) if all(op.ms is not None for op in named) else 0.0
    total_macs = sum(op.macs or 0 for op in named)
    rows = []
    for name in dict.fromkeys(op.delegate for op in named):
        own = sorted((op for op in named if op.delegate == name), key=lambda op: -(op.ms or 0.0))
        rows.append(
            Placement(
                delegate=name,
                ops=len(own),
                ms_fraction=sum(op.ms or 0.0 for op in own) / total_ms if total_ms else None,
                macs_fraction=sum(op.macs or 0 for op in own) / total_macs if total_macs else None,
                kinds=tuple(dict.fromkeys(op.kind for op in own)),
            )
        )
    return tuple(sorted(rows, key=lambda row: (-(row.ms_fraction or 0.0), -(row.macs_fraction or 0.0), -row.ops)))


def surroundings(seen: Around | None, ops: Sequence[OpCost], p50_ms: float | None) -> Around | None:
    """What surrounds the engine's work, with the sum of its operators and, once known, what lies outside them.

    Operators that add up to more than the latency (the profile costs time itself) leave no figure for the outside.
    """
    times = [op.ms for op in ops if op.ms is not None]
    total = sum(times) if times else None
    if seen is None and total is None:
        return None
    outside = p50_ms - total if p50_ms is not None and total is not None and p50_ms >= total else None
    return msgspec.structs.replace(seen or Around(), operators_ms=total, outside_operators_ms=outside)


def _around(worker: Worker, job: Job) -> tuple[Around | None, list[str]]:
    bundle = job.target.bundle
    if bundle is None:
        return None, []
    root, graph = str(bundle.root.resolve()), job.target.graph
    try:
        return msgspec.convert(worker.ask("around", bundle=root, graph=graph, seconds=_AROUND_S), Around), []
    except Refused as error:  # the latency stands without it
        return None, [f"what surrounds the engine is not told: {error.message}"]


def _ask_ops(worker: Worker, verb: str, runs: int) -> tuple[tuple[OpCost, ...], str]:
    try:
        answer: dict[str, Any] = worker.ask(verb, runs=runs)
    except Refused as error:  # the latency stands without the operators
        return (), f"no figures per operator: {error.message}"
    return msgspec.convert(answer["ops"], tuple[OpCost, ...]), ""


def _timed(job: Job, folder: Path, ops: tuple[OpCost, ...], runs: int, run_ms: float) -> tuple[tuple[OpCost, ...], str]:
    """The operators with times from the engine's second profiler; as they are, with the reason, where it has none."""
    try:
        with opened(job, folder) as graph:
            timed, remark = _ask_ops(graph.worker, "times", runs)
    except Refused as error:
        timed, remark = (), error.message
    if not timed:
        return ops, remark.replace("no figures per operator", "no times per operator")
    total = sum(op.ms or 0.0 for op in timed)
    if total < _TOO_SHORT * run_ms:
        reason = f"their times add up to {total:.3g} of {run_ms:.3g} ms, as the profiler counts whole microseconds"
        return tuple(msgspec.structs.replace(op, ms=None) for op in timed), f"operators are too short to time: {reason}"
    return timed, ""
