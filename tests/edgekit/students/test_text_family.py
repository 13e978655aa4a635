"""The text and table students, tiny, in both formats: fp32 is the student, int8 is close, padding and company change
nothing. One conversion a student and format."""

from __future__ import annotations

import functools
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from edgekit.students import gated_cnn, registry
from edgekit.students.layers import ordered_product
from edgekit.students.sampling import Arrays, run
from edgekit_converters.capture.axes import DynamicAxis
from edgekit_converters.capture.torch_student import capture_module
from edgekit_converters.captured import Captured
from edgekit_converters.draft import Draft
from edgekit_converters.onnx.converter import OnnxConverter
from edgekit_converters.tflite.converter import TfliteConverter
from edgekit_runtime import engines
from edgekit_runtime.manifest import Graph
from edgekit_runtime.runner import Runner, Student

LONGEST = 16  # one rung of the ladder
# int8 of the tiny sizes: 16 values a row leave a few per cent of noise; full sizes are judged by their metric.
CLOSE_DB = 22.0
FP32 = 1e-4  # of the output's range: what "works" means

FAMILY = ("large_vocabulary", "ngram", "cmow", "gated_cnn", "pair_classifier")
# Convolutions over time, which gated_cnn has too; no other test here asks for their graphs.
ALIKE = ("cdil", "char_cnn")
LENGTHS = {"large_vocabulary", "ngram", "cmow", "pair_classifier"}  # an answer a text, and padding at the end


def nothing(line: str) -> None:
    """A progress callback that says nothing."""


def captured(name: str) -> Captured:
    student = registry.get(name)
    limits = {"B": (1, 8), "T": (1, LONGEST)}
    dynamic = [
        DynamicAxis(tensor.name, axis, size, *limits[size])
        for tensor in student.inputs
        for axis, size in enumerate(tensor.shape)
        if isinstance(size, str)
    ]
    example = student.example(2, 9, size="tiny", seed=4)
    return capture_module(student.build("tiny"), name=name, example=example, dynamic=dynamic)


class Converted:
    """A student with its fp32 and int8 graphs of one format, run as a device runs them."""

    def __init__(self, name: str, student: Captured, format_name: str, work: Path) -> None:
        self.student = student
        converter = OnnxConverter() if format_name == "onnx" else TfliteConverter()
        samples = [registry.get(name).example(1, 3 + n % 14, size="tiny", seed=n) for n in range(8)]
        self.drafts = [converter.export(student, work, nothing)]
        self.drafts.append(converter.quantize(student, self.drafts[0], samples, work, nothing))
        self.fp32, self.int8 = (self._runner(draft) for draft in self.drafts)

    def _runner(self, draft: Draft) -> Callable[[Arrays], Arrays]:
        graph = Graph(
            id=draft.id,
            format=draft.format,
            precision=draft.precision,
            path=draft.path.name,
            bytes=0,
            sha256="",
            inputs=draft.inputs,
            outputs=draft.outputs,
            signatures=draft.signatures,
            engine=draft.engine,
            min_engine_version="",
        )
        student = self.student
        axes = {axis.symbol: axis for axis in student.axes}
        known = Student(inputs=student.inputs, outputs=student.outputs, axes=axes)
        return Runner(graph, engines.get(draft.engine), draft.path, threads=1, student=known).run


@pytest.fixture(scope="module")
def converted(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str, str], Converted]:
    students = functools.cache(captured)

    @functools.cache
    def make(name: str, format_name: str) -> Converted:
        return Converted(name, students(name), format_name, tmp_path_factory.mktemp(f"{name}_{format_name}"))

    return make


def sqnr_db(want: np.ndarray, got: np.ndarray) -> float:
    return float(20 * np.log10(np.linalg.norm(want) / max(np.linalg.norm(want - got), 1e-30)))


