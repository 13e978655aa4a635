from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file

from edgekit.demo import compose, material, models
from edgekit.students.fit import accuracy, predict
from edgekit.students.sampling import run

PARTS: tuple[compose.Part, ...] = ("train", "calibration", "evaluation")
SHORT_STAGES = (material.Stage(side=32, scales=(3.0, 4.0), pictures=48, epochs=1, peak_rate=1e-3),)


@pytest.fixture
def in_a_hurry(monkeypatch: pytest.MonkeyPatch) -> None:
    """Trains for a few steps on a few digits; what is written and kept is made the same way."""
    few = {"train": slice(0, 120), "calibration": slice(1200, 1210), "evaluation": slice(1350, 1370)}
    monkeypatch.setattr(compose, "DIGITS", few)
    monkeypatch.setattr(material, "STAGES", SHORT_STAGES)
    monkeypatch.setattr(material, "TEXT_PLAN", dataclasses.replace(material.TEXT_PLAN, epochs=1))


def test_parts_share_no_digit_and_no_pixel_of_a_photograph() -> None:
    grounds = [compose.ground(part) for part in PARTS]
    assert sum(len(g.labels) for g in grounds) == 1797
    for index in range(2):
        assert sum(g.photographs[index].shape[1] for g in grounds) == 640
    # The set holds no two equal digits, so that equal bytes across parts would be leakage.
    seen = [{digit.tobytes() for digit in g.digits} for g in grounds]
    assert not (seen[0] & seen[1] or seen[0] & seen[2] or seen[1] & seen[2])
    assert all(len(np.unique(g.labels)) == 10 for g in grounds)


def test_the_split_repeats_from_its_seed_and_changes_with_it() -> None:
    first, again, other = (compose.ground("evaluation", seed) for seed in (0, 0, 1))
    np.testing.assert_array_equal(first.digits, again.digits)
    assert not np.array_equal(first.digits, other.digits)


def test_a_picture_is_its_photograph_everywhere_but_under_the_digit() -> None:
    source = compose.ground("evaluation")
    black = tuple(np.zeros_like(p) for p in source.photographs)
    drawn = compose.pictures(dataclasses.replace(source, photographs=black), np.arange(20), np.random.default_rng(0))
    assert drawn.shape == (20, 3, 96, 96)
    assert drawn.dtype == np.uint8
    for picture in drawn.max(axis=1):
        rows, columns = np.flatnonzero(picture.any(1)), np.flatnonzero(picture.any(0))
        assert 15 <= rows[-1] - rows[0] < 48
        assert columns[-1] - columns[0] < 48
        assert picture.max() > 180 * 0.75 * 0.9  # ink is seen


def test_values_become_floats_between_zero_and_one() -> None:
    floats = compose.to_float(np.array([0, 51, 255], dtype=np.uint8))
    assert floats.dtype == np.float32
    np.testing.assert_allclose(floats, [0.0, 0.2, 1.0], atol=1e-7)


@given(st.integers(8, 60), st.floats(0.0, 1.0))
def test_enlarging_keeps_a_flat_digit_flat_and_the_range(size: int, ink: float) -> None:
    flat = np.full((8, 8), ink, dtype=np.float32)
    np.testing.assert_allclose(compose.enlarge(flat, size), ink, atol=1e-6)
    bumpy = np.random.default_rng(size).random((8, 8), dtype=np.float32)
    assert bumpy.min() - 1e-6 <= compose.enlarge(bumpy, size).min()
    assert compose.enlarge(bumpy, size).max() <= bumpy.max() + 1e-6


def test_sentences_name_the_inked_cells_in_reading_order() -> None:
    digit = np.zeros((1, 8, 8), dtype=np.float32)
    digit[0, 0, 2], digit[0, 0, 5], digit[0, 7, 7] = 0.3, 1.0, 0.6
    np.testing.assert_array_equal(compose.sentences(digit, length=4), [[1 + 3 * 2, 1 + 3 * 5 + 2, 1 + 3 * 63 + 1, 0]])
    for part in PARTS:
        ids = compose.sentences(compose.ground(part).digits)
        assert ids.max() < models.WORDS
        assert np.count_nonzero(ids, axis=1).max() <= material.LONGEST_SENTENCE


