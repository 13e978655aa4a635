"""Trained CIFAR ResNets, both formats: accuracy, label agreement, bytes, speed of int8 over fp32."""

from __future__ import annotations

import tempfile
from pathlib import Path

import edgekit
from benchmarks.common import QUALITY_HEADER, SPEED_HEADER, quality_rows, speed_row
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
            rows += quality_rows(name, bundle)
            speeds.append(speed_row(name, bundle, {"image": evaluation["image"][:1]}))
    return "\n\n".join(
        [
            "Calibrated on 200 training images, evaluated on the 500 held-back ones. Targets: drop ≤ 0.6 points, same "
            "label ≥ 98.5 %, bytes ≤ 0.30x, int8 at least 2x faster than fp32 on ONNX Runtime, one thread, alternated.",
            table(QUALITY_HEADER, rows),
            table(SPEED_HEADER, speeds),
        ]
    )
