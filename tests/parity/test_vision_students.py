"""Students that look at pictures, spectra and graphs, and one that writes, at tiny size: both formats, both precisions.

The graphs as the converters make them, without gate and timing: whether int8 ships is decided elsewhere.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from edgekit.students import registry
from edgekit.students.registry import Student
from edgekit_converters.capture import capture
from edgekit_converters.capture.axes import parse_dynamic
from edgekit_converters.capture.sequence import part_samples
from edgekit_converters.captured import Captured
from edgekit_converters.onnx.converter import OnnxConverter
from edgekit_converters.onnx.coverage import weight_fraction
from edgekit_converters.tflite.converter import TfliteConverter
from edgekit_converters.tflite.coverage import coverage
from edgekit_runtime.manifest import Role
from tests.parity.checking import check

SAMPLES = 12
CONVERTERS = {"onnx": OnnxConverter, "tflite": TfliteConverter}


def captured(student: Student) -> Captured:
    """The tiny student, every dynamic axis as the table declares it."""
    example = student.example(2, size="tiny")
    return capture(student.build("tiny"), name=student.name, example=example, dynamic=parse_dynamic(student.dynamic()))


def alike(name: str, least_db: float) -> object:
    """One whose pieces other tests convert too: convolutions as in ds_cnn, attention as in test_unseen_students.py."""
    return pytest.param(name, least_db, marks=pytest.mark.long)


# Least signal to noise ratio of int8, dB: what the seeded tiny student reaches, less some 3 dB.
@pytest.mark.parametrize("kind", CONVERTERS)
@pytest.mark.parametrize(
    ("name", "least_db"),
    [
        ("ds_cnn", 17.0),
        alike("plain4", 25.0),
        alike("vit", 20.0),
        ("gcn", 30.0),
        ("two_branch", 20.0),
        ("transliterator", 25.0),
    ],
)
def test_both_precisions_answer_as_the_student(name: str, least_db: float, kind: str, tmp_path: Path) -> None:
    entry = registry.get(name)
    whole = captured(entry)
    samples = [entry.example(1, size="tiny", seed=seed) for seed in range(2 * SAMPLES)]
    roles: tuple[Role, ...] = tuple(whole.parts) or ("full",)
    int8_bytes: list[float] = []
    for role in roles:
        part, converter, folder = whole.part(role), CONVERTERS[kind](), tmp_path / role
        folder.mkdir()
        seen = part_samples(whole, role, samples[:SAMPLES])
        drafts = [converter.export(part, folder, lambda line: None)]
        drafts.append(converter.quantize(part, drafts[0], seen, folder, lambda line: None))
        check(part, drafts, part_samples(whole, role, samples[SAMPLES:])[:8], least_db)
        path = drafts[1].path
        int8_bytes.append(weight_fraction(path) if kind == "onnx" else coverage(path)[0])
    assert max(int8_bytes) >= (0.95 if name not in ("transliterator", "vit") else 0.5)
