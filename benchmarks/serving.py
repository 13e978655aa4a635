"""The server and the session over real sockets: round trip against a bare echo, batching, overload, outages.

The servers run in processes of their own; they are killed with SIGKILL where the table says so.
"""

from __future__ import annotations

import io
import json
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import grpc
import numpy as np

import edgekit_runtime as er
from benchmarks.alternate import alternate, ratio, told
from benchmarks.page import table, target
from edgekit_runtime.remote.client import Client
from edgekit_runtime.remote.session import AdaptiveSession, Result
from edgekit_runtime.testing import make_bundle

REQUESTS = int(os.environ.get("EDGEKIT_OUTAGE_REQUESTS", "20000"))
WIDTH = 2560  # float32: 10 KB


class Served:
    """`edgekit serve` in a process of its own."""

    def __init__(self, bundle: Path, port: int = 0, *options: str) -> None:
        arguments = [sys.executable, "-m", "edgekit", "serve", str(bundle), "--port", str(port), "--json", *options]
        self.process = subprocess.Popen(arguments, stdout=subprocess.PIPE, text=True)
        assert self.process.stdout is not None
        text = ""
        while not text.rstrip().endswith("}"):
            text += self.process.stdout.readline()
        self.url: str = json.loads(text)["url"]
        self.port = int(self.url.rsplit(":", 1)[1])

    def kill(self, number: int = signal.SIGKILL) -> None:
        self.process.send_signal(number)
        self.process.wait()
        assert self.process.stdout is not None
        self.process.stdout.close()


def run() -> str:
    from benchmarks import serving_batches  # which starts its servers as this file does

    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        parts = ["### Round trip of 10 KB\n", _round_trip(folder)]
        parts += ["\n### Eight clients\n", serving_batches.run(folder), "\n### Outages\n", _outages(folder)]
    return "\n".join(parts)


def bundle_of(folder: Path, rows: int, columns: int) -> Path:
    file = io.BytesIO()
    rng = np.random.default_rng(0)
    weights = rng.normal(size=(rows, columns)).astype(np.float32)
    np.savez(file, x=rng.normal(size=(1, rows)).astype(np.float32))  # no codec makes noise smaller
    there = folder / f"m{rows}x{columns}.edge"
    return (
        there if there.exists() else make_bundle(there, weights=weights, files={"golden/inputs.npz": file.getvalue()})
    )


class Echo:
    """A gRPC server in a process of its own that gives back the bytes it gets: what no server can undercut.

    `thread pool` is the server of gRPC's own examples, `asyncio` the kind that edgekit's is.
    """

    def __init__(self, kind: str) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-m", "benchmarks.echo", kind], stdout=subprocess.PIPE, text=True
        )
        assert self.process.stdout is not None
        self.channel = grpc.insecure_channel(f"127.0.0.1:{int(self.process.stdout.readline())}")
        self.call = self.channel.unary_unary("/echo/Echo")

    def close(self) -> None:
        self.channel.close()
        self.process.kill()
        self.process.wait()
        assert self.process.stdout is not None
        self.process.stdout.close()


def _round_trip(folder: Path) -> str:
    x = np.random.default_rng(3).normal(size=(1, WIDTH)).astype(np.float32)
    name, data = f"m{WIDTH}x4", x.tobytes()
    echoes = {kind: Echo(kind) for kind in ("thread pool", "asyncio")}
    bundle = bundle_of(folder, WIDTH, 4)
    served = Served(bundle)
    client = Client(served.url, streams=True)
    calls = {f"bare gRPC echo, {kind} server": lambda e=echo: e.call(data) for kind, echo in echoes.items()}
    plain: list[Result] = []
    free: list[Result] = []
    with _far(bundle, served.url) as chooses:
        codecs = tuple(action for action in chooses._offers if ":" in action)
        with _far(bundle, served.url, er.Policy(without=codecs)) as session:
            calls["client.call: message, checks and the graph's run"] = lambda: client.call(name, {"x": x})
            calls["session.infer: decided, hedged, checked, learned from"] = lambda: plain.append(
                session.infer({"x": x})
            )
            calls["the same, free to choose a codec"] = lambda: free.append(chooses.infer({"x": x}))
            seen = alternate(calls, 18)
    client.close()
    served.kill(signal.SIGTERM)
    for echo in echoes.values():
        echo.close()
    bare = min((seen[what] for what in seen if what.startswith("bare")), key=lambda timing: timing.median_ms)
    lines = []
    for what, timing in seen.items():
        verdict = target("<= 1.3x", ratio(timing, bare)[0] <= 1.3) if what.startswith("session") else ("", "")
        lines.append((what, f"{timing} ms", told(ratio(timing, bare)), *verdict))
    text = table(("what", "median [p10, p90]", "of the faster echo [95 %]", "target", ""), lines)
    note = (
        "As the echo, the session of the target sends plain tensors. The other may choose a codec; only the graph of "
        "this slow device is slowed, so that a codec's decoding on the server seems free to it."
    )
    return f"{note}\n\n{text}\n\n{_ways('session', plain)} {_ways('session that is free to choose', free)}"


