from __future__ import annotations

import inspect
import subprocess
import sys
from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import nn

from edgekit.students import registry
from edgekit.students.sampling import run
from edgekit_runtime.errors import UsageError

Tiny = Callable[[str], nn.Module]
NAMES = tuple(registry.STUDENTS)


@pytest.mark.parametrize("name", NAMES)
def test_inputs_are_the_arguments_of_forward_and_the_example_fits_them(tiny: Tiny, name: str) -> None:
    student = registry.get(name)
    assert tuple(inspect.signature(tiny(name).forward).parameters) == tuple(i.name for i in student.inputs)
    example = student.example(3, 7, size="tiny")
    sizes = {"B": 3, "T": 7, "C": 9, "N": 7, "E": 21}
    for declared in student.inputs:
        array = example[declared.name]
        assert array.dtype == np.dtype(declared.dtype)
        assert array.ndim == len(declared.shape)
        for size, axis in zip(array.shape, declared.shape, strict=True):
            # A fixed size is the full student's; the tiny one may be smaller.
            assert size == sizes[axis] if isinstance(axis, str) else size <= axis


@pytest.mark.parametrize("name", NAMES)
def test_outputs_and_exits_have_the_declared_names_in_order_of_depth(tiny: Tiny, name: str) -> None:
    student = registry.get(name)
    answers = run(tiny(name), student.example(size="tiny"))
    assert tuple(answers) == student.outputs
    assert student.exits in ((), student.outputs)


@pytest.mark.parametrize("name", NAMES)
def test_answers_tell_samples_apart(tiny: Tiny, name: str) -> None:
    student = registry.get(name)
    for answer in run(tiny(name), student.example(16, 12, size="tiny", seed=3)).values():
        samples = 12 if name == "gcn" else 16  # a graph's samples are its nodes
        spread = answer.reshape(samples, -1).std(axis=0).max()
        # Embeddings have length 1 over 32 values.
        assert spread > (0.02 if student.outputs == ("embedding",) else 0.3)


@pytest.mark.parametrize("name", NAMES)
def test_the_same_seed_builds_the_same_student_and_leaves_the_global_seed_alone(name: str) -> None:
    torch.manual_seed(11)
    expected = torch.rand(1)
    torch.manual_seed(11)
    first, second, other = (registry.get(name).build("tiny", seed) for seed in (0, 0, 1))
    assert torch.equal(torch.rand(1), expected)
    states = [torch.cat([v.flatten().float() for v in m.state_dict().values()]) for m in (first, second, other)]
    assert torch.equal(states[0], states[1])
    assert not torch.equal(states[0], states[2])
    assert not first.training


@pytest.mark.parametrize("name", NAMES)
def test_split_points_are_submodules_in_order_of_depth(tiny: Tiny, name: str) -> None:
    student = registry.get(name)
    module, seen = tiny(name), []
    # The table describes the full size; the tiny one may have fewer layers.
    there = {path for path, _ in module.named_modules()}
    points = [point for point in student.split_points if point in there]
    assert len(points) >= min(len(student.split_points), 1)
    for point in points:
        module.get_submodule(point).register_forward_hook(lambda m, i, o, point=point: seen.append(point))
    run(module, student.example(size="tiny"))
    for point in points:
        module.get_submodule(point)._forward_hooks.clear()
    assert seen == list(points)


def test_text_cnn_and_resnet20_have_their_papers_sizes() -> None:
    def count(module: nn.Module) -> int:
        return sum(p.numel() for p in module.parameters())

    # Kim: V x 100 + 100 filters of 3, 4, 5 words of 100 (and biases) + 300 x 2 + 2.
    assert count(registry.get("text_cnn").build()) == 12_000 * 100 + 100 * 100 * 12 + 300 + 602
    assert count(registry.get("resnet20").build()) == 269_722  # "0.27M" in He et al., table 6, with option A
    assert count(registry.get("resnet44").build()) == 658_586  # "0.66M"


def test_an_unknown_student_or_size_is_a_usage_error() -> None:
    with pytest.raises(UsageError, match="no reference student 'resnet18'"):
        registry.get("resnet18")
    with pytest.raises(UsageError, match="no size 'huge'"):
        registry.get("text_cnn").build("huge")


def test_the_table_is_read_without_torch() -> None:
    code = "import sys; import edgekit.students.registry; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
