"""Students that look at pictures, spectra and graphs, at tiny size, through the whole conversion in both formats."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import edgekit
import edgekit_runtime as er
from edgekit.students import registry
from edgekit.students.registry import Student
from edgekit_runtime.bundle import Bundle

FP32_TOLERANCE = 1e-4  # of the output's range: "works" in the table of reference students
SAMPLES = 16


def converted(student: Student, folder: Path) -> Bundle:
    """The tiny student in both formats, every dynamic axis as the table declares it."""
    axes = {axis.symbol: axis for axis in student.axes}
    dynamic = tuple(
        f"{tensor.name}:{place}={size}:{axes[size].min}-{axes[size].max}"
        for tensor in student.inputs
        for place, size in enumerate(tensor.shape)
        if isinstance(size, str)
    )
    samples = [student.example(1, size="tiny", seed=seed) for seed in range(SAMPLES)]
    # Untrained tiny students are judged on the shape of their answers, not on labels that hang by a hair.
    return edgekit.convert(
        student.build("tiny"),
        out=folder / "student.edge",
        calibration=samples,
        dynamic=dynamic,
        metric="cosine",
        max_drop=0.02,
    )


# Least signal to noise ratio of int8, dB: what a seeded tiny student reaches less some 3 dB.
@pytest.mark.parametrize(("name", "least_db"), [("ds_cnn", 20.0), ("plain4", 25.0), ("vit", 20.0), ("gcn", 25.0)])
def test_both_formats_answer_as_the_student(name: str, least_db: float, tmp_path: Path) -> None:
    student = registry.get(name)
    bundle = converted(student, tmp_path)
    seen = {(p.graph, p.output): p for p in bundle.manifest.parity}
    assert {graph for graph, _ in seen} == {"onnx.fp32", "onnx.int8", "tflite.fp32", "tflite.int8"}
    for (graph, _), parity in seen.items():
        if graph.endswith("fp32"):
            assert parity.max_error_fraction <= FP32_TOLERANCE
        else:
            assert parity.sqnr_db is not None
            assert parity.sqnr_db >= least_db
    for graph in bundle.manifest.graphs:
        if graph.precision == "int8":
            assert (graph.int8_weight_bytes_fraction or 0) >= 0.95
        check_batch(student, bundle, graph.id)


def check_batch(student: Student, bundle: Bundle, graph: str) -> None:
    """A sample alone and in a batch gets the same answer."""
    if all(axis.role != "batch" for axis in bundle.manifest.axes):
        return
    batch = student.example(3, size="tiny", seed=99)
    with er.open(bundle.root, graph=graph, threads=1) as session:
        whole = session.run(batch)
        for row in range(3):
            for output, answer in session.run({k: v[row : row + 1] for k, v in batch.items()}).items():
                np.testing.assert_allclose(answer[0], whole[output][row], atol=1e-5, rtol=1e-5)