def _ways(who: str, answers: list[Result]) -> str:
    there = sum(answer.timing.server_ms > 0 for answer in answers)
    times: dict[str, list[float]] = {}
    for answer in answers:
        times.setdefault(answer.decision.action, []).append(answer.timing.total_ms)
    shown = sorted(times.items(), key=lambda item: -len(item[1]))
    ways = ", ".join(f"{len(ms)} by `{action}` ({statistics.median(ms):.3f} ms)" for action, ms in shown)
    return f"Of the {who}'s {len(answers)} requests {there} were answered by the server: {ways}."


def _far(bundle: Path, url: str, policy: er.Policy = er.Policy()) -> AdaptiveSession:  # noqa: B008 - frozen
    """A session whose device takes 50 ms, so that it sends; asked until it does.

    Only its graph is slowed, not its codecs: the server seems thousands of times as quick, in decoding, too, so that a
    session that is free to choose takes codecs that do not pay.
    """
    local = er.open(bundle)
    whole = local.run

    def slow(inputs):  # type: ignore[no-untyped-def]
        time.sleep(0.05)
        return whole(inputs)

    local.run = slow  # type: ignore[method-assign]
    session = AdaptiveSession(local, url, policy)
    x, end = np.ones((1, WIDTH), np.float32), time.monotonic() + 30
    while time.monotonic() < end and not session.infer({"x": x}).timing.server_ms:
        pass
    return session


def _outages(folder: Path) -> str:
    """A slow device with a server that is killed, frozen, drained and replaced by one with other weights."""
    bundle = bundle_of(folder, 64, 8)
    other = folder / "other" / bundle.name
    if not other.exists():
        other.parent.mkdir(exist_ok=True)
        make_bundle(other, weights=np.zeros((64, 8), np.float32))
    weights = np.random.default_rng(0).normal(size=(64, 8)).astype(np.float32)
    served = Served(bundle)
    count: dict[str, int] = {}
    wrong = lost = 0
    worst = 0.0
    rng = np.random.default_rng(1)
    local = er.open(bundle)
    whole = local.run

    def slow(inputs):  # type: ignore[no-untyped-def]
        time.sleep(0.003)
        return whole(inputs)

    local.run = slow  # type: ignore[method-assign]
    frozen_until = 0
    with AdaptiveSession(local, served.url, er.Policy(deadline_ms=100)) as session:
        for number in range(REQUESTS):
            step = number % 2000
            if step == 500:
                served.kill()
            elif step == 700:
                served = Served(bundle, served.port)
            elif step == 1000:
                os.kill(served.process.pid, signal.SIGSTOP)
                frozen_until = number + 200
            elif number == frozen_until:
                os.kill(served.process.pid, signal.SIGCONT)
            elif step == 1500:
                served.kill(signal.SIGTERM)
                served = Served(other, served.port)
            elif step == 1700:
                served.kill(signal.SIGTERM)
                served = Served(bundle, served.port)
            x = rng.normal(size=(1, 64)).astype(np.float32)
            try:
                result = session.infer({"x": x})
            except Exception as error:  # noqa: BLE001 - whatever it is, the request is lost: that is what is counted
                lost += 1
                count[f"lost: {type(error).__name__}"] = count.get(f"lost: {type(error).__name__}", 0) + 1
                continue
            wrong += not np.allclose(result.outputs["y"], x @ weights, rtol=1e-3, atol=1e-4)
            worst = max(worst, result.timing.total_ms)
            kind = result.timing.fallback.split("(")[0].split(":")[0] or (
                "there" if result.timing.server_ms else "here"
            )
            count[kind] = count.get(kind, 0) + 1
    served.kill(signal.SIGTERM)
    lines = [
        ("requests", REQUESTS, "", ""),
        ("lost", lost, *target("0", not lost)),
        ("wrong answers that got through", wrong, *target("0", not wrong)),
        ("longest request", f"{worst:.0f} ms", "", ""),
        *((f"answered {kind}", number, "", "") for kind, number in sorted(count.items(), key=lambda row: -row[1])),
    ]
    return table(("what", "seen", "target", ""), lines)
