"""A real link against the simulator: two network namespaces, a token bucket between them, a delay in user space.

    namespace "device"                                   namespace "server"
    session ── veth ── tbf ════════════════════════ tbf ── veth ── relay (delay) ── edgekit serve, on loopback

The bucket's rate follows the trace (`tc qdisc replace`); the simulator lives the same trace with the costs that the run
measured: the local run, the server's time, the round trip of the wide link. Needs root and `ip`, `tc`.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from benchmarks.page import table, target
from benchmarks.serving import bundle_of
from edgekit.simulate import Setting, simulate
from edgekit.simulate.engine import latencies_ms
from edgekit.simulate.traces import Series, Trace
from edgekit_runtime.adaptive import ActionCost

DEVICE_IP, SERVER_IP = "10.213.7.1", "10.213.7.2"
RTT_MS, INTERVAL_S = 10.0, 0.15
LOCAL_MS = 40.0  # sending takes about 18 ms at 20 Mbit/s, and 150 at 0.6: what is right changes with the steps
ROWS, COLUMNS = 2560, 1000  # 10 KB up, 4 KB down, 2.6 MMAC
STEPS = ((8.0, 20.0), (8.0, 0.6), (8.0, 10.0), (8.0, 0.3), (8.0, 30.0))  # seconds, Mbit/s
_SETTLE_S = 2.0
_WIDE_MBPS = 1000.0


def missing() -> str:
    """Why there can be no shaped link here; empty: there can."""
    if not hasattr(os, "geteuid") or os.geteuid() != 0:
        return "network namespaces need root"
    absent = [tool for tool in ("ip", "tc") if shutil.which(tool) is None]
    return f"{' and '.join(absent)} not installed (iproute2)" if absent else ""


def run() -> str:
    why = missing()
    if why:
        return f"Not run: {why}."
    live = measure(STEPS)
    rows = [
        ("mean, real", f"{live['real_ms']:.1f} ms", "", ""),
        ("mean, simulated", f"{live['simulated_ms']:.1f} ms", "", ""),
        ("simulated over real", f"{live['ratio']:.2f}", *target("0.85 to 1.15", abs(live["ratio"] - 1) <= 0.15)),
        ("lost", live["lost"], *target("0", live["lost"] == 0)),
        ("round trip of the wide link", f"{live['round_trip_ms']:.1f} ms", "", ""),
        ("local run, server", f"{live['local_ms']:.1f} ms, {live['server_ms']:.1f} ms", "", ""),
    ]
    fast, slow = ([step["sent"] for step in live["steps"] if (step["mbps"] >= 10) is quick] for quick in (True, False))
    changes = min(fast) > 0.5 and max(slow) < 0.5
    seen = f"{min(fast):.0%} sent at least at 10 Mbit/s and more, {max(slow):.0%} at most below 1"
    rows.append(("choices follow the link", seen, *target("more than half, less than half", changes)))
    steps = [
        (f"{step['mbps']:g} Mbit/s", step["requests"], f"{step['sent']:.0%}", f"{step['simulated_sent']:.0%}",
         f"{step['real_ms']:.1f}", f"{step['simulated_ms']:.1f}")
        for step in live["steps"]
    ]  # fmt: skip
    header = ("step", "requests", "sent, real", "sent, simulated", "mean ms, real", "mean ms, simulated")
    return table(("what", "seen", "target", ""), rows) + "\n\n" + table(header, steps)


def measure(steps: Sequence[tuple[float, float]]) -> dict[str, Any]:
    """Lives steps of (seconds, Mbit/s) through on a real link and in the simulator.

    Raises:
        RuntimeError: A half did not start; its words are on stderr.
    """
    with tempfile.TemporaryDirectory() as name, _namespaces() as (device, server):
        bundle = bundle_of(Path(name), ROWS, COLUMNS)
        with _started(server, "-m", "benchmarks.link_halves", "server", bundle, SERVER_IP, RTT_MS) as serving:
            port = _document(serving)["port"]
            seconds = sum(step[0] for step in steps)
            arguments = ("device", bundle, f"grpc://{SERVER_IP}:{port}", seconds, INTERVAL_S, LOCAL_MS)
            with _started(device, "-m", "benchmarks.link_halves", *arguments) as session:
                _document(session)  # it is ready
                _shape((device, server), steps[0][1])
                _say(session)
                _follow((device, server), steps)
                _shape((device, server), _WIDE_MBPS)
                _say(session)
                seen = _document(session)
    return _compared(seen, steps, seen["round_trip_ms"])


def _compared(seen: dict[str, Any], steps: Sequence[tuple[float, float]], round_trip_ms: float) -> dict[str, Any]:
    """The run beside the simulator on the same trace with the run's own costs (pure)."""
    rows = seen["rows"]
    local_ms = statistics.fmean([row["local_ms"] for row in rows if row["local_ms"] is not None] or [0.0])
    server_ms = statistics.median([row["server_ms"] for row in rows if row["server_ms"]] or [0.0])
    actions = []
    for action in msgspec.convert(seen["actions"], tuple[ActionCost, ...]):
        known = {"tail_ms": server_ms, "decode_ms": 0.0} if action.leaves else {"head_ms": local_ms}
        actions.append(msgspec.structs.replace(action, **known))
    times = [0.0, *np.cumsum([step[0] for step in steps]).tolist()]
    series = Series(times, [step[1] for step in steps])
    trace = Trace("steps", series, series, Series((0, times[-1]), (round_trip_ms,)))
    gap_s = times[-1] / len(rows)
    study = simulate(Setting(tuple(actions), (trace,), requests=len(rows), interval_s=gap_s))
    simulated = study.answers["adaptive"][0]
    real_ms = [row["total_ms"] for row in rows]
    simulated_ms = float(latencies_ms(simulated).mean())
    leaves = [action.leaves for action in actions]
    sent = {action.id: action.leaves for action in actions}
    table_rows = []
    for start, end, (_, mbps) in zip(times, times[1:], steps, strict=False):
        mine = [row for row in rows if start + _SETTLE_S <= row["at_s"] < end]
        other = [row for row in simulated if start + _SETTLE_S <= row.arrival_s < end]
        table_rows.append(
            {
                "mbps": mbps,
                "requests": len(mine),
                "sent": statistics.fmean([sent[row["action"]] for row in mine] or [0]),
                "simulated_sent": statistics.fmean([leaves[row.place] for row in other] or [0]),
                "real_ms": statistics.fmean([row["total_ms"] for row in mine] or [0.0]),
                "simulated_ms": statistics.fmean([row.latency_ms for row in other] or [0.0]),
            }
        )
    return {
        "real_ms": statistics.fmean(real_ms), "simulated_ms": simulated_ms,
        "ratio": simulated_ms / statistics.fmean(real_ms),
        "lost": sum(not np.isfinite(value) for value in real_ms), "round_trip_ms": round_trip_ms,
        "local_ms": local_ms, "server_ms": server_ms, "steps": table_rows,
    }  # fmt: skip


