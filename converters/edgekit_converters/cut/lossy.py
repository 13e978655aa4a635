"""int8 on a wire that is float: what it costs in accuracy, measured on the evaluation data, split point by split point.

    evaluation sample ─ head ─► float tensor ─ encode ─ decode ─► tail ─► answer ─ judge ─► accuracy_drop, interval_95

A split point where int8 crosses already has nothing to lose. Each measurement costs a run of the tail a sample, so that
a few split points that stand for all are measured, on a few hundred samples.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from contextlib import ExitStack

import msgspec
import numpy as np

from edgekit_converters.captured import Arrays
from edgekit_converters.cut.crossings import crossings, represent
from edgekit_converters.data import Samples
from edgekit_converters.draft import Progress
from edgekit_converters.staging import Staging
from edgekit_converters.verify.gate import MIN_SLICE, judge
from edgekit_converters.verify.task import Task
from edgekit_runtime import codecs
from edgekit_runtime.bundle import Bundle, open_bundle
from edgekit_runtime.chain import Chain, split_points
from edgekit_runtime.errors import Refused
from edgekit_runtime.manifest import Action, Graph, Manifest, SplitPoint

MAX_POINTS, MAX_SAMPLES = 5, 200


@dataclasses.dataclass(frozen=True)
class Evidence:
    """What lossy codecs are judged on.

    Attributes:
        data: Evaluation data.
        calibration: Calibration inputs: on these it is chosen which split points are measured.
        task: How graphs are judged.
        progress: Called with a line a graph.
    """

    data: Samples
    calibration: Sequence[Arrays]
    task: Task
    progress: Progress


def with_lossy_actions(manifest: Manifest, stage: Staging, evidence: Evidence) -> Manifest:
    """The manifest with an action for each split point whose float tensors were sent as int8 and judged.

    Args:
        manifest: With the pieces listed.
        stage: The bundle in the making, its pieces written.
        evidence: Data and task. Nothing is measured on fewer samples than a group needs to be judged.
    """
    floats = {point.of for point in manifest.split_points if _is_float(point)}
    if len(evidence.data) < MIN_SLICE or not floats:
        return manifest
    stage.write_manifest(msgspec.structs.replace(manifest, files=stage.files()))
    actions: list[Action] = []
    with open_bundle(stage.root) as bundle:
        for graph in manifest.graphs:
            if graph.id in floats:
                evidence.progress(f"measuring int8 on the wire of {graph.id}")
                actions += measure(bundle, graph, evidence)
    return msgspec.structs.replace(manifest, actions=(*manifest.actions, *actions))


def measure(bundle: Bundle, full: Graph, evidence: Evidence) -> list[Action]:
    """One action for each of the split points of a graph that are measured, in order of depth."""
    points = [point for point in split_points(bundle.manifest, full.id) if _is_float(point)]
    if len(points) > MAX_POINTS:
        stand_ins = represent(bundle, full, evidence.calibration, MAX_POINTS, points)
        points = [point for point in points if stand_ins[point.place] == point.place]
    data, rows = some(evidence.data)
    output = evidence.task.output
    answers: dict[str, list[np.ndarray]] = {point.id: [] for point in points}
    with ExitStack() as stack:
        tails = {
            point.id: stack.enter_context(Chain(bundle, full.id, start=point.id, engine=full.engine))
            for point in points
        }
        # An answer that is given before the split point is no matter of what crosses there.
        points = [point for point in points if output in {tensor.name for tensor in tails[point.id].outputs}]
        for seen, _ in crossings(bundle, full, data.inputs):
            for point in list(points):
                try:
                    sent = {name: through(array) for name, array in seen[point.id].items()}
                except Refused as error:  # NaN or infinity, as in a mask, has no int8 form
                    evidence.progress(f"{point.id} offers no {codecs.INT8_ROW}: {error.message}")
                    points.remove(point)
                    continue
                answers[point.id].append(tails[point.id].run(sent)[output])
    reference = [evidence.task.reference[row][output] for row in rows]
    return [_action(point, reference, answers[point.id], data, evidence.task) for point in points]


def through(array: np.ndarray) -> np.ndarray:
    """What comes out at the other end of an `int8-row` wire."""
    return codecs.decode(codecs.INT8_ROW, codecs.encode(codecs.INT8_ROW, array), array.dtype.name, array.shape)


def _action(
    point: SplitPoint, reference: Sequence[np.ndarray], answers: Sequence[np.ndarray], data: Samples, task: Task
) -> Action:
    quality = judge(point.of, task.metric, reference, answers, data, task.limit)[0]
    return Action(
        id=f"split:{point.id}:{codecs.INT8_ROW}",
        kind="split",
        graphs=(*point.before, *point.after),
        codec=codecs.INT8_ROW,
        accuracy_drop=quality.drop,
        interval_95=quality.interval_95,
        n=quality.n,
    )


def some(data: Samples) -> tuple[Samples, list[int]]:
    """At most `MAX_SAMPLES` with their row numbers, evenly spaced: files are often sorted by label."""
    n = min(len(data), MAX_SAMPLES)
    rows = [number * len(data) // n for number in range(n)]
    labels = None if data.labels is None else data.labels[rows]
    return Samples(data.origin, tuple(data.inputs[row] for row in rows), labels), rows


def _is_float(point: SplitPoint) -> bool:
    return any(np.dtype(tensor.dtype).kind == "f" for tensor in point.tensors)
