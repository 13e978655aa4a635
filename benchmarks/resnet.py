"""Trained CIFAR ResNets, both formats: accuracy, label agreement, bytes, speed of int8 over fp32."""

from __future__ import annotations

import tempfile
from pathlib import Path

import torch

import edgekit
from benchmarks.common import QUALITY_HEADER, SPEED_HEADER, quality_rows, speed_row
from benchmarks.page import table
from edgekit.students import data, resnet_cifar
from edgekit_converters.captured import Arrays


def checkpoints() -> dict[str, Path]:
    """The trained weights by the student's name; raises UsageError without the data folder."""
    folder = data.folder() / "models" / "resnet_cifar10"
    return {path.name.partition("-")[0]: path for path in sorted(folder.glob("*.th"))}


def material(name: str) -> tuple[torch.nn.Module, Arrays, Arrays]:
    """A trained student, 200 of the images it was trained on, and the 500 held-back ones with labels."""
    train, held = data.cifar10("train"), data.cifar10("eval")
    calibration = {"image": resnet_cifar.normalize(train.pixels[:200])}
    evaluation = {"image": resnet_cifar.normalize(held.pixels), "labels": held.labels}
    return resnet_cifar.load(checkpoints()[name]), calibration, evaluation


def run() -> str:
    rows, speeds = [], []
    for name in ("resnet20", "resnet44"):
        module, calibration, evaluation = material(name)
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
