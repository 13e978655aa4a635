"""Writes `policy_costs.json`: what every action of four real bundles costs on six devices beside three servers.

    python -m benchmarks.policy_costs [--fresh]

Bundles are converted once into build/policies: the demo's CNN, ResNet44 with exits on its frozen body (certified on its
held-back pictures), a MobileNetV1 of width 1 at 224 x 224 with seeded weights, MiniLM-L6 with its real ones, asked
about a sentence of nine word pieces. Bytes are those of the real tensors; times are edgekit's predictions per operator
(`edgekit.devices`), which docs/results/prediction.md judges; codecs are timed here and scaled as `edgekit plan` does.
Only actions that no other beats in head and bytes at once are kept, with what the table reads, to four digits.
"""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import msgspec
import numpy as np

import edgekit
import edgekit_runtime as er
from edgekit import devices
from edgekit.planner import price
from edgekit.planner.times import Times
from edgekit_runtime.adaptive import ActionCost

FOLDER = Path(__file__).parent.parent / "build" / "policies"
FILE = Path(__file__).with_suffix(".json")
# Name: profile, threads.
DEVICES = {
    "zero2w-1core": ("pi-zero-2-w", 1),
    "zero2w": ("pi-zero-2-w", 4),
    "pi4-1core": ("pi4", 1),
    "pi4": ("pi4", 4),
    "pi5-1core": ("pi5", 1),
    "n100": ("n100", 4),
}
SERVERS = {"x86": ("x86-vnni", 2), "pi5": ("pi5", 4)}
MOST_SPLITS = 5


class Costs(msgspec.Struct, frozen=True):
    """The file: edgekit's version, and actions by student, device and server."""

    made_by: str
    actions: dict[str, dict[str, dict[str, tuple[ActionCost, ...]]]]


def read() -> Costs:
    """What the last run of this command left."""
    return msgspec.json.decode(FILE.read_bytes(), type=Costs)


def main() -> int:
    if "--fresh" in sys.argv[1:]:
        shutil.rmtree(FOLDER, ignore_errors=True)
    FOLDER.mkdir(parents=True, exist_ok=True)
    found: dict[str, dict[str, dict[str, tuple[ActionCost, ...]]]] = {}
    for name, convert in STUDENTS.items():
        bundle = _once(name, convert)
        for device, (profile, threads) in DEVICES.items():
            own = Times(bundle, devices.load(profile), threads)
            for server, (other, workers) in SERVERS.items():
                rows = price(bundle, own, Times(bundle, devices.load(other), workers)).actions
                found.setdefault(name, {}).setdefault(device, {})[server] = tuple(map(short, kept(rows)))
        print(name, {device: round(local_ms(row["x86"]), 2) for device, row in found[name].items()}, flush=True)
    costs = Costs(f"edgekit {edgekit.__version__}", found)
    part = FILE.with_suffix(".part")  # an interrupted run leaves no half a file
    part.write_text(written(costs))
    part.replace(FILE)
    return 0


def written(costs: Costs) -> str:
    """The file's text: a line an action, without what an action has anyway."""
    students = _block({name: _block(by_device) for name, by_device in _lines(costs).items()})
    return f'{{"made_by": {json.dumps(costs.made_by)}, "actions": {students}}}\n'


def _lines(costs: Costs) -> dict[str, dict[str, str]]:
    """Text of what each device has, by student."""
    return {
        student: {
            device: _block({server: "[\n" + ",\n".join(map(_told, rows)) + "]" for server, rows in by_server.items()})
            for device, by_server in by_device.items()
        }
        for student, by_device in costs.actions.items()
    }


def _block(rows: dict[str, str]) -> str:
    return "{\n" + ",\n".join(f"{json.dumps(name)}: {text}" for name, text in rows.items()) + "}"


def _told(row: ActionCost) -> str:
    usual = msgspec.to_builtins(ActionCost(id=row.id, kind=row.kind))
    whole = msgspec.to_builtins(row)
    return json.dumps({name: value for name, value in whole.items() if name in ("id", "kind") or value != usual[name]})


def short(row: ActionCost) -> ActionCost:
    """Every time with four digits, which is more than a prediction is worth."""
    rounded = {
        name: float(f"{value:.4g}") for name in row.__struct_fields__ if isinstance(value := getattr(row, name), float)
    }
    return msgspec.structs.replace(row, **rounded)


