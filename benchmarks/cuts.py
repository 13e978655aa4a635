"""Every reference student cut: are the pieces equal to the whole, bit by bit, and what does a chain cost?"""

from __future__ import annotations

import itertools
import json
import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np

import edgekit
import edgekit_runtime as er
from benchmarks.alternate import alternate, ratio
from benchmarks.page import table, target
from edgekit.students import data, registry, resnet_cifar
from edgekit_runtime import engines
from edgekit_runtime.chain import Chain, split_points
from edgekit_runtime.errors import EdgekitError

HEADER = ("student", "graph", "places", "cut", "given up: bits differ", "pieces on disk / whole")
COSTS = ("student", "segments", "whole, ms", "chain joined, ms", "ratio [95 %]", "one by one", "target", "")

PLACES = (
    "Students at their tiny size, `--split-points auto`, both formats. Each place is compared with the uncut graph as "
    "head and tail at batch 1, 8 and 3 and at short and long sizes of every other axis; a place whose bits differ is "
    "given up, and counted here. Pieces on disk: bytes of all pieces over those of the whole file."
)
CHAINS = (
    "A chain that is run through every segment, against the uncut graph, one thread, alternated. `Joined` is what "
    "`Chain` does with segments between which nobody looks; `one by one` calls the engine for each segment."
)


def run() -> str:
    rows = [row for student in registry.TABLE for row in _student(student)]
    with tempfile.TemporaryDirectory() as place:
        costs = [_resnet20(Path(place)), _minilm(Path(place))]
    return "\n\n".join([PLACES, table(HEADER, rows), CHAINS, table(COSTS, costs)])


def _student(student: registry.Student) -> Iterator[tuple[object, ...]]:
    samples = [student.example(1, 12, size="tiny", seed=seed) for seed in range(24)]
    symbols = {axis.symbol: axis for axis in student.axes}
    dynamic = tuple(
        f"{tensor.name}:{axis}={size}:{symbols[size].min}-{min(symbols[size].max, 24)}"
        for tensor in student.inputs
        for axis, size in enumerate(tensor.shape)
        if isinstance(size, str)
    )
    with tempfile.TemporaryDirectory() as folder:
        try:
            bundle = edgekit.convert(
                student.build("tiny"),
                out=Path(folder) / "s.edge",
                calibration=samples,
                dynamic=dynamic,
                exits=student.exits,
                metric="cosine",
                max_drop=0.05,
                name=student.name,
            )
        except EdgekitError as error:
            yield student.name, "-", "-", "-", error.message[:80], "-"
            return
        for graph in bundle.manifest.graphs:
            if graph.role == "full":
                yield student.name, graph.id, *_counts(bundle, graph.id)
    print(student.name, flush=True)


def _counts(bundle: er.Bundle, graph: str) -> tuple[object, ...]:
    path = bundle.root / f"assets/cuts/{graph}.json"
    found = json.loads(path.read_text()) if path.is_file() else []
    differ = [row["place"] for row in found if "differs from the uncut graph" in row["fate"]]
    pieces = {piece.path: piece.bytes for piece in bundle.manifest.graphs if piece.of == graph}
    share = sum(pieces.values()) / bundle.graph(graph).bytes
    return len(found), len(split_points(bundle.manifest, graph)), ", ".join(differ) or "0", f"{share:.2f}"


def _resnet20(folder: Path) -> tuple[object, ...]:
    train, held = data.cifar10("train"), data.cifar10("eval")
    bundle = edgekit.convert(
        resnet_cifar.load(data.folder() / "models" / "resnet_cifar10" / "resnet20-12fca82f.th"),
        out=folder / "resnet20.edge",
        calibration={"image": resnet_cifar.normalize(train.pixels[:200])},
        eval={"image": resnet_cifar.normalize(held.pixels), "labels": held.labels},
        dynamic=("image:0=B:1-64",),
        formats=("onnx",),
    )
    return _cost("ResNet20", bundle, {"image": resnet_cifar.normalize(held.pixels[:1])})


def _minilm(folder: Path) -> tuple[object, ...]:
    student = registry.get("minilm")
    samples = [student.example(1, 24, seed=seed) for seed in range(16)]
    bundle = edgekit.convert(
        student.build(),
        out=folder / "minilm.edge",
        calibration=samples,
        dynamic=("ids:0=B:1-64", "ids:1=T:1-128", "mask:0=B:1-64", "mask:1=T:1-128"),
        metric="cosine",
        max_drop=0.05,
        formats=("onnx",),
    )
    return _cost("MiniLM, 24 words", bundle, student.example(1, 24, seed=99))


def _cost(name: str, bundle: er.Bundle, inputs: dict[str, np.ndarray]) -> tuple[object, ...]:
    graph = "onnx.int8"
    points = split_points(bundle.manifest, graph)
    borders = [None, *(point.id for point in points), None]
    segments = [bundle.graph_path(name) for name in (*points[0].before, *points[0].after)]
    outputs = {tensor.name for tensor in bundle.graph(graph).outputs}
    joined = engines.get("onnxruntime").load_joined(segments, outputs, threads=1)  # as `Chain` joins them
    with er.open(bundle.root, graph=graph, threads=1) as whole:
        singles = [Chain(bundle, graph, start=a, stop=b) for a, b in itertools.pairwise(borders)]

        def one_by_one() -> object:
            crossing = dict(inputs)
            for single in singles:
                crossing = single.run(crossing)
            return crossing

        calls = {"whole": lambda: whole.run(inputs), "joined": lambda: joined.run(inputs), "single": one_by_one}
        seen = alternate(calls, seconds=10)
        for single in singles:
            single.close()
    times, low, high = ratio(seen["joined"], seen["whole"])
    return (
        name,
        len(points) + 1,
        f"{seen['whole'].median_ms:.3f}",
        f"{seen['joined'].median_ms:.3f}",
        f"{times:.3f} [{low:.3f}, {high:.3f}]",
        f"{seen['single'].median_ms / seen['whole'].median_ms:.2f}x",
        *target("≤ 1.05x", times <= 1.05),
    )
