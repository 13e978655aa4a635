"""The work behind the page `cuts`, one step a process: `python -m benchmarks.cut_steps STEP NAME FOLDER`.

    places    converts a tiny student with every undominated place cut and proven, and counts what became of them
    chain     converts a full student and times its chain of segments against the uncut graph

Each step writes FOLDER/NAME.STEP.json.
"""

from __future__ import annotations

import itertools
import json
import sys
import tempfile
import warnings
from pathlib import Path

import numpy as np

import edgekit
import edgekit_runtime as er
from benchmarks.alternate import alternate, ratio
from benchmarks.material import inputs_at
from benchmarks.steps import leave
from edgekit.students import data, registry, resnet_cifar
from edgekit_runtime import engines
from edgekit_runtime.chain import Chain, split_points

LONGEST = 24
SECONDS = 10


def places_step(name: str) -> dict[str, object]:
    """Counts of each graph of a student: `rows`, and `refused`, the formats without a graph."""
    student = registry.get(name)
    samples = [student.example(1, 12, size="tiny", seed=seed) for seed in range(24)]
    with tempfile.TemporaryDirectory() as folder:
        bundle = edgekit.convert(
            student.build("tiny"),
            out=Path(folder) / "s.edge",
            calibration=samples,
            dynamic=student.dynamic({axis.symbol: max(LONGEST, axis.min) for axis in student.axes}),
            exits=student.exits,
            states=tuple(f"{before}={after}" for before, after in student.states),
            metric="cosine",
            max_drop=0.05,
            name=student.name,
        )
        graphs = [graph for graph in bundle.manifest.graphs if graph.role == "full"]
        made = {graph.format for graph in graphs}
        refused = [f"{r.format} {r.precision}: {r.reason}" for r in bundle.manifest.refused if r.format not in made]
        return {"rows": [_counts(bundle, graph.id) for graph in graphs], "refused": refused}


def _counts(bundle: er.Bundle, graph: str) -> dict[str, object]:
    path = bundle.root / f"assets/cuts/{graph}.json"
    found = json.loads(path.read_text()) if path.is_file() else []
    places = [row for row in found if "place" in row]
    pieces = {piece.path: piece.bytes for piece in bundle.manifest.graphs if piece.of == graph}
    return {
        "graph": graph,
        "places": len(places),
        "cut": len(split_points(bundle.manifest, graph)),
        "differ": {row["place"]: row["fate"] for row in places if "differs from the uncut graph" in row["fate"]},
        "share": sum(pieces.values()) / bundle.graph(graph).bytes,
        "whole": next((row["fate"] for row in found if "place" not in row), ""),
    }


def _resnet20(folder: Path) -> dict[str, object]:
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


def _minilm(folder: Path) -> dict[str, object]:
    student = registry.get("minilm")
    samples = [student.example(1, LONGEST, seed=seed) for seed in range(16)]
    bundle = edgekit.convert(
        student.build(),
        out=folder / "minilm.edge",
        calibration=samples,
        dynamic=student.dynamic(),
        metric="cosine",
        max_drop=0.05,
        formats=("onnx",),
    )
    return _cost(f"MiniLM, {LONGEST} words", bundle, inputs_at(student, {"B": 1, "T": LONGEST}, 99))


CHAINS = {"resnet20": _resnet20, "minilm": _minilm}


def chain_step(name: str) -> dict[str, object]:
    """Times of a full student's chain, joined and segment by segment, beside the uncut graph's."""
    with tempfile.TemporaryDirectory() as place:
        return CHAINS[name](Path(place))


def _cost(name: str, bundle: er.Bundle, inputs: dict[str, np.ndarray]) -> dict[str, object]:
    graph = "onnx.int8"
    points = split_points(bundle.manifest, graph)
    borders = [None, *(point.id for point in points), None]
    segments = [bundle.graph_path(piece) for piece in (*points[0].before, *points[0].after)]
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
        seen = alternate(calls, seconds=SECONDS)
        for single in singles:
            single.close()
    return {
        "name": name,
        "segments": len(points) + 1,
        "places": [point.place for point in points],
        "whole_ms": seen["whole"].median_ms,
        "joined_ms": seen["joined"].median_ms,
        "ratio": ratio(seen["joined"], seen["whole"]),
        "one_by_one": seen["single"].median_ms / seen["whole"].median_ms,
    }


STEPS = {"places": places_step, "chain": chain_step}


def main() -> int:
    step, name, folder = sys.argv[1], sys.argv[2], Path(sys.argv[3])
    warnings.simplefilter("ignore")
    leave(folder / f"{name}.{step}.json", STEPS[step](name))
    return 0


if __name__ == "__main__":
    sys.exit(main())
