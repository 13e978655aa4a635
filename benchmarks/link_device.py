"""The device's half of `benchmarks.link`: one session in its own network namespace, behind a delay.

    python -m benchmarks.link_device BUNDLE HOST:PORT SECONDS INTERVAL_S RTT_MS SLOWER

Prints a line of JSON when it is ready, begins when it reads a line, and ends with what it saw.
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
from edgekit.demo.relay import Relay
from edgekit.demo.slow import slower
from edgekit_runtime.remote.client import Client

_WIDE_MBPS = 10_000.0  # the relay only delays; the token bucket between the namespaces is the narrow place
_PINGS = 15


def main() -> None:
    bundle, address, seconds, interval, rtt, times = sys.argv[1:]
    host, port = address.rsplit(":", 1)
    with Relay(host, int(port), mbps=_WIDE_MBPS, rtt_ms=float(rtt)) as relay, slower(int(times)) as engine:
        url = f"grpc://127.0.0.1:{relay.port}"
        client = Client(url)
        round_trip_ms = statistics.median(client.ping() for _ in range(_PINGS))
        client.close()
        session: Any = er.open(Path(bundle), engine=engine, threads=1, server=url)
        with session:
            x = {session.inputs[0].name: np.ones((1, session.inputs[0].shape[1]), np.float32)}
            print(json.dumps({"round_trip_ms": round_trip_ms}), flush=True)
            sys.stdin.readline()
            rows = _requests(session, x, float(seconds), float(interval))
            actions = msgspec.to_builtins(session.controller.actions.actions)
    print(json.dumps({"rows": rows, "actions": actions}), flush=True)


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
