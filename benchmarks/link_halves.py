"""The two halves of `benchmarks.link`, each in a network namespace of its own.

    python -m benchmarks.link_halves server BUNDLE LISTEN_IP RTT_MS
    python -m benchmarks.link_halves device BUNDLE URL SECONDS INTERVAL_S LOCAL_MS

Each prints a line of JSON when it is ready. The server ends with its input; the device begins when it reads a line, and
ends with what it saw. A server without a token serves loopback only, so the relay, which makes the delay, stands before
it and alone is seen from the other namespace.
"""

from __future__ import annotations

import json
import statistics
import sys
import time
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

import edgekit_runtime as er
from benchmarks.serving import Served
from edgekit.demo.relay import Relay
from edgekit.demo.slow import slower
from edgekit_runtime.remote.client import Client

_WIDE_MBPS = 10_000.0  # the relay only delays; the token bucket between the namespaces is the narrow place
_PINGS = 15


def main() -> None:
    side, *arguments = sys.argv[1:]
    if side == "server":
        _server(*arguments)
    else:
        _device(*arguments)


def _server(bundle: str, listen: str, rtt_ms: str) -> None:
    served = Served(Path(bundle))
    try:
        with Relay("127.0.0.1", served.port, mbps=_WIDE_MBPS, rtt_ms=float(rtt_ms), listen=listen) as relay:
            print(json.dumps({"port": relay.port}), flush=True)
            sys.stdin.read()
    finally:
        served.kill()


def _device(bundle: str, url: str, seconds: str, interval: str, local_ms: str) -> None:
    with slower(_times(Path(bundle), float(local_ms))) as engine:
        client = Client(url)
        _round_trips(client)  # the connection is made and warm
        before = _round_trips(client)
        session: Any = er.open(Path(bundle), engine=engine, threads=1, server=url)
        with session:
            # As the golden input, by which codecs are priced: what is all alike would be packed to nothing.
            row = np.random.default_rng(0).standard_normal((1, session.local.inputs[0].shape[1]))
            x = {session.local.inputs[0].name: row.astype(np.float32)}
            print(json.dumps({"ready": True}), flush=True)
            sys.stdin.readline()
            rows = _requests(session, x, float(seconds), float(interval))
            actions = msgspec.to_builtins(session.controller.actions.actions)
        sys.stdin.readline()  # the link is wide again
        round_trip_ms = statistics.median(before + _round_trips(client))
        client.close()
    print(json.dumps({"rows": rows, "actions": actions, "round_trip_ms": round_trip_ms}), flush=True)


def _times(bundle: Path, local_ms: float) -> int:
    """How many runs of the student take so long here: the local run lies between the fast link and the slow one."""
    with er.open(bundle, threads=1) as session:
        x = {tensor.name: np.ones((1, *tensor.shape[1:]), np.float32) for tensor in session.inputs}
        took = []
        for _ in range(50):
            start = time.perf_counter()
            session.run(x)
            took.append((time.perf_counter() - start) * 1e3)
    return max(round(local_ms / statistics.median(took)), 1)


def _round_trips(client: Client) -> list[float]:
    """Milliseconds of some empty requests."""
    found = []
    for _ in range(_PINGS):
        found.append(client.ping())
        time.sleep(0.02)
    return found


def _requests(session: Any, x: dict[str, np.ndarray], seconds: float, interval_s: float) -> list[dict[str, Any]]:
    """One request every interval, or as soon as the one before is answered where that takes longer."""
    rows: list[dict[str, Any]] = []
    start = time.monotonic()
    while (now := time.monotonic() - start) < seconds:
        result = session.infer(x)
        timing = result.timing
        local = not timing.fallback and result.decision.kind == "local"
        rows.append(
            {"at_s": now, "action": result.decision.action, "total_ms": timing.total_ms, "fallback": timing.fallback,
             "local_ms": timing.local_ms if local else None, "server_ms": timing.server_ms, "link": timing.uplink_ms}
        )  # fmt: skip
        time.sleep(max(start + len(rows) * interval_s - time.monotonic(), 0.0))
    return rows


if __name__ == "__main__":
    main()
