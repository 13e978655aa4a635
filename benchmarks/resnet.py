"""Trained CIFAR ResNets, both formats: accuracy, label agreement, bytes, speed of int8 over fp32."""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np

import edgekit
import edgekit_runtime as er
from benchmarks.alternate import alternate, ratio, told
from benchmarks.page import table
from edgekit.students import data, resnet_cifar

CHECKPOINTS = {"resnet20": "resnet20-12fca82f.th", "resnet44": "resnet44-014dd654.th"}


def run() -> str:
    train, held = data.cifar10("train"), data.cifar10("eval")
    calibration = {"image": resnet_cifar.normalize(train.pixels[:200])}
    evaluation = {"image": resnet_cifar.normalize(held.pixels), "labels": held.labels}
    rows, speeds = [], []
    for name, checkpoint in CHECKPOINTS.items():
        module = resnet_cifar.load(data.folder() / "models" / "resnet_cifar10" / checkpoint)
        with tempfile.TemporaryDirectory() as folder:
            bundle = edgekit.convert(
                module, out=Path(folder) / f"{name}.edge", calibration=calibration, eval=evaluation, max_drop=0.006
            )
            rows += _rows(name, bundle)
            speeds.append(_speed(name, bundle))
    return "\n\n".join(
        [
            "Calibrated on 200 training images, evaluated on the 500 held-back ones. Targets: drop ≤ 0.6 points, same "
            "label ≥ 98.5 %, bytes ≤ 0.30x, int8 ≥ 2x faster than fp32 on ONNX Runtime (one thread, alternated).",
            table(("student", "graph", "top-1", "drop [95 %]", "same label", "bytes", "of fp32", "gate"), rows),
            table(("student", "ORT fp32 ms", "ORT int8 ms", "speed-up [95 %]", "LiteRT fp32 ms", "LiteRT int8 ms", "speed-up"), speeds),
        ]
    )


def _rows(name: str, bundle: er.Bundle) -> list[tuple[object, ...]]:
    rows: list[tuple[object, ...]] = []
    for quality in bundle.manifest.quality:
        graph = bundle.graph(quality.graph) if quality.graph in {g.id for g in bundle.manifest.graphs} else None
        if graph is None:
            rows.append((name, quality.graph, quality.value, quality.drop, "-", "-", "-", quality.gate))
            continue
        fp32 = bundle.graph(f"{graph.format}.fp32")
        same = next(p.same_label_fraction for p in bundle.manifest.parity if p.graph == graph.id)
        low, high = quality.interval_95
        rows.append(
            (
                name,
                graph.id,
                f"{quality.value:.3f} (fp32 {quality.reference:.3f})",
                f"{100 * quality.drop:+.1f} [{100 * low:+.1f}, {100 * high:+.1f}]",
                f"{100 * (same or 0):.1f} %",
                graph.bytes,
                f"{graph.bytes / fp32.bytes:.3f}x",
                quality.gate,
            )
        )
    return rows


def _speed(name: str, bundle: er.Bundle) -> tuple[object, ...]:
    image = {"image": bundle.golden_inputs()["image"][:1]}
    ids = ("onnx.fp32", "onnx.int8", "tflite.fp32", "tflite.int8")
    sessions = {graph: er.open(bundle.root, graph=graph, threads=1) for graph in ids}
    seen = alternate({graph: (lambda s=session: s.run(image)) for graph, session in sessions.items()}, 12)
    for session in sessions.values():
        session.close()
    return (
        name,
        seen["onnx.fp32"],
        seen["onnx.int8"],
        told(ratio(seen["onnx.fp32"], seen["onnx.int8"])),
        seen["tflite.fp32"],
        seen["tflite.int8"],
        told(ratio(seen["tflite.fp32"], seen["tflite.int8"])),
    )