@pytest.mark.parametrize("format_name", ["onnx", "tflite"])
@pytest.mark.parametrize("name", [*FAMILY, *(pytest.param(name, marks=pytest.mark.long) for name in ALIKE)])
def test_fp32_is_the_student_and_int8_is_close_at_every_size(
    converted: Callable[[str, str], Converted], name: str, format_name: str
) -> None:
    made = converted(name, format_name)
    for batch, length in ((1, 1), (3, 7), (2, LONGEST)):
        inputs = registry.get(name).example(batch, length, size="tiny", seed=9)
        for output, want in made.student.reference(inputs).items():
            span = max(float(np.ptp(want)), 1.0)
            assert np.abs(made.fp32(inputs)[output] - want).max() <= FP32 * span
            assert sqnr_db(want, made.int8(inputs)[output]) > CLOSE_DB


@pytest.mark.parametrize("format_name", ["onnx", "tflite"])
@pytest.mark.parametrize("name", sorted(LENGTHS))
def test_padding_and_company_change_no_int8_answer(
    converted: Callable[[str, str], Converted], name: str, format_name: str
) -> None:
    made = converted(name, format_name)
    inputs = registry.get(name).example(4, 9, size="tiny", seed=5)
    padded = {key: np.pad(array, ((0, 0), (0, 5))) for key, array in inputs.items()}
    together, longer = (next(iter(made.int8(given).values())) for given in (inputs, padded))
    for row in range(4):
        alone = next(iter(made.int8({key: array[row : row + 1] for key, array in inputs.items()}).values()))[0]
        for other in (together[row], longer[row]):
            cosine = alone @ other / (np.linalg.norm(alone) * np.linalg.norm(other))
            assert cosine >= 0.9999


def test_every_table_is_int8_in_both_formats(converted: Callable[[str, str], Converted]) -> None:
    for name in ("ngram", "cmow", "pair_classifier"):
        for format_name in ("onnx", "tflite"):
            recipe = converted(name, format_name).drafts[1].recipe
            assert recipe is not None
            tables = [op for op in recipe.ops if op.kind in ("Gather", "EMBEDDING_LOOKUP")]
            large = [op for op in tables if op.weight_bytes > 20_000]
            assert [op.scheme for op in large] == ["weight_row"] * len(large)
            # The example has two texts of 9 ids in ONNX; the largest rung, one of 16 ids, counts in TFLite.
            rows = 2 * 9 if format_name == "onnx" else LONGEST
            widths = {"ngram": 16, "cmow": 36, "pair_classifier": 16}
            assert [op.touched_bytes for op in large] == [rows * widths[name] * 4] * len(large)


@pytest.mark.parametrize("steps", [1, 2, 3, 5, 8, 13])
def test_the_tree_gives_the_product_in_order(steps: int) -> None:
    matrices = torch.randn(2, steps, 4, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    want = matrices[:, 0]
    for step in range(1, steps):
        want = want @ matrices[:, step]
    torch.testing.assert_close(ordered_product(matrices, levels=4), want)


def test_the_streaming_form_answers_as_the_whole_sentence_does() -> None:
    model, step = gated_cnn.build("tiny"), gated_cnn.step("tiny")
    ids = gated_cnn.example(2, 11, "tiny")["ids"]
    want = run(model, {"ids": ids})["output"]
    columns = np.zeros((2, len(model.blocks), 16, 3), np.float32)
    for number in range(11):
        found = run(step, {"ids": ids[:, number : number + 1], "columns": columns})
        columns = found["next_columns"]
        np.testing.assert_allclose(found["output"][:, 0], want[:, number], rtol=0, atol=1e-5)


def test_all_log_probabilities_are_those_of_torch() -> None:
    model = gated_cnn.build("tiny")
    x = torch.randn(5, 16, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(model.softmax.all(x), model.softmax.log_prob(x))
    assert torch.allclose(model.softmax.all(x).exp().sum(1), torch.ones(5))
