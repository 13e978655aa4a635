"""Times of a student's graphs on this machine, while it is as it was when it was calibrated."""

from __future__ import annotations

import itertools
import statistics
import time
from collections.abc import Sequence

import msgspec

from benchmarks.calm import Calm
from edgekit.devices import bench
from edgekit.profiler import targets
from edgekit_runtime import engines
from edgekit_runtime.engines.base import Arrays, LoadedGraph

_PASSES, _BLOCK_S = 3, 0.25  # each graph of a student in turns
_MOST_PASSES, _PAUSE_S = 15, 2.0  # where the machine is not as it was
_MOST_WALL_S = 0.2

_Pass = tuple[float, list[float]]  # processor time of one run in ms, wall times of some


def measured(jobs: Sequence[targets.Job], calm: Calm) -> list[tuple[float, float]]:
    """Processor time and median wall time of one run in ms, of all graphs of a student in turns.

    The least of several passes that lie apart in time: what disturbs a second disturbs one pass of each. A pass counts
    where the machine was as it was at the calibration; where it never is, all do.
    """
    opened = []
    for job in jobs:
        graph = engines.get(job.engine).load(job.target.path, threads=1, signature=job.signature)
        inputs = job.inputs(msgspec.to_builtins(graph.inputs))
        assert inputs is not None
        opened.append((graph, inputs))
    counted: list[list[_Pass]] = []
    others: list[list[_Pass]] = []
    while len(counted) < _PASSES and len(counted) + len(others) < _MOST_PASSES:
        rows: list[_Pass] = []
        if calm.during(lambda rows=rows: rows.extend(_pass(*each) for each in opened)):  # type: ignore[misc]
            counted.append(rows)
        else:
            others.append(rows)
            time.sleep(_PAUSE_S)
    for graph, _ in opened:
        graph.close()
    return [_together(each) for each in zip(*(counted or others), strict=True)]


def _together(passes: Sequence[_Pass]) -> tuple[float, float]:
    return min(cpu_ms for cpu_ms, _ in passes), statistics.median(itertools.chain(*(walls for _, walls in passes)))


def _pass(graph: LoadedGraph, inputs: Arrays) -> _Pass:
    """Processor time of one run in ms, and wall times of some."""
    cpu_ms = bench.run_us(graph, inputs, block_s=_BLOCK_S) / 1e3
    walls: list[float] = []
    end = time.monotonic() + _MOST_WALL_S / _PASSES
    while time.monotonic() < end or len(walls) < 3:
        begin = time.perf_counter_ns()
        graph.run(inputs)
        walls.append((time.perf_counter_ns() - begin) / 1e6)
    return cpu_ms, walls
