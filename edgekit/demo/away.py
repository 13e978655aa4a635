"""The demo's second half: a slow device, a real server in a process of its own, and a link that goes away.

    this process, on one core                       relay                 server process, on the other cores
    session.infer ── runs 16 times slower ── gRPC ──► 40, 2, 0 Mbit/s ───► edgekit serve digits.edge
          ▲                                                                     ▲
          └── busy loops beside it, in processes of their own                   └── SIGKILL in the last phase

What the policies compared with would have done is simulated over the same link and load, with the costs that the
session has measured, and the server's time and the device's slow-down that its requests have seen.

    measured     one caller: the next request begins when the last one is answered, however late that is
    simulated    requests that come by the clock, and queue

The two agree only where nothing queues, so that requests are simulated as far apart as the slowest phase's local run
needs. On a busy machine that is further than `INTERVAL_S`; phases hold other numbers of requests then, and count alike.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import math
import os
import statistics
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

import edgekit_runtime as er
from edgekit.demo.relay import Relay
from edgekit.demo.slow import slower
from edgekit.simulate import Setting, Study, simulate
from edgekit.simulate.study import interval_s
from edgekit.simulate.traces import LoadTrace, Series, Trace
from edgekit_runtime.adaptive import ActionCost
from edgekit_runtime.errors import EdgekitError, Unreachable

SLOWER = 16
RTT_MS = 4.0
HOGS = 1
PHASE_S, INTERVAL_S = 3.0, 0.12
# Runs that tell a phase's slow-down better than the session's belief, which is one for the next request.
_FEWEST_RUNS = 3
# Of the interval over the slowest local run: a run that waits for a hedge first, and chance, still end in time.
_ROOM = 1.25


@dataclasses.dataclass(frozen=True)
class Phase:
    """What holds for a while.

    Attributes:
        title: As shown.
        mbps: Of the link, each way.
        busy: Other processes want the device's core.
        served: The server is there.
    """

    title: str
    mbps: float
    busy: bool = False
    served: bool = True


PHASES = (
    Phase("40 Mbit/s", 40.0),
    Phase("40 Mbit/s, CPU busy", 40.0, busy=True),
    Phase("2 Mbit/s, CPU busy", 2.0, busy=True),
    Phase("0 Mbit/s, CPU busy", 0.0, busy=True),
    Phase("40 Mbit/s, server killed", 40.0, busy=True, served=False),
)


@dataclasses.dataclass(frozen=True)
class PhaseLine:
    """What was seen in one phase.

    Attributes:
        title: Of the phase.
        requests: How many.
        lost: How many had no answer.
        actions: How often each was chosen.
        fallbacks: Requests that were sent and answered by the local run after all.
        mean_ms: From call to answer; None where every request was lost.
        p95_ms: Their 95th percentile.
        slowdown: Of the device: local runs of the phase over the one measured at the start; where there were too few,
            as the session believes it at the end of the phase.
    """

    title: str
    requests: int
    lost: int
    actions: dict[str, int]
    fallbacks: int
    mean_ms: float | None
    p95_ms: float | None
    slowdown: float


@dataclasses.dataclass(frozen=True)
class Away:
    """The whole show.

    Attributes:
        phases: One line each.
        mean_ms: Of all requests that were answered, each phase counting alike.
        simulated_ms: The same of each policy over the same link and load: `adaptive`, `best_fixed`, `oracle`.
        best_fixed_action: The one action that would have been best for the whole time.
        interval_ms: Between two simulated requests.
    """

    phases: tuple[PhaseLine, ...]
    mean_ms: float
    simulated_ms: dict[str, float | None]
    best_fixed_action: str
    interval_ms: float


def show(
    bundle: Path,
    inputs: Mapping[str, np.ndarray],
    progress: Callable[[str], None] = lambda line: None,
    *,
    phases: Sequence[Phase] = PHASES,
    phase_s: float = PHASE_S,
) -> Away:
    """Runs the phases one after the other with one session.

    Args:
        bundle: With golden inputs.
        inputs: Of N samples, each [N, ...]; one a request, again from the first when they are used up.
        progress: Told each phase as it begins.
        phases: In order.
        phase_s: Of each.

    Raises:
        Unreachable: The server did not start.
    """
    with contextlib.ExitStack() as stack:
        here, there = _cores()
        stack.enter_context(_on(there))
        progress("starting the server")
        server, port = stack.enter_context(_server(bundle))
        relay = stack.enter_context(Relay("127.0.0.1", port, mbps=phases[0].mbps, rtt_ms=RTT_MS))
        stack.enter_context(_on(here))
        engine = stack.enter_context(slower(SLOWER))
        with er.open(bundle, engine="onnxruntime", threads=1) as usual:
            graph = usual.graph.id
        opened: Any = er.open(bundle, graph, engine, 1, server=f"grpc://127.0.0.1:{relay.port}")
        session = stack.enter_context(opened)
        lines, seen = [], []
        hogs = contextlib.ExitStack()
        stack.enter_context(hogs)
        for number, phase in enumerate(phases):
            progress(phase.title)
            relay.set(phase.mbps)
            if phase.busy and not (number and phases[number - 1].busy):
                hogs.enter_context(_busy(HOGS))
            elif not phase.busy:
                hogs.close()
            if not phase.served:
                server.kill()
            results, lost = _requests(session, inputs, phase_s)
            seen += results
            believed = session.controller.load.read(time.monotonic()).device_slowdown
            lines.append(_line(phase, results, lost, _slowdown(results, session.controller.actions.actions, believed)))
        actions = _true(session.controller.actions.actions, seen)
    progress("the same link, simulated")
    study = _compared(actions, phases, lines, phase_s)
    means = {name: _mean_ms(study, name, phase_s, len(phases)) for name in ("adaptive", "best_fixed", "oracle")}
    measured = statistics.fmean(line.mean_ms for line in lines if line.mean_ms is not None)
    return Away(tuple(lines), measured, means, study.best_fixed, 1e3 * interval_s(study.setting))


def _requests(session: Any, inputs: Mapping[str, np.ndarray], seconds: float) -> tuple[list[er.Result], int]:
    """One request every interval, or as soon as the one before is answered where that takes longer."""
    results: list[er.Result] = []
    lost = 0
    start = time.monotonic()
    while time.monotonic() < start + seconds:
        number = len(results) + lost
        at = number % len(next(iter(inputs.values())))
        try:
            results.append(session.infer({name: array[at : at + 1] for name, array in inputs.items()}))
        except EdgekitError:
            lost += 1
        time.sleep(max(start + (number + 1) * INTERVAL_S - time.monotonic(), 0.0))
    return results, lost


def _slowdown(results: Sequence[er.Result], actions: Sequence[ActionCost], believed: float) -> float:
    """Of the device in a phase: what its local runs took over what they cost an idle one; else what is believed."""
    idle_ms = next(action.head_ms for action in actions if action.id == "local")
    ran = [result.timing.local_ms / idle_ms for result in results if result.decision.action == "local"]
    return statistics.fmean(ran) if len(ran) >= _FEWEST_RUNS else believed


def _line(phase: Phase, results: Sequence[er.Result], lost: int, slowdown: float) -> PhaseLine:
    times = [result.timing.total_ms for result in results]
    return PhaseLine(
        title=phase.title,
        requests=len(results) + lost,
        lost=lost,
        actions=dict(Counter(result.decision.action for result in results).most_common()),
        fallbacks=sum(bool(result.timing.fallback) for result in results),
        mean_ms=statistics.fmean(times) if times else None,
        p95_ms=float(np.quantile(times, 0.95)) if times else None,
        slowdown=slowdown,
    )


def _true(actions: Sequence[ActionCost], seen: Sequence[er.Result]) -> tuple[ActionCost, ...]:
    """The session's costs with the server's time put right: before its first answer that was only assumed."""
    assumed = {action.id: action.server_ms for action in actions}
    ratios = [
        result.timing.server_ms / assumed[result.decision.action]
        for result in seen
        if result.timing.server_ms and assumed[result.decision.action]
    ]
    factor = statistics.median(ratios) if ratios else 1.0
    return tuple(
        msgspec.structs.replace(a, decode_ms=a.decode_ms * factor, tail_ms=a.tail_ms * factor) if a.leaves else a
        for a in actions
    )


def _compared(
    actions: tuple[ActionCost, ...], phases: Sequence[Phase], lines: Sequence[PhaseLine], phase_s: float
) -> Study:
    """The policies over the same link and load. A server that is gone is a link that lets nothing through."""
    times = [phase_s * number for number in range(len(phases) + 1)]
    rates = [phase.mbps if phase.served else 0.0 for phase in phases]
    link = Trace("demo", Series(times, rates), Series(times, rates), Series(times, [RTT_MS] * len(phases)))
    busy = [max(1 - 1 / line.slowdown, 0.0) for line in lines]
    load = LoadTrace(Series(times, busy), Series(times, [0.0] * len(phases)))
    local_ms = next(action.head_ms for action in actions if action.id == "local")
    gap_s = max(INTERVAL_S, _ROOM * local_ms * max(1.0, *(line.slowdown for line in lines)) / 1e3)
    requests = max(int(times[-1] / gap_s), len(phases))
    return simulate(Setting(actions, (link,), load, requests=requests, interval_s=gap_s))


def _mean_ms(study: Study, name: str, phase_s: float, phases: int) -> float | None:
    """Mean over the phases of their requests' mean; None where one was lost."""
    found: list[list[float]] = [[] for _ in range(phases)]
    for row in study.answers[name][0]:
        found[min(int(row.arrival_s / phase_s), phases - 1)].append(row.latency_ms)
    means = [statistics.fmean(times) for times in found if times]
    return statistics.fmean(means) if math.isfinite(sum(means)) else None