@contextlib.contextmanager
def _namespaces() -> Iterator[tuple[str, str]]:
    """Two namespaces with a veth between them, gone afterwards."""
    device, server = (f"edgekit-{side}-{os.getpid()}" for side in ("d", "s"))
    try:
        for name in (device, server):
            _do("ip", "netns", "add", name)
            _do("ip", "-n", name, "link", "set", "lo", "up")
        _do("ip", "-n", device, "link", "add", "veth0", "type", "veth", "peer", "name", "veth0", "netns", server)
        for name, address in ((device, DEVICE_IP), (server, SERVER_IP)):
            _do("ip", "-n", name, "address", "add", f"{address}/30", "dev", "veth0")
            _do("ip", "-n", name, "link", "set", "veth0", "up")
        yield device, server
    finally:
        for name in (device, server):
            subprocess.run(("ip", "netns", "delete", name), capture_output=True, check=False)


def _shape(namespaces: Sequence[str], mbps: float) -> None:
    """The token bucket of both directions; nothing is dropped, what does not fit waits."""
    for name in namespaces:
        _do("tc", "-n", name, "qdisc", "replace", "dev", "veth0", "root", "tbf", "rate", f"{round(mbps * 1000)}kbit",
            "burst", "3200", "limit", "4000000")  # fmt: skip


def _follow(namespaces: Sequence[str], steps: Sequence[tuple[float, float]]) -> None:
    start, end = time.monotonic(), 0.0
    for seconds, mbps in steps:
        _shape(namespaces, mbps)
        end += seconds
        time.sleep(max(start + end - time.monotonic(), 0.0))


def _say(process: subprocess.Popen[str]) -> None:
    """A line that a half waits for."""
    assert process.stdin is not None
    process.stdin.write("\n")
    process.stdin.flush()


def _do(*command: str) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)}: {done.stderr.strip()}")


@contextlib.contextmanager
def _started(namespace: str, *arguments: object) -> Iterator[subprocess.Popen[str]]:
    command = ("ip", "netns", "exec", namespace, sys.executable, *map(str, arguments))
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        try:
            yield process
        finally:
            if process.stdin is not None:
                process.stdin.close()  # the halves end with their input
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(10)
            process.kill()


def _document(process: subprocess.Popen[str]) -> dict[str, Any]:
    """The next JSON document that a process prints."""
    assert process.stdout is not None
    text = ""
    while True:
        line = process.stdout.readline()
        if not line:
            raise RuntimeError(f"{process.args!r} ended early")
        text += line
        with contextlib.suppress(json.JSONDecodeError):
            return json.loads(text)
