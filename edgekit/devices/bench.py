"""Times the graphs of a calibration: in turns, twice over, so that a busy neighbour does not meet one of them alone."""

from __future__ import annotations

import functools
import tempfile
import time
import zlib
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from edgekit.devices.micro import Micro
from edgekit.devices.table import Kernels, Point, surface
from edgekit.profiler.inputs import synthetic
from edgekit_runtime import engines
from edgekit_runtime.engines.base import Arrays, Engine, LoadedGraph

PASSES = 2
_BLOCK_S = 0.045
_QUANTILE = 0.1  # what the kernel takes when nothing else wants the core
_LEAST_US = 0.02
_BATCH_NS = 400_000
_FEWEST = 6
_KEPT_S = 3600.0  # after an hour a machine may be in another state
Progress = Callable[[str], None]
Build = Callable[[Micro | None], bytes]


class Kept:
    """Times of a calibration that was interrupted, line by line in a file: the next one goes on from there.

    Args:
        path: The file; None: nothing is kept.
        stamp: What must be equal for times to be taken again: engine, version, plan.
    """

    def __init__(self, path: Path | None, stamp: str) -> None:
        self._path, self._found = path, dict[str, float]()
        if path is None:
            return
        fresh = path.exists() and time.time() - path.stat().st_mtime < _KEPT_S
        lines = path.read_text().splitlines(keepends=True) if fresh else []
        if lines[:1] == [stamp + "\n"]:
            whole = [line for line in lines[1:] if line.endswith("\n")]  # the last one may have been cut off
            self._found = {key: float(us) for key, _, us in (line.rpartition(" ") for line in whole)}
            path.write_text("".join([stamp + "\n", *whole]))
            return
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(stamp + "\n")

    def take(self, key: str, run: Callable[[], float]) -> float:
        """The time kept under a key, or measured now and kept."""
        if key not in self._found:
            self._found[key] = run()
            if self._path is not None:
                with self._path.open("a") as file:
                    file.write(f"{key} {self._found[key]!r}\n")
        return self._found[key]


def measure(
    engine: str, suffix: str, plan: Sequence[Micro], build: Build, *, progress: Progress, kept: Path | None = None
) -> Kernels:
    """Builds and times every graph of a plan on one engine, with one thread.

    Args:
        engine: Name of the engine.
        suffix: Of its files.
        plan: What is measured; helpers stand before what needs them.
        build: Makes the file of an entry; of None, an empty graph.
        progress: Called with a line now and then.
        kept: File that times are kept in until all are taken; None: none.
    """
    runner = engines.get(engine)
    best = dict.fromkeys((None, *plan), float("inf"))
    times = Kept(kept, f"{engine} {runner.version} {zlib.crc32(repr(plan).encode()):08x}")
    with tempfile.TemporaryDirectory(prefix="edgekit-calibrate-") as folder:
        path = Path(folder) / f"micro{suffix}"
        for turn in range(PASSES):
            for number, entry in enumerate((None, *plan)):
                if entry is not None and (number == 1 or entry.key != plan[number - 2].key):
                    progress(f"{engine}, pass {turn + 1} of {PASSES}: {entry.key}")
                us = times.take(f"{turn} {number}", functools.partial(_once, runner, path, build, entry))
                best[entry] = min(best[entry], us)
    run = best.pop(None)
    timed = {entry: us for entry, us in best.items() if entry is not None}
    return Kernels(engine=engine, engine_version=runner.version, threads=1, run_us=run, points=points(timed, run))


def _once(runner: Engine, path: Path, build: Build, entry: Micro | None) -> float:
    path.write_bytes(build(entry))
    graph = runner.load(path, threads=1)
    try:
        return run_us(graph)
    finally:
        graph.close()


def points(timed: dict[Micro, float], run_us: float) -> dict[str, tuple[Point, ...]]:
    """What one call of each kernel takes: the run less what is no kernel of this kind, shared out (pure)."""
    found: dict[str, tuple[Point, ...]] = {}
    for entry, total in timed.items():
        helping = sum(count * surface(found[key]).us(sizes) for key, sizes, count in entry.helpers)
        us = max((total - run_us - helping) / entry.repeats, _LEAST_US)
        point = Point(sizes=entry.grid, us=us, macs=entry.macs)
        found[entry.key] = (*found.get(entry.key, ()), point)
    return found


def run_us(graph: LoadedGraph, inputs: Arrays | None = None, *, block_s: float = _BLOCK_S) -> float:
    """Microseconds of one run in processor time of this thread: a neighbour that takes the core away is not counted.

    With one thread an engine runs its kernels in the thread that calls it, and on an idle machine this is the time that
    passes. Runs are counted in batches, as reading that clock takes about as long as the shortest of them.
    """
    inputs = synthetic(graph.inputs, {}) if inputs is None else inputs
    clock, run = time.thread_time_ns, graph.run
    begin = clock()
    for _ in range(3):
        run(inputs)
    batch = max(1, round(3 * _BATCH_NS / max(clock() - begin, 1)))
    samples: list[float] = []
    end = time.perf_counter_ns() + int(block_s * 1e9)
    while time.perf_counter_ns() < end or len(samples) < _FEWEST:
        begin = clock()
        for _ in range(batch):
            run(inputs)
        samples.append((clock() - begin) / batch)
    return float(np.quantile(samples, _QUANTILE)) / 1e3