def test_the_students_take_what_the_contract_calls_them() -> None:
    exits = run(models.digits_cnn(), {"image": np.zeros((2, 3, 96, 96), np.float32)})
    assert {name: answer.shape for name, answer in exits.items()} == {f"exit_{i}": (2, 10) for i in range(3)}
    assert tuple(exits) == ("exit_0", "exit_1", "exit_2")
    assert run(models.digits_bilstm(), {"ids": np.ones((2, 5), np.int64)})["output"].shape == (2, 10)


def test_the_second_run_uses_what_the_first_left(in_a_hurry: None, tmp_path: Path) -> None:
    lines: list[str] = []
    first = material.prepare(tmp_path, progress=lines.append)
    assert first.trained
    assert any("CNN" in line for line in lines)
    assert any("BiLSTM" in line for line in lines)
    weights = first.pictures.weights.read_bytes()
    second = material.prepare(tmp_path)
    assert not second.trained
    assert (second.pictures, second.texts) == (first.pictures, first.texts)
    # Another seed trains anew, and so does a run that was interrupted before its note was written.
    assert material.prepare(tmp_path, seed=1).trained
    assert first.pictures.weights.read_bytes() != weights
    (tmp_path / "digits" / "material.json").unlink()
    assert material.prepare(tmp_path).trained


def test_two_trainings_with_one_seed_give_the_same_files(in_a_hurry: None, tmp_path: Path) -> None:
    one, other = (material.prepare(tmp_path / name) for name in ("one", "other"))
    for left, right in ((one.pictures, other.pictures), (one.texts, other.texts)):
        for kind in ("weights", "calibration", "evaluation"):
            assert getattr(left, kind).read_bytes() == getattr(right, kind).read_bytes()


def test_data_files_are_named_as_the_arguments_of_forward(in_a_hurry: None, tmp_path: Path) -> None:
    found = material.prepare(tmp_path)
    for one, name in ((found.pictures, "image"), (found.texts, "ids")):
        with np.load(one.calibration) as calibration, np.load(one.evaluation) as held:
            assert set(calibration.files) == {name}
            assert set(held.files) == {name, "labels"}
            assert len(calibration[name]) == 10
            assert len(held[name]) == len(held["labels"]) == 20


def test_the_first_steps_of_both_trainings_teach(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = dataclasses.replace(material.STAGES[0], pictures=1000, epochs=2)
    monkeypatch.setattr(material, "STAGES", (first,))
    monkeypatch.setattr(material, "TEXT_PLAN", dataclasses.replace(material.TEXT_PLAN, epochs=3))
    found = material.prepare(tmp_path)
    assert found.texts.accuracy[-1] > 0.7
    student = models.digits_cnn()
    student.load_state_dict(load_file(found.pictures.weights))
    held = compose.ground("evaluation")
    picks, rng = np.arange(len(held.labels)), np.random.default_rng(0)
    image = compose.to_float(compose.pictures(held, picks, rng, first.side, first.scales, mirror=True))
    # Chance is 0.1. Large pictures come with the later stages.
    assert accuracy(predict(student, {"image": image}), held.labels)[-1] > 0.6


@pytest.mark.long  # a minute of training
def test_the_students_really_learn(tmp_path: Path) -> None:
    found = material.prepare(tmp_path)
    assert found.pictures.accuracy[-1] > 0.9
    assert found.pictures.accuracy[0] < found.pictures.accuracy[-1]
    assert found.texts.accuracy[-1] > 0.9
    student = models.digits_bilstm()
    student.load_state_dict(load_file(found.texts.weights))
    with np.load(found.texts.evaluation) as held:
        assert accuracy(predict(student, {"ids": held["ids"]}), held["labels"]) == found.texts.accuracy
