"""A bottleneck at one split point of ResNet20, beside sending the picture as JPEG or WebP at the same accuracy.

python -m benchmarks bottleneck             trains once (build/bottleneck), then measures
python -m benchmarks bottleneck --train     only trains
"""

from __future__ import annotations

import argparse
import io
import tempfile
from collections.abc import Sequence
from pathlib import Path

import msgspec
import numpy as np
import torch
from torch import nn

import edgekit
import edgekit_runtime as er
from benchmarks.exits_material import kept, say
from benchmarks.page import table, target
from edgekit.students import data, resnet_cifar
from edgekit.students.sampling import seeded
from edgekit.training import views
from edgekit.training.bottleneck import ConvBottleneck, Distillation, Narrow, distil, insert_bottleneck
from edgekit_runtime.chain import split_points

PLACE, CHANNELS, NARROW, STRIDE = "layer3.0", 64, 8, 1
EPOCHS = 12
VIEWS = (views.moved, views.zoomed, views.moved, views.mixed)
FOLDER = Path(__file__).parent.parent / "build" / "bottleneck"
GRAPH = "onnx.int8"
QUALITIES = (5, 10, 20, 30, 40, 50, 60, 70, 80, 90, 95)


def run(words: Sequence[str] = ()) -> str:
    parser = argparse.ArgumentParser(prog="python -m benchmarks bottleneck")
    parser.add_argument("--train", action="store_true", help="only train what is missing")
    asked = parser.parse_args(words)
    train, held = data.cifar10("train"), data.cifar10("eval")
    student = resnet_cifar.load(data.folder() / "models" / "resnet_cifar10" / "resnet20-12fca82f.th")
    narrow, told = taught(student, train, FOLDER)
    if asked.train:
        return f"trained: {told}"
    with tempfile.TemporaryDirectory() as place:
        plain = _convert(student, train, held, Path(place) / "plain.edge")
        small = _convert(narrow, train, held, Path(place) / "narrow.edge")
        before = next(p.bytes for p in split_points(plain.manifest, GRAPH) if p.place == PLACE)
        after = min(p.bytes for p in split_points(small.manifest, GRAPH) if p.place.startswith(f"{PLACE}.bottleneck"))
        accuracy, narrowed = _accuracy(plain, held.pixels, held.labels), _accuracy(small, held.pixels, held.labels)
        pictures = [_cheapest(plain, held, kind, narrowed) for kind in ("JPEG", "WEBP")]
    drop = accuracy - narrowed
    rows = [
        ("int8 split point", before, f"{accuracy:.1%}", "", ""),
        ("with the bottleneck", after, f"{narrowed:.1%}", *target("≤ 1/8 of the bytes", after * 8 <= before)),
        ("points lost", f"{100 * drop:.1f}", "", *target("≤ 1.5", drop <= 0.015)),
        *(
            (f"picture as {kind}, quality {quality}", size, f"{seen:.1%}", "", "")
            for kind, quality, size, seen in pictures
        ),
    ]
    return "\n\n".join(
        [
            f"ResNet20 cut behind `{PLACE}`; the bottleneck ({CHANNELS} to {NARROW} channels) learnt by head "
            f"distillation, also of what the tail makes of it, on {len(VIEWS)} changed forms of 4,000 training "
            f"pictures, {EPOCHS} epochs, without labels. Its "
            f"encoder has {told.encoder_bytes} bytes, its error is {told.error:.2f} of the tensor's variance. "
            "Accuracy of the int8 "
            "graphs on 500 held-back pictures. JPEG and WebP: the lowest quality with which the whole model is at "
            "least as right as the one with the bottleneck; mean bytes a picture.",
            table(("what is sent", "bytes", "top-1", "target", ""), rows),
        ]
    )


def taught(student: nn.Module, train: data.Images, folder: Path) -> tuple[nn.Module, Narrow]:
    """The student with its bottleneck, and what that brings; taught where the folder does not hold both."""
    with seeded(0):
        narrow = insert_bottleneck(student, PLACE, ConvBottleneck(CHANNELS, NARROW, STRIDE))
    facts = folder / "narrow.json"

    def teach() -> None:
        generator = torch.Generator().manual_seed(0)
        parts = torch.from_numpy(resnet_cifar.normalize(train.pixels)).split(100)
        images = torch.cat([view(part, generator) for view in VIEWS for part in parts])
        plan = Distillation(epochs=EPOCHS)
        told = distil(narrow, PLACE, {"image": images.numpy()}, plan, say, tail=lambda x: _later(student, x))
        folder.mkdir(parents=True, exist_ok=True)
        facts.write_bytes(msgspec.json.encode(told))

    kept(narrow, folder / "narrow.safetensors", teach)
    return narrow, msgspec.json.decode(facts.read_bytes(), type=Narrow)


def _later(student: nn.Module, x: torch.Tensor) -> list[torch.Tensor]:
    """What the blocks of the third stage behind the bottleneck make of its tensor."""
    found = []
    for block in list(student.layer3)[int(PLACE.rpartition(".")[2]) + 1 :]:
        x = block(x)
        found.append(x)
    return found


def _convert(module: object, train: data.Images, held: data.Images, out: Path) -> er.Bundle:
    return edgekit.convert(
        module,
        out=out,
        calibration={"image": resnet_cifar.normalize(train.pixels[:200])},
        eval={"image": resnet_cifar.normalize(held.pixels), "labels": held.labels},
        dynamic=("image:0=B:1-64",),
        formats=("onnx",),
        split_points=("all",),
        max_drop=0.02,
    )


def _accuracy(bundle: er.Bundle, pixels: np.ndarray, labels: np.ndarray) -> float:
    with er.open(bundle.root, graph=GRAPH, threads=1) as session:
        answers = [
            session.run({"image": resnet_cifar.normalize(part)})["output"] for part in np.array_split(pixels, 10)
        ]
    return float((np.concatenate(answers).argmax(1) == labels).mean())


def _cheapest(bundle: er.Bundle, held: data.Images, kind: str, wanted: float) -> tuple[str, int, int, float]:
    """The lowest quality at which pictures sent this way are answered as well: kind, quality, mean bytes, accuracy."""
    from PIL import Image

    for quality in QUALITIES:
        sizes, decoded = [], []
        for picture in held.pixels:
            buffer = io.BytesIO()
            Image.fromarray(picture).save(buffer, kind, quality=quality)
            sizes.append(buffer.tell())
            decoded.append(np.asarray(Image.open(buffer).convert("RGB")))
        seen = _accuracy(bundle, np.stack(decoded), held.labels)
        if seen >= wanted or quality == QUALITIES[-1]:
            return kind, quality, round(float(np.mean(sizes))), seen
    raise AssertionError("no quality was tried")
