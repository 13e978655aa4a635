"""Eight clients and tails of MiniLM: throughput over the largest batch and the wait bound.

Clients, server and engine share the machine's cores. The servers stand side by side and are stormed in turns, an order
drawn anew each round, so that a busy neighbour meets them all alike. Beside the rate stands the processor time that the
server spends on a request: it does not depend on neighbours. And beside that what the engine alone gains from batches:
the tail in this process, one thread, no server and no clients. Joining requests cannot gain more than that.
"""

from __future__ import annotations

import random
import signal
import statistics
import threading
import time
from pathlib import Path

import numpy as np
import psutil

import edgekit
import edgekit_runtime as er
from benchmarks.alternate import alternate
from benchmarks.minilm import DYNAMIC
from benchmarks.page import table, target
from benchmarks.serving import Served
from edgekit.students import data, minilm
from edgekit_runtime.chain import Chain
from edgekit_runtime.remote.client import Client, Late

CLIENTS, SECONDS, ROUNDS, ALONE_SECONDS = 8, 1.0, 3, 4.0
MIXED = (16, 20, 24, 32)
PLACE = "model.encoder.layer.2"  # after three of six layers
# Largest batch, wait ms, workers. With one worker what arrives while it runs is the next batch.
SETTINGS = (
    (1, 0.0, 2),
    (1, 0.0, 1),
    (2, 2.0, 2),
    (4, 0.0, 2),
    (4, 2.0, 2),
    (8, 2.0, 2),
    (4, 0.0, 1),
    (8, 0.0, 1),
    (8, 2.0, 1),
)


def converted(folder: Path) -> Path:
    """MiniLM with its real weights, ONNX in fp32 and int8, cut after each layer; what lies there already is taken."""
    out = folder / "minilm.edge"
    if out.exists():
        return out
    folder.mkdir(parents=True, exist_ok=True)
    for name, texts in (("calibration", data.sst2("train").texts[:64]), ("eval", data.sst2("dev").texts[:100])):
        (folder / f"{name}.txt").write_text("\n".join(texts))
    edgekit.convert(
        str(minilm.package_folder()),
        out=out,
        dynamic=DYNAMIC,
        calibration=folder / "calibration.txt",
        eval=folder / "eval.txt",
        metric="cosine",
        max_drop=0.005,
        formats=["onnx"],
        split_points=("auto",),
    )
    return out


def run(folder: Path) -> str:
    """The curves; a bundle that lies in the folder already is taken."""
    path, parts = converted(folder), []
    for graph, lengths in (("onnx.fp32", (16,)), ("onnx.int8", (16,)), ("onnx.int8", (32,)), ("onnx.int8", MIXED)):
        told = " and ".join(map(str, lengths))
        parts += [f"\n#### {graph}, tail behind {PLACE}, {told} tokens\n", _curve(path, graph, lengths)]
    return "\n".join(parts)


