from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from edgekit.students import text_cnn, train
from edgekit.students.fit import IGNORED, Plan, accuracy, fit, predict
from edgekit_runtime.errors import UsageError

PLAN = Plan(epochs=6, batch=16, peak_rate=0.02, seed=1)


def keyword_task(count: int, seed: int) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """Sentences of 8 words; class 1 holds the word 7."""
    rng = np.random.default_rng(seed)
    ids, labels = rng.integers(8, 200, size=(count, 8)), rng.integers(0, 2, size=count)
    ids[labels == 1, 3] = 7
    return {"ids": ids}, labels


def test_training_learns_and_repeats_exactly_from_its_seed() -> None:
    inputs, labels = keyword_task(400, seed=0)
    held, held_labels = keyword_task(100, seed=1)
    students = [text_cnn.build("tiny"), text_cnn.build("tiny")]
    (before,) = accuracy(predict(students[0], held), held_labels)
    first, second = (fit(student, inputs, labels, PLAN) for student in students)
    assert first == second
    for one, other in zip(students[0].parameters(), students[1].parameters(), strict=True):
        assert torch.equal(one, other)
    (after,) = accuracy(predict(students[0], held), held_labels)
    assert after > 0.95 > before


def test_training_stops_early_and_keeps_the_best_weights() -> None:
    inputs, labels = keyword_task(200, seed=0)
    student = text_cnn.build("tiny")
    plan = dataclasses.replace(PLAN, epochs=40, patience=2, stop_fraction=0.2)
    fitted = fit(student, inputs, labels, plan)
    assert fitted.epochs == fitted.best_epoch + 3 < 40
    assert fitted.accuracies[fitted.best_epoch] == max(fitted.accuracies)
    order = np.random.default_rng(plan.seed).permutation(200)[:40]
    (kept,) = accuracy(predict(student, {"ids": inputs["ids"][order]}), labels[order])
    assert kept == max(fitted.accuracies)
    assert not student.training


def test_exits_and_tags_are_trained_too_and_ignored_words_do_not_count() -> None:
    class Exits(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.near, self.far = nn.Embedding(6, 3), nn.Embedding(6, 3)

        def forward(self, ids: torch.Tensor) -> dict[str, torch.Tensor]:
            return {"exit_0": self.near(ids), "exit_1": self.far(ids)}

    ids = np.random.default_rng(0).integers(0, 6, size=(200, 5))
    labels = np.where(ids == 5, IGNORED, ids % 3)
    student = Exits()
    with torch.no_grad():
        student.near.weight.zero_()
        student.far.weight.zero_()
    fit(student, {"ids": ids}, labels, PLAN)
    assert accuracy(predict(student, {"ids": ids}), labels) == (1.0, 1.0)
    np.testing.assert_array_equal(student.near.weight[5].detach(), 0.0)


def test_a_trained_folder_rebuilds_the_student(tmp_path: Path) -> None:
    from safetensors.torch import load_file

    inputs, labels = keyword_task(60, seed=0)
    student = text_cnn.build("tiny", seed=3)
    task = train.Task(inputs, labels, *keyword_task(20, seed=1))
    material = train.save("edgekit.students.text_cnn:build", student, task, tmp_path / "new")
    again = text_cnn.build("tiny")
    again.load_state_dict(load_file(material.weights))
    with np.load(material.evaluation) as held:
        assert set(held.files) == {"ids", "labels"}
        assert accuracy(predict(again, {"ids": held["ids"]}), held["labels"]) == material.accuracy
    with np.load(material.calibration) as calibration:
        np.testing.assert_array_equal(calibration["ids"], inputs["ids"])
    assert "--weights" in material.command


def test_an_unknown_recipe_is_a_usage_error(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no recipe for 'minilm'"):
        train.train("minilm", tmp_path)


def test_no_held_back_sentence_is_trained_on(public_data: None) -> None:
    task = train.sst2_task(12_000)
    assert task.vocabulary is not None
    assert len(task.vocabulary) == 12_000
    assert task.train["ids"].shape == (6920, 52)
    assert task.held["ids"].shape == (872, 52)
    seen = {row.tobytes() for row in task.train["ids"]}
    assert sum(row.tobytes() in seen for row in task.held["ids"]) <= 2  # the public set repeats a few short ones


@pytest.mark.slow
def test_the_tiny_text_cnn_learns_sst2(public_data: None, tmp_path: Path) -> None:
    material = train.train("text_cnn", tmp_path, size="tiny")
    assert material.accuracy[0] > 0.58  # 198 words; always saying one class gives 0.51
    assert material.vocabulary is not None
    assert len(material.vocabulary.read_text(encoding="utf-8").splitlines()) == 200
