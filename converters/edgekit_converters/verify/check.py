"""Runs every graph of a staged bundle, through the runtime a device uses, beside the student itself."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np

import edgekit_runtime as er
from edgekit_converters.captured import Arrays, Captured
from edgekit_converters.data import Samples
from edgekit_converters.verify.gate import judge
from edgekit_converters.verify.parity import FP32_TOLERANCE, parity
from edgekit_converters.verify.stream import stream_problem, streamed
from edgekit_converters.verify.task import Task
from edgekit_runtime.manifest import Graph, Parity, Quality
from edgekit_runtime.tensors import batch_place

GOLDEN_SAMPLES = 4


@dataclasses.dataclass(frozen=True)
class Verified:
    """What was seen of one graph.

    Attributes:
        graph: The graph.
        parity: One entry an output.
        quality: One entry a group of the data (empty for fp32, which has nothing to lose).
        failed: Why it may not ship; empty when it may.
        golden: Its answer to the golden inputs.
    """

    graph: Graph
    parity: tuple[Parity, ...]
    quality: tuple[Quality, ...]
    failed: str
    golden: Arrays


def golden_inputs(student: Captured, data: Samples) -> Arrays:
    """The first samples as one batch where the student has a batch axis and their shapes agree, else the first one."""
    first = data.inputs[0]
    axis = next((axis for axis in student.axes if axis.role == "batch"), None)
    if axis is None:
        return dict(first)
    alike = [s for s in data.inputs if all(s[name].shape == first[name].shape for name in first)]
    count = min(GOLDEN_SAMPLES, axis.max, len(alike))
    places = {tensor.name: batch_place(tensor, student.axes) for tensor in student.inputs}
    joined = {n: np.concatenate([sample[n] for sample in alike[:count]], p) for n, p in places.items() if p is not None}
    return {**first, **joined}


def verify_graph(bundle: Path, graph: Graph, student: Captured, data: Samples, golden: Arrays, task: Task) -> Verified:
    """Compares one graph of a staged bundle with the student.

    Args:
        bundle: The staged folder, with a manifest.
        graph: The graph; a decode step runs with its encoder, as the loop around both.
        student: What was captured.
        data: Evaluation (or calibration) samples.
        golden: Golden inputs.
        task: The student's outputs on the samples, and how the graph is judged.

    Raises:
        Refused: The graph does not run, or answers with other shapes or NaN.
    """
    with er.open(bundle, graph=graph.id, engine=graph.engine, threads=1) as session:
        outputs = [session.run(sample) for sample in data.inputs]
        answer = session.run(golden)
        problem = ""
        if task.streamed:
            assert session.bundle is not None
            made = streamed(session.run, session.inputs, session.bundle.manifest.states, data.inputs)
            problem = stream_problem(task.streamed, made, exact=graph.precision == "fp32")
    if graph.role == "encoder":  # answers nothing by itself: what int8 costs is judged with the decode step
        reference = [student.part("encoder").reference(sample) for sample in data.inputs]
        seen = parity(graph.id, reference, outputs)
    else:
        seen = parity(graph.id, task.reference, outputs)
    if graph.precision == "fp32":
        worst = max(seen, key=lambda p: p.max_error_fraction)
        failed = problem
        if worst.max_error_fraction > FP32_TOLERANCE:
            failed = (
                f"fp32 graph differs from the student: output {worst.output}, largest error "
                f"{worst.max_error_fraction:.2e} of its range (allowed {FP32_TOLERANCE:.0e})"
            )
        return Verified(graph, seen, (), failed, answer)
    if graph.role == "encoder":
        return Verified(graph, seen, (), "", answer)
    want, got = ([answer[task.output] for answer in answers] for answers in (task.reference, outputs))
    quality = judge(graph.id, task.metric, want, got, data, task.limit)
    wrong = [q for q in quality if q.gate == "failed"]
    failed = "; ".join([*(f"{q.metric} on {q.slice}: {q.reason}" for q in wrong), *([problem] if problem else [])])
    return Verified(graph, seen, quality, failed, answer)
