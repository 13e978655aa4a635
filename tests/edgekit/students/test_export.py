"""Every student goes through torch.export with real dynamic axes, and through the ONNX exporter unharmed."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from edgekit.students import registry
from edgekit.students.registry import Student
from edgekit.students.sampling import run
from edgekit_converters.capture.recurrent import symbolic_time

Tiny = Callable[[str], nn.Module]

# Their tiny size is that of a sibling, and the code is the same.
TWINS = ("bert_mini", "bert_small", "resnet32", "resnet44", "plain6", "plain8", "plain10")
# Not one program but two: tests/converters/capture/test_sequence.py.
PARTS = ("transliterator",)

# What two engines may differ by: float32 sums in another order.
TOLERANCE = 2e-5


def exported(tiny: Tiny, student: Student) -> torch.export.ExportedProgram:
    dims = {axis.symbol: torch.export.Dim(axis.symbol, min=axis.min, max=axis.max) for axis in student.axes}
    shapes = {t.name: {i: dims[s] for i, s in enumerate(t.shape) if isinstance(s, str)} for t in student.inputs}
    example = {name: torch.from_numpy(array) for name, array in student.example(3, 12, size="tiny").items()}
    with symbolic_time(), warnings.catch_warnings():
        # nn.LSTM keeps a list of its weights and sets it anew in every run.
        warnings.filterwarnings("ignore", message="The tensor attribute")
        return torch.export.export(tiny(student.name), (), example, dynamic_shapes=shapes, strict=False)


def trials(student: Student) -> list[dict[str, np.ndarray]]:
    sizes = [(1, 1), (2, 5), (5, 13)]
    lengths = [axis.max for axis in student.axes if axis.symbol == "T"]
    sizes += [(2, length) for length in lengths]
    return [student.example(batch, length, size="tiny", seed=length) for batch, length in sizes]


@pytest.mark.parametrize("name", [name for name in registry.STUDENTS if name not in (*TWINS, *PARTS)])
def test_the_exported_program_answers_alike_at_every_size(tiny: Tiny, name: str) -> None:
    student = registry.get(name)
    program = exported(tiny, student).module()
    for inputs in trials(student):
        expected = run(tiny(name), inputs)
        for output, got in run(program, inputs).items():
            np.testing.assert_allclose(got, expected[output], atol=TOLERANCE, rtol=0)


@pytest.mark.parametrize("name", ["bilstm_classifier", "bilstm_tagger"])
def test_recurrent_layers_stay_one_operator_each(tiny: Tiny, name: str) -> None:
    targets = [str(node.target) for node in exported(tiny, registry.get(name)).graph.nodes]
    assert targets.count("aten.lstm.input") == {"bilstm_classifier": 4, "bilstm_tagger": 2}[name]


@pytest.mark.slow
@pytest.mark.parametrize("name", ["text_cnn", "bilstm_classifier", "bert_tiny", "minilm", "resnet20", "multi_exit"])
def test_the_onnx_graph_answers_alike_at_every_size(tiny: Tiny, name: str, tmp_path: Path) -> None:
    import onnxruntime

    student = registry.get(name)
    program = exported(tiny, student)
    outputs = [f"{output}_" for output in student.outputs]
    with symbolic_time(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the exporter's own
        onnx: Any = torch.onnx.export(program, dynamo=True, output_names=outputs, verbose=False)
    onnx.save(tmp_path / "student.onnx")
    session = onnxruntime.InferenceSession(tmp_path / "student.onnx", providers=["CPUExecutionProvider"])
    for inputs in trials(student):
        expected = run(tiny(name), inputs)
        for output, got in zip(student.outputs, session.run(outputs, inputs), strict=True):
            np.testing.assert_allclose(got, expected[output], atol=TOLERANCE, rtol=0)