@contextlib.contextmanager
def _server(bundle: Path) -> Iterator[tuple[subprocess.Popen[str], int]]:
    """`edgekit serve` on a free port."""
    command = [sys.executable, "-m", "edgekit", "serve", str(bundle), "--port", "0", "--json", "--quiet"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            yield process, _port(process)
        finally:
            process.kill()


def _port(process: subprocess.Popen[str]) -> int:
    assert process.stdout is not None
    text = ""
    while not text.rstrip().endswith("}"):
        line = process.stdout.readline()
        if not line:
            raise Unreachable("the demo's server ended before it served", remedy="edgekit serve BUNDLE says why")
        text += line
    return int(json.loads(text)["url"].rsplit(":", 1)[1])


@contextlib.contextmanager
def _busy(count: int) -> Iterator[None]:
    """Processes that want all of the cores this thread may use."""
    hogs = [subprocess.Popen([sys.executable, "-S", "-c", "while True: pass"]) for _ in range(count)]
    try:
        yield
    finally:
        for hog in hogs:
            hog.kill()
            hog.wait()


def _cores() -> tuple[set[int], set[int]]:
    """The device's core and the server's; empty sets where a process cannot be put on a core, or has only one."""
    if not hasattr(os, "sched_getaffinity"):
        return set(), set()
    first, *others = sorted(os.sched_getaffinity(0))
    return ({first}, set(others)) if others else (set(), set())


@contextlib.contextmanager
def _on(cores: set[int]) -> Iterator[None]:
    """Puts this thread, and what it starts, on these cores; empty: leaves it where it is."""
    if not cores:
        yield
        return
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, cores)
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)