def kept(rows: Sequence[ActionCost]) -> Iterator[ActionCost]:
    """The local run, exits, and of what is sent only that which no other beats in device time and bytes."""
    rows = [row for row in rows if row.kind != "variant"]
    yield from (row for row in rows if row.offload_fraction == 0.0)
    for kind, most in (("offload", 3), ("split", MOST_SPLITS), ("exit", 2)):
        sent = [row for row in rows if row.kind == kind and row.offload_fraction > 0.0]
        front = sorted(
            (row for row in sent if not any(_beats(other, row) for other in sent)), key=lambda row: row.depth
        )
        places = sorted({round(place) for place in np.linspace(0, len(front) - 1, min(most, len(front)))})
        yield from (front[place] for place in places)


def _beats(other: ActionCost, row: ActionCost) -> bool:
    mine, theirs = (row.head_ms + row.encode_ms, row.bytes_up), (other.head_ms + other.encode_ms, other.bytes_up)
    return theirs != mine and all(a <= b for a, b in zip(theirs, mine, strict=True))


def local_ms(rows: Sequence[ActionCost]) -> float:
    """Time of the whole student on the device."""
    return next(row.head_ms for row in rows if row.kind == "local")


def _once(name: str, convert: Callable[[Path], object]) -> er.Bundle:
    out = FOLDER / f"{name}.edge"
    if not out.is_dir():
        print(f"{name}: converting", flush=True)
        convert(out)
    return er.open_bundle(out)


def _demo_cnn(out: Path) -> None:
    from edgekit.demo.material import prepare
    from edgekit.demo.show import PICTURES

    made = prepare(FOLDER / "demo").pictures
    edgekit.convert(
        made.source,
        weights=made.weights,
        calibration=made.calibration,
        eval=made.evaluation,
        dynamic=PICTURES.dynamic,
        exits=PICTURES.exits,
        out=out,
    )


def _resnet44(out: Path) -> None:
    from benchmarks import exits_material
    from edgekit_converters.exits.calibrate import Request, calibrate_exits

    given = exits_material.resnet44(FOLDER.parent / "exits")
    plain, data = out.with_name("resnet44-uncertified.edge"), FOLDER / "resnet44.npz"
    edgekit.convert(
        given.module,
        calibration={key: value[:200] for key, value in given.fit.items()},
        eval={**given.held, "labels": given.held_labels},
        exits=given.exits,
        dynamic=given.dynamic,
        out=plain,
        force=True,
    )
    np.savez(data, **given.held, labels=given.held_labels)
    calibrate_exits(plain, out, Request(data=data, risks=(0.02,), agreement=True), lambda line: None)


def _mobilenet224(out: Path) -> None:
    from sklearn.datasets import load_sample_images

    from edgekit.students.mlperf_tiny import mobilenet
    from edgekit.students.sampling import seeded, settle_batch_norm

    with seeded(0):
        module = mobilenet(width=1.0, classes=1000)
    photographs = load_sample_images().images
    random = np.random.default_rng(0)
    crops = []
    for number in range(64):
        image = photographs[number % 2]
        y, x = (int(random.integers(0, size - 224)) for size in image.shape[:2])
        crops.append(image[y : y + 224, x : x + 224].transpose(2, 0, 1))
    images = np.stack(crops).astype(np.float32) / np.float32(255)
    settle_batch_norm(module, {"image": images[:16]})
    edgekit.convert(
        module.eval(),
        calibration={"image": images[:32]},
        eval={"image": images[32:]},
        dynamic=("image:0=B:1-8",),
        metric="cosine",
        max_drop=0.02,
        out=out,
    )


def _minilm(out: Path) -> None:
    from edgekit.students import data, minilm

    texts = {"calibration": data.sst2("train").texts[:64], "eval": data.sst2("dev").texts[:100]}
    for name, lines in texts.items():
        (FOLDER / f"{name}.txt").write_text("\n".join(lines))
    words = np.random.default_rng(0).integers(1000, 20000, (1, 16), np.int64)
    edgekit.convert(
        str(minilm.package_folder()),
        example={"input_ids": words, "attention_mask": np.ones_like(words)},
        calibration=FOLDER / "calibration.txt",
        eval=FOLDER / "eval.txt",
        dynamic=("input_ids:0=B:1-8", "input_ids:1=T:1-128", "attention_mask:0=B:1-8", "attention_mask:1=T:1-128"),
        metric="cosine",
        max_drop=0.005,
        out=out,
    )


STUDENTS = {"demo-cnn": _demo_cnn, "resnet44": _resnet44, "mobilenet224": _mobilenet224, "minilm": _minilm}

if __name__ == "__main__":
    sys.exit(main())
