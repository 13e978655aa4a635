"""What the rows of the matrix are converted from."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from safetensors.torch import save_file

from benchmarks import material
from edgekit.students import registry, train


def test_a_student_gets_the_recipe_for_its_own_inputs() -> None:
    recipe = material.recipe_of(registry.get("multi_exit"))
    assert recipe is not None
    assert train.RECIPES[recipe].source == registry.get("multi_exit").source
    assert recipe != "multi_exit"  # that one trains the student for MNIST
    assert material.recipe_of(registry.get("bilstm_tagger")) is None


@pytest.mark.parametrize("name", ["pair_classifier", "essay_scorer"])
def test_trained_students_are_judged_by_their_own_metric(name: str, tmp_path: Path) -> None:
    place = tmp_path / f"{name}.material"
    place.mkdir()
    student = registry.get(name)
    state = student.build().state_dict()
    save_file({key: value.contiguous() for key, value in state.items()}, place / "weights.safetensors")
    for file in ("calib.npz", "eval.npz"):
        np.savez(place / file, **student.example(4))
    learnt = material.material(name, tmp_path, trained=True)
    assert learnt.trained
    assert learnt.judged_by == {"metric": material.METRICS[name][0], "max_drop": material.METRICS[name][1]}
    assert material.material(name, tmp_path, trained=False).judged_by == {}


@pytest.mark.parametrize("name", sorted(registry.STUDENTS))
def test_five_sizes_of_each_axis_reach_from_the_least_to_the_largest(name: str) -> None:
    student = registry.get(name)
    for axis in student.axes:
        sizes = material.sizes_of(student)[axis.symbol]
        assert len(sizes) >= 5
        assert (sizes[0], sizes[-1]) == (axis.min, axis.max)


def test_a_streaming_form_is_shown_steps_of_whole_sequences_with_the_states_before_them() -> None:
    student = registry.get("lrcn_step")
    module = student.build(size="tiny")
    example = student.example(1, 1, size="tiny")
    frames = np.repeat(example["frame"][:, None], 6, axis=1)
    found = material.steps_of(student, module, {"frames": np.repeat(frames, 3, axis=0), "labels": np.zeros(3)}, 8)
    assert len(found) == 8
    assert not found[0]["h"].any() and found[1]["h"].any()  # the first step of a sequence begins with nothing
    np.testing.assert_array_equal(found[1]["h"], found[5]["h"])  # every sequence begins anew