def _curve(path: Path, graph: str, lengths: tuple[int, ...]) -> str:
    model, requests = _requests(path, graph, lengths)
    servers = [
        Served(path, 0, *f"--batch {most} --wait-ms {wait} --workers {workers} --limit-ms 5000".split())
        for most, wait, workers in SETTINGS
    ]
    seen: list[list[tuple[float, float, list[float]]]] = [[] for _ in servers]
    order = list(range(len(servers)))
    for number in range(ROUNDS + 1):
        random.Random(number).shuffle(order)
        for place in order:
            found = storm(servers[place], model, requests, SECONDS if number else 0.3)
            if number:  # the first round warms up
                seen[place].append(found)
    for server in servers:
        server.kill(signal.SIGTERM)
    alone = _alone(path, graph, requests)
    rates = [statistics.median(rate for rate, _, _ in rows) for rows in seen]
    costs = [statistics.median(cost for _, cost, _ in rows) for rows in seen]
    best = max(rate for (most, _, _), rate in zip(SETTINGS, rates, strict=True) if most == 1)
    lines = []
    for (most, wait, workers), rate, cost, rows in zip(SETTINGS, rates, costs, seen, strict=True):
        times = [ms for _, _, part in rows for ms in part]
        gain = rate / best
        verdict = target(">= 1.3x", gain >= 1.3) if most > 1 and rate == max(rates) else ("", "")
        p50, p99 = np.quantile(times, (0.5, 0.99))
        ratio = f"{gain:.2f}x"
        engine = f"{alone[most][0]:.2f} ms, {alone[most][1]:.2f}x"
        lines.append(
            (most, wait, workers, f"{rate:.0f}", ratio, engine, f"{cost:.2f}", f"{p50:.1f}", f"{p99:.1f}", *verdict)
        )
    head = (
        "largest batch",
        "wait ms",
        "workers",
        "requests a second",
        "of the best without batches",
        "engine alone: CPU ms a sample, of batch 1",
        "server's CPU ms a request",
        "p50 ms",
        "p99 ms",
    )
    return table((*head, "target", ""), lines)


def _alone(path: Path, graph: str, requests: list[dict[str, np.ndarray]]) -> dict[int, tuple[float, float]]:
    """By batch: CPU ms a sample of the tail alone on one thread, and how many times less that is than at batch 1.

    Of several lengths the mean: only requests of one length are joined.
    """
    sizes = sorted({most for most, _, _ in SETTINGS})
    with er.open_bundle(path) as bundle:
        point = next(row for row in bundle.manifest.split_points if row.of == graph and row.place == PLACE)
        with Chain(bundle, graph, start=point.id, threads=1) as tail:
            joined = {
                (size, number): {name: np.concatenate([array] * size) for name, array in row.items()}
                for size in sizes
                for number, row in enumerate(requests)
            }
            seen = alternate(
                {f"{key}": lambda inputs=inputs: tail.run(inputs) for key, inputs in joined.items()},
                ALONE_SECONDS,
                clock=time.thread_time_ns,
            )
    ms = {
        size: statistics.mean(seen[f"{(size, number)}"].median_ms / size for number in range(len(requests)))
        for size in sizes
    }
    return {size: (ms[size], ms[1] / ms[size]) for size in sizes}


def _requests(path: Path, graph: str, lengths: tuple[int, ...]) -> tuple[str, list[dict[str, np.ndarray]]]:
    """The tail's name, and what the head makes of one text of each length."""
    rng = np.random.default_rng(0)
    with er.open_bundle(path) as bundle, Chain(bundle, graph, stop=PLACE) as head:
        point = next(row for row in bundle.manifest.split_points if row.of == graph and row.place == PLACE)
        ids = [
            {"input_ids": rng.integers(1000, 20000, (1, length)), "attention_mask": np.ones((1, length), np.int64)}
            for length in lengths
        ]
        return f"{bundle.manifest.name}.tail.{point.id}", [head.run(row) for row in ids]


def storm(
    server: Served, model: str, requests: list[dict[str, np.ndarray]], seconds: float
) -> tuple[float, float, list[float]]:
    """Requests a second, processor ms of the server a request, and the time of each request in ms."""
    times: list[float] = []
    end = time.monotonic() + seconds

    def work(number: int) -> None:
        client, step = Client(server.url, streams=True), number
        while time.monotonic() < end:
            start = time.perf_counter()
            try:
                client.call(model, requests[step % len(requests)], timeout_s=20)
            except Late:
                continue
            times.append((time.perf_counter() - start) * 1e3)
            step += 1
        client.close()

    process = psutil.Process(server.process.pid)
    before = sum(process.cpu_times()[:2])
    threads = [threading.Thread(target=work, args=(number,)) for number in range(CLIENTS)]
    start = time.monotonic()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    took = time.monotonic() - start
    spent = sum(process.cpu_times()[:2]) - before
    return len(times) / took, spent * 1e3 / max(len(times), 1), times
