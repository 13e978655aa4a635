"""Measurements and a bundle with quality rows, made up, with hostile text in them."""

from __future__ import annotations

from pathlib import Path

import msgspec
import numpy as np

from edgekit_runtime.bundle import Bundle, open_bundle
from edgekit_runtime.manifest import Quality
from edgekit_runtime.measurement import Energy, Environment, Latency, Measurement, Memory, OpCost, Verdict
from edgekit_runtime.testing import make_bundle, matmul_onnx

NASTY = '<script>alert("x")</script>'


def measurement(graph: str, p50: float, **more) -> Measurement:
    samples = tuple(np.random.default_rng(int(p50 * 1000)).lognormal(np.log(p50), 0.05, 700).tolist())
    values = {
        "device": "local-1234abcd",
        "engine": "onnxruntime",
        "engine_version": "1.32.0",
        "threads": 1,
        "precision": graph.split(".")[1],
        "graph": graph,
        "inputs": {"x": (1, 64)},
        "latency_ms": Latency(
            p50=p50,
            p90=p50 * 1.1,
            p99=p50 * 1.3,
            mean=p50,
            n=700,
            samples=samples,
            interval_95=(p50 * 0.99, p50 * 1.01),
        ),
        "open_ms": 12.0,
        "first_ms": 3.0,
        "memory": Memory(file_bytes=int(p50 * 1e6), open_bytes=4_000_000, peak_rss_bytes=60_000_000),
        "energy": Energy(kind="unavailable", reason="no sensor here"),
        "ops": tuple(OpCost(name=f"conv_{i}", kind="Conv", ms=0.1 * i, macs=1000, int8=i % 2 == 0) for i in range(20)),
        "environment": Environment(cpu="AMD EPYC, 2 cores", load=0.4, swap=0),
        "verdict": Verdict(kind="sound"),
    }
    return Measurement(**{**values, **more})


def judged_bundle(folder: Path) -> Bundle:
    def judged(manifest):
        rows = tuple(
            Quality(
                graph=graph, metric="top1", higher_is_better=True, reference=0.917, value=value, drop=0.917 - value,
                interval_95=(-0.01, 0.02), n=500, labels=True, gate="passed", reason=f"within 0.01 {NASTY}",
            )
            for graph, value in (("onnx.fp32", 0.917), ("onnx.int8", 0.914))
        )  # fmt: skip
        return msgspec.structs.replace(manifest, quality=rows)

    data = matmul_onnx(np.ones((64, 8), np.float32))
    path = make_bundle(
        folder / "digits.edge",
        graphs={"onnx.fp32": data, "onnx.int8": data},
        change=judged,
        weights=np.ones((64, 8), np.float32),
    )
    opened = open_bundle(path)
    noisy = Verdict(kind="noisy", reasons=(f"other processes used 0.9 of 2 cores {NASTY}",))
    for row in (
        measurement("onnx.fp32", 0.77, bundle_id=opened.bundle_id),
        measurement("onnx.int8", 0.34, bundle_id=opened.bundle_id, verdict=noisy),
        measurement("onnx.int8", 3.4, bundle_id=opened.bundle_id, device="pi4", ops=()),
    ):
        opened.add_measurement(row)
    return opened
