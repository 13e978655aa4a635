"""The child process that runs a graph: one JSON request a line on stdin, one JSON answer a line on stdout.

    open    engine, path, threads, signature   -> engine_version, open_ms, inputs, rss bytes before and after
    first   inputs (an .npz)                   -> first_ms
    warm    limit_s                            -> runs, steady, run_ms
    sample  duration_s, min_runs, max_runs, skip, every, clock -> samples_ms, runs, seconds, foreign_seconds,
                                                  involuntary_switches, page_ins, clocks_mhz
    rhythm  name, idle_s, runs, burst          -> one row of `Duty`
    around  bundle, graph, seconds             -> encode, decode and session overhead in ms
    trace   runs                               -> ops
    times   runs                               -> ops with times, where only this engine's second profiler gives them
    memory                                     -> peak_rss_bytes, rss_bytes

It ends when stdin closes, also in the middle of a run, so that no process outlives the profiler. Whatever the engines
print goes to stderr.
"""

from __future__ import annotations

import gc
import os
import queue
import sys
import threading
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import psutil

from edgekit.profiler import clock as clocks
from edgekit.profiler.around import around
from edgekit.profiler.statistics import steady
from edgekit_runtime import engines
from edgekit_runtime.engines.base import Arrays, LoadedGraph
from edgekit_runtime.errors import EdgekitError, Refused

WINDOW_S = 0.03  # one window of warm-up
VERBS = ("open", "first", "warm", "sample", "rhythm", "around", "trace", "times", "memory")
_NANOSECONDS_TO_MS = 1e-6


class Bench:
    """The graph this process holds, and the verbs that act on it."""

    def __init__(self) -> None:
        self._process = psutil.Process()
        self._graph: LoadedGraph | None = None
        self._inputs: Arrays = {}
        self._request: dict[str, Any] = {}

    def open(self, request: dict[str, Any]) -> dict[str, Any]:
        """Imports the engine (not timed), then loads the file (timed)."""
        engine = engines.get(request["engine"])
        before = self._process.memory_info().rss
        start = time.perf_counter_ns()
        self._graph = engine.load(Path(request["path"]), threads=request["threads"], signature=request["signature"])
        open_ms = (time.perf_counter_ns() - start) * _NANOSECONDS_TO_MS
        self._request = request
        return {
            "engine_version": engine.version,
            "open_ms": open_ms,
            "inputs": self._graph.inputs,
            "rss_before_bytes": before,
            "rss_after_bytes": self._process.memory_info().rss,
        }

    def first(self, request: dict[str, Any]) -> dict[str, Any]:
        """The first run, on the inputs that all later runs use."""
        with np.load(request["inputs"], allow_pickle=False) as stored:
            self._inputs = {name: np.ascontiguousarray(stored[name]) for name in stored.files}
        gc.collect()
        gc.disable()  # a collection in the middle of a run is Python's latency, not the graph's
        first_ms = self._time_one()
        return {"first_ms": first_ms, "rss_bytes": self._process.memory_info().rss}

    def warm(self, request: dict[str, Any]) -> dict[str, Any]:
        """Runs in windows until their medians agree, or until the limit."""
        medians: list[float] = []
        runs, end = 0, time.perf_counter() + request["limit_s"]
        while not steady(medians) and time.perf_counter() < end:
            window: list[float] = []
            stop = time.perf_counter() + WINDOW_S
            while not window or time.perf_counter() < stop:
                window.append(self._time_one())
            runs += len(window)
            medians.append(float(np.median(window)))
        return {"runs": runs, "steady": steady(medians), "run_ms": medians[-1]}

    def sample(self, request: dict[str, Any]) -> dict[str, Any]:
        """Timed runs, with what the rest of the machine did meanwhile.

        The first `skip` runs are not kept, and only each `every`-th run is timed: a graph of a few microseconds is
        thus watched for long enough without keeping more samples than anybody reads.
        """
        assert self._graph is not None
        run, inputs, clock = self._graph.run, self._inputs, time.perf_counter_ns
        between = range(request.get("every", 1) - 1)
        limit, fewest = request["max_runs"], request["min_runs"]
        for _ in range(request.get("skip", 0)):
            run(inputs)
        samples: list[int] = []
        measured = [clocks.measure_mhz()] if request.get("clock") else []
        faults = _page_ins()
        busy, own, switches = _busy_seconds(), _own_seconds(self._process), self._process.num_ctx_switches()
        begin = clock()
        end = begin + int(request["duration_s"] * 1e9)
        while len(samples) < limit:
            for _ in between:
                run(inputs)
            start = clock()
            run(inputs)
            now = clock()
            samples.append(now - start)
            if now >= end and len(samples) >= fewest:
                break
        seconds = (clock() - begin) * 1e-9
        foreign = (_busy_seconds() - busy) - (_own_seconds(self._process) - own)
        after = self._process.num_ctx_switches()
        page_ins = _page_ins() - faults
        measured += [clocks.measure_mhz()] if request.get("clock") else []
        return {
            "samples_ms": [value * _NANOSECONDS_TO_MS for value in samples],
            "runs": len(samples) * (len(between) + 1),
            "page_ins": page_ins,
            "clocks_mhz": [value for value in measured if value is not None],
            "seconds": seconds,
            "foreign_seconds": max(0.0, foreign),
            "involuntary_switches": after.involuntary - switches.involuntary,
        }

    def rhythm(self, request: dict[str, Any]) -> dict[str, Any]:
        """Runs in the rhythm of an application: a pause, then one run or a burst, again and again."""
        samples: list[float] = []
        due = time.perf_counter()
        while len(samples) < request["runs"]:
            due = max(due + request["idle_s"], time.perf_counter())
            time.sleep(max(0.0, due - time.perf_counter()))
            samples += [self._time_one() for _ in range(request["burst"])]
        return {"samples_ms": samples}

    def around(self, request: dict[str, Any]) -> dict[str, Any]:
        """What surrounds the engine's call in a session of the bundle."""
        assert self._graph is not None
        asked = self._request
        return around(
            Path(request["bundle"]),
            request["graph"],
            asked["engine"],
            asked["threads"],
            (self._graph, self._inputs),
            request["seconds"],
        )

    def trace(self, request: dict[str, Any]) -> dict[str, Any]:
        """What the engine's own profiler says of each operator."""
        engine = engines.get(self._request["engine"])
        path, threads = Path(self._request["path"]), self._request["threads"]
        return {"ops": tuple(engine.trace(path, self._inputs, threads=threads, runs=request["runs"]))}

    def times(self, request: dict[str, Any]) -> dict[str, Any]:
        """As `trace`, from the profiler of an engine that has a second one (LiteRT: its C interface)."""
        engine = engines.get(self._request["engine"])
        timed = getattr(engine, "timed_trace", None)
        if timed is None:
            raise Refused(f"{engine.name} gives no times for single operators")
        path, threads = Path(self._request["path"]), self._request["threads"]
        return {"ops": tuple(timed(path, self._inputs, threads=threads, runs=request["runs"]))}

    def memory(self, request: dict[str, Any]) -> dict[str, Any]:
        """Highest resident set of this process so far, and the one now."""
        return {"peak_rss_bytes": peak_rss_bytes(), "rss_bytes": self._process.memory_info().rss}

    def _time_one(self) -> float:
        assert self._graph is not None
        start = time.perf_counter_ns()
        self._graph.run(self._inputs)
        return (time.perf_counter_ns() - start) * _NANOSECONDS_TO_MS


