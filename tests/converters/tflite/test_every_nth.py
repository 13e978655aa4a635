"""Slices that keep every n-th place: the same values, moved by XNNPACK."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from edgekit_converters.tflite import flatbuffer as fb
from edgekit_converters.tflite.converter import TfliteConverter
from edgekit_converters.tflite.passes.build import Builder
from edgekit_converters.tflite.passes.every_nth import every_nth
from edgekit_runtime.engines import litert_profile
from edgekit_runtime.engines.litert import LiteRT
from tests.converters.tflite.students import BATCH, capture, nothing, run_file
from tests.converters.tflite.test_passes import empty_model

Step = tuple[int, int, int]  # axis, begin, stride


def sliced(shape: tuple[int, ...], steps: Sequence[Step], dtype: str = "float32") -> fb.Model:
    """One STRIDED_SLICE a step, in a row."""
    model = empty_model()
    subgraph = model.subgraphs[0]
    now, sizes = fb.add_tensor(model, subgraph, "x", shape, dtype), list(shape)
    subgraph.inputs = [now]
    build = Builder(model, subgraph)
    for axis, start, stride in steps:
        begin, strides = [0] * len(shape), [1] * len(shape)
        begin[axis], strides[axis] = start, stride
        operands = [build.constant(np.array(values, np.int32)) for values in (begin, sizes, strides)]
        sizes[axis] = len(range(start, sizes[axis], stride))
        (now,) = build.operator(
            "STRIDED_SLICE", [now, *operands], [tuple(sizes)], "StridedSliceOptions", [dtype], offset=False
        )
    subgraph.tensors[now].name = b"y"
    subgraph.operators, subgraph.outputs = build.operators, [now]
    return model


def kinds(model: fb.Model) -> list[str]:
    return [kind for kind, _ in fb.operators(model, model.subgraphs[0])]


def answer(model: fb.Model, values: np.ndarray) -> np.ndarray:
    from ai_edge_litert.interpreter import Interpreter

    from edgekit_converters.quiet import quiet_native

    with quiet_native():
        interpreter = Interpreter(model_content=fb.serialize(model))
        interpreter.allocate_tensors()
        interpreter.set_tensor(interpreter.get_input_details()[0]["index"], values)
        interpreter.invoke()
        return interpreter.get_tensor(interpreter.get_output_details()[0]["index"])


@st.composite
def cases(draw: st.DrawFn) -> tuple[tuple[int, ...], list[Step]]:
    """Shapes of one to four axes, with one or two axes of which every n-th place is kept."""
    rank = draw(st.integers(1, 4))
    axes = draw(st.lists(st.integers(0, rank - 1), min_size=1, max_size=2, unique=True))
    shape = [draw(st.integers(1, 4)) for _ in range(rank)]
    steps = []
    for axis in axes:
        stride = draw(st.integers(2, 3))
        shape[axis] *= stride
        steps.append((axis, draw(st.integers(0, stride - 1)), stride))
    return tuple(shape), steps


@settings(max_examples=40, deadline=None)
@given(cases(), st.sampled_from(["float32", "int8", "int32"]))
def test_every_nth_place_is_kept_bit_by_bit(case: tuple[tuple[int, ...], list[Step]], dtype: str) -> None:
    shape, steps = case
    values = np.random.default_rng(0).integers(-128, 128, shape).astype(dtype)
    model = sliced(shape, steps, dtype)
    assert every_nth(model) == 1
    assert kinds(model) == ["RESHAPE", "SLICE", "RESHAPE"]
    want = values[
        tuple(
            next((slice(start, None, stride) for at, start, stride in steps if at == axis), slice(None))
            for axis in range(len(shape))
        )
    ]
    np.testing.assert_array_equal(answer(model, values), want)


@pytest.mark.parametrize(
    ("shape", "steps"), [((1, 7, 8, 4), [(1, 0, 2)]), ((1, 8, 8, 4), [(1, 2, 2)]), ((1, 8, 8, 4), [(1, 3, 1)])]
)
def test_slices_that_leave_a_rest_or_have_no_stride_stay(shape: tuple[int, ...], steps: list[Step]) -> None:
    model = sliced(shape, steps)
    assert every_nth(model) == 0
    assert kinds(model) == ["STRIDED_SLICE"]


def test_a_slice_that_is_also_an_answer_is_still_made() -> None:
    model = sliced((1, 8, 8, 4), [(1, 0, 2), (2, 1, 2)])
    between = int(model.subgraphs[0].operators[0].outputs[0])
    model.subgraphs[0].outputs = [*model.subgraphs[0].outputs, between]
    assert every_nth(model) == 2
    values = np.random.default_rng(0).standard_normal((1, 8, 8, 4)).astype(np.float32)
    np.testing.assert_array_equal(answer(model, values), values[:, ::2, 1::2])


PLACED = """
import sys, pathlib, numpy
from edgekit_runtime.engines.litert import LiteRT
image = {"image": numpy.zeros((1, 3, 16, 16), numpy.float32)}
rows = LiteRT().timed_trace(pathlib.Path(sys.argv[1]), image)
assert any(row.delegate == "XNNPACK" for row in rows)
print(*(row.kind for row in rows if row.delegate != "XNNPACK"))
"""


class OptionA(nn.Module):
    """Two convolutions, the second beside a shortcut of every second pixel with channels of zeros."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.down = nn.Conv2d(3, 8, 3, padding=1), nn.Conv2d(8, 16, 3, stride=2, padding=1)
        self.head = nn.Linear(16, 5)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        x = torch.relu(self.stem(image))
        short = nn.functional.pad(x[:, :, ::2, ::2], (0, 0, 0, 0, 4, 4))
        return self.head(torch.relu(self.down(x) + short).mean((2, 3)))


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Callable[[bool], list[Path]]:
    """fp32 and int8 files of the student, with the pass and without."""
    torch.manual_seed(0)
    example = {"image": np.random.default_rng(0).standard_normal((2, 3, 16, 16)).astype(np.float32)}
    student = capture(OptionA(), example, (BATCH,), {"image": ("B", 3, 16, 16)})
    samples = [{"image": example["image"][index : index + 1]} for index in range(2)]

    def made(with_pass: bool) -> list[Path]:
        folder = tmp_path_factory.mktemp("with" if with_pass else "without")
        with pytest.MonkeyPatch.context() as patch:
            if not with_pass:
                patch.setattr("edgekit_converters.tflite.converter.every_nth", lambda _: 0)
            converter = TfliteConverter()
            fp32 = converter.export(student, folder, nothing)
            int8 = converter.quantize(student, fp32, samples, folder, nothing)
        return [fp32.path, int8.path]

    return made


def test_an_option_a_shortcut_runs_in_xnnpack_with_the_same_answers(files: Callable[[bool], list[Path]]) -> None:
    image = {"image": np.random.default_rng(7).standard_normal((1, 3, 16, 16)).astype(np.float32)}
    for before, after in zip(files(False), files(True), strict=True):
        assert "STRIDED_SLICE" in {row.kind for row in LiteRT().trace(before, image)}
        np.testing.assert_array_equal(run_file(before, image)["output"], run_file(after, image)["output"])
        if not litert_profile.supported(LiteRT().version):
            continue
        # The profiler is made for a process of its own.
        found = subprocess.run(
            [sys.executable, "-c", PLACED, str(after)], capture_output=True, text=True, check=True, timeout=120
        )
        outside = set(found.stdout.split())
        assert outside <= {"QUANTIZE", "DEQUANTIZE"}, outside
