from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx_students as students
import pytest
import torch
from onnx_graphs import sqnr_db

from edgekit_converters.captured import Captured
from edgekit_converters.draft import Draft
from edgekit_converters.onnx.converter import OnnxConverter
from edgekit_converters.onnx.coverage import coverage
from edgekit_converters.onnx.session import open_session, run_session
from edgekit_runtime.errors import Refused

STUDENTS: dict[str, Callable[[], Captured]] = {
    "residual": students.residual_net,
    "text_cnn": students.text_cnn,
    "encoder": students.encoder,
    "bilstm": lambda: students.recurrent(torch.nn.LSTM),
    "bigru": lambda: students.recurrent(torch.nn.GRU),
}
# MACs that the engine must run in int8; the rest is attention, small heads, and all of a GRU.
EXECUTED = {"residual": 1.0, "text_cnn": 1.0, "encoder": 0.95, "bilstm": 0.99, "bigru": 0.0}


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], tuple[Captured, Draft, Draft]]:
    kept: dict[str, tuple[Captured, Draft, Draft]] = {}

    def make(name: str) -> tuple[Captured, Draft, Draft]:
        if name not in kept:
            student = STUDENTS[name]()
            kept[name] = (student, *convert(student, tmp_path_factory.mktemp(name)))
        return kept[name]

    return make


def convert(student: Captured, work: Path, variant: str = "") -> tuple[Draft, Draft]:
    converter = OnnxConverter()
    fp32 = converter.export(student, work, lambda line: None)
    return fp32, converter.quantize(student, fp32, students.samples(student), work, lambda line: None, variant)


def answers(draft: Draft, inputs: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    return run_session(open_session(draft.path), inputs)


@pytest.mark.parametrize("name", STUDENTS)
def test_int8_answers_are_close_to_the_students(name: str, made: Callable) -> None:
    student, fp32, int8 = made(name)
    want, exact, got = (
        student.reference(student.example),
        answers(fp32, student.example),
        answers(int8, student.example),
    )
    for key, value in want.items():
        assert np.abs(exact[key] - value).max() <= 1e-4 * np.ptp(value)
        assert sqnr_db(value, got[key]) > 35
    assert [t.name for t in int8.inputs] == [t.name for t in student.inputs]
    assert [t.name for t in int8.outputs] == list(want)
    assert [t.shape for t in int8.inputs] == [t.shape for t in student.inputs]


@pytest.mark.parametrize("name", STUDENTS)
def test_what_the_recipe_says_is_what_the_engine_runs(name: str, made: Callable) -> None:
    student, _, int8 = made(name)
    weights, executed, total = coverage(int8.path, student.example)
    assert weights >= 0.95 and executed >= EXECUTED[name] and total > 0
    assert all(op.reason for op in int8.recipe.ops)


@pytest.mark.parametrize("name", ["encoder", "bilstm", "text_cnn"])
def test_the_batch_does_not_change_an_answer(name: str, made: Callable) -> None:
    _, _, int8 = made(name)
    inputs = {"ids": students.ids(6, 12, 300, seed=3)}
    if name == "encoder":
        inputs["mask"] = np.ones((6, 12), np.int64)
    together = next(iter(answers(int8, inputs).values()))
    for row in range(6):
        alone = next(iter(answers(int8, {k: v[row : row + 1] for k, v in inputs.items()}).values()))[0]
        cosine = alone @ together[row] / np.linalg.norm(alone) / np.linalg.norm(together[row])
        assert 1 - cosine < 1e-4


def test_padding_does_not_change_the_embedding(made: Callable) -> None:
    _, _, int8 = made("encoder")
    short = students.ids(3, 9, 300, seed=5)
    padded = np.pad(short, ((0, 0), (0, 20)))
    a = answers(int8, {"ids": short, "mask": np.ones_like(short)})["embedding"]
    b = answers(int8, {"ids": padded, "mask": np.pad(np.ones_like(short), ((0, 0), (0, 20)))})["embedding"]
    cosine = (a * b).sum(1) / np.linalg.norm(a, axis=1) / np.linalg.norm(b, axis=1)
    assert (1 - cosine).max() < 1e-4


@pytest.mark.parametrize("size", [(1, 4), (5, 77)])
@pytest.mark.parametrize("name", ["bilstm", "bigru", "text_cnn"])
def test_every_length_runs_in_int8(name: str, size: tuple[int, int], made: Callable) -> None:
    student, _, int8 = made(name)
    inputs = {"ids": students.ids(*size, 400)}
    assert sqnr_db(student.reference(inputs)["output"], answers(int8, inputs)["output"]) > 30


def test_the_same_student_gives_the_same_bytes(tmp_path: Path, made: Callable) -> None:
    _, fp32, int8 = made("residual")
    again = convert(students.residual_net(), tmp_path)
    assert [draft.path.read_bytes() for draft in again] == [fp32.path.read_bytes(), int8.path.read_bytes()]


@pytest.mark.parametrize("variant", ["reduced_range", "s8s8"])
def test_variants_answer_alike(variant: str, tmp_path: Path) -> None:
    student = students.residual_net()
    _, int8 = convert(student, tmp_path, variant)
    assert int8.id == f"onnx.int8.{variant}"
    assert sqnr_db(student.reference(student.example)["final"], answers(int8, student.example)["final"]) > 28


def test_a_convolution_without_calibration_is_refused(tmp_path: Path) -> None:
    student = students.text_cnn()
    converter = OnnxConverter()
    fp32 = converter.export(student, tmp_path, lambda line: None)
    with pytest.raises(Refused, match="calibration"):
        converter.quantize(student, fp32, [], tmp_path, lambda line: None)


def test_a_student_without_weights_is_refused(tmp_path: Path) -> None:
    class Half(torch.nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x * 0.5

    student = students.capture(Half(), {"x": np.ones((2, 3), np.float32)}, {}, {"output": (2, 3)})
    converter = OnnxConverter()
    fp32 = converter.export(student, tmp_path, lambda line: None)
    with pytest.raises(Refused, match="nothing in this graph can become int8"):
        converter.quantize(student, fp32, students.samples(student), tmp_path, lambda line: None)


def test_keep_float_leaves_an_operator_alone(tmp_path: Path) -> None:
    student = students.residual_net(float_patterns=("head*",))
    _, int8 = convert(student, tmp_path)
    kept = [op for op in int8.recipe.ops if op.scheme == "float"]
    assert [op.op for op in kept] == ["head/Gemm"] and "--keep-float" in kept[0].reason