def peak_rss_bytes() -> int:
    """Highest resident set of this process.

    Linux: VmHWM, which begins anew with the program; getrusage also counts the parent's size at the fork.
    """
    status = Path("/proc/self/status")
    if status.exists():
        for line in status.read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return int(peak) if sys.platform == "darwin" else int(peak) * 1024


def _page_ins() -> int:
    """Pages this process had to read from disk so far (0 where the system does not count them)."""
    try:
        import resource
    except ModuleNotFoundError:  # not a Unix
        return 0
    return int(resource.getrusage(resource.RUSAGE_SELF).ru_majflt)


def _busy_seconds() -> float:
    """CPU seconds that all processes of the machine have used, stolen time of a virtual machine included."""
    times = psutil.cpu_times()
    return sum(getattr(times, name, 0.0) for name in ("user", "nice", "system", "irq", "softirq", "steal"))


def _own_seconds(process: psutil.Process) -> float:
    times = process.cpu_times()
    return float(times.user + times.system)


def answer(verbs: dict[str, Callable[[dict[str, Any]], dict[str, Any]]], line: bytes) -> bytes:
    """One request to one answer; an error becomes an answer of its own."""
    try:
        request = msgspec.json.decode(line)
        body = verbs[request["do"]](request)
    except EdgekitError as error:
        body = {"error": {"kind": error.kind, "message": error.message, "remedy": error.remedy}}
    except MemoryError:
        body = {"error": {"kind": "refused", "message": "the graph needs more memory than there is", "remedy": ""}}
    except Exception:  # noqa: BLE001 - the parent turns whatever a third engine throws into one clear error
        body = {"crash": traceback.format_exc()}
    return msgspec.json.encode(body) + b"\n"


def main() -> None:
    """Serves requests until stdin closes."""
    answers = os.fdopen(os.dup(1), "wb", buffering=0)
    os.dup2(2, 1)  # whatever an engine prints must not mix with the answers
    lines: queue.SimpleQueue[bytes] = queue.SimpleQueue()

    def listen() -> None:
        for line in sys.stdin.buffer:
            lines.put(line)
        os._exit(0)  # the profiler is gone: stop at once, also inside a run

    threading.Thread(target=listen, daemon=True).start()
    bench = Bench()
    verbs = {name: getattr(bench, name) for name in VERBS}
    while True:
        reply = memoryview(answer(verbs, lines.get()))
        while reply:  # an unbuffered pipe may take less than it is given
            reply = reply[answers.write(reply) or 0 :]


if __name__ == "__main__":
    main()
