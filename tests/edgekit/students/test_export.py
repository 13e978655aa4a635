"""Every student is captured with real dynamic axes and answers alike at every size."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import nn

from edgekit.students import registry
from edgekit.students.registry import Student
from edgekit.students.sampling import run
from edgekit_converters.capture import capture
from edgekit_converters.capture.axes import parse_dynamic

Tiny = Callable[[str], nn.Module]

# Their tiny size is that of a sibling, and the code is the same.
TWINS = ("bert_mini", "bert_small", "resnet32", "resnet44", "plain6", "plain8", "plain10")
# Not one program but two: tests/converters/capture/test_sequence.py.
PARTS = ("transliterator",)

# What two engines may differ by: float32 sums in another order.
TOLERANCE = 2e-5


def exported(tiny: Tiny, student: Student) -> torch.export.ExportedProgram:
    dynamic = parse_dynamic(student.dynamic())
    example = student.example(3, 12, size="tiny")
    program = capture(tiny(student.name), name=student.name, example=example, dynamic=dynamic).program
    assert program is not None
    return program


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
