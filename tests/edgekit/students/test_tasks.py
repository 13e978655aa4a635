from __future__ import annotations

import numpy as np
import pytest
import torch

from edgekit.students import data, made_up_tasks, picture_tasks, transliterator, two_branch
from edgekit.students.fit import IGNORED
from edgekit.students.sampling import run


def pictures(count: int, seed: int) -> data.Images:
    rng = np.random.default_rng(seed)
    level = rng.uniform(0.1, 0.9, (count, 1, 1, 1))
    pixels = np.clip(255 * (level + 0.1 * rng.standard_normal((count, 32, 32, 3))), 0, 255).astype(np.uint8)
    return data.Images(pixels, rng.integers(0, 10, count), tuple("0123456789"))


def test_the_vits_calibration_holds_as_many_pictures_of_each_brightness(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(data, "cifar10", lambda part: pictures(700 if part == "train" else 60, seed=len(part)))
    task = picture_tasks.bright_cifar_task(0)
    assert task.calibration is not None and task.slices is not None
    mean = task.calibration["image"].mean(axis=(1, 2, 3))
    counts = [int((mean < picture_tasks.DARK).sum()), int((mean >= picture_tasks.BRIGHT).sum())]
    assert counts == [66, 66]
    assert len(mean) == 66 * 3
    assert task.train["image"].shape[1:] == (3, 96, 96)
    assert task.train["image"].min() >= 0 and task.train["image"].max() <= 1
    assert set(task.slices) == set(picture_tasks.BANDS)


def test_lighting_keeps_pictures_between_0_and_1_and_repeats_from_its_seed() -> None:
    batch = {"image": torch.rand(4, 3, 12, 12)}
    first, second = (picture_tasks.flip_and_light(batch, torch.Generator().manual_seed(2))["image"] for _ in range(2))
    assert torch.equal(first, second)
    assert float(first.min()) >= 0 and float(first.max()) <= 1


def test_the_windows_of_a_recording_do_not_overlap_across_its_halves(monkeypatch: pytest.MonkeyPatch) -> None:
    frames = np.arange(40 * 128, dtype=np.float32).reshape(40, 128)
    monkeypatch.setattr(data, "machine_spectrum", lambda: frames)
    seen, judged = (part["spectrum"] for part in picture_tasks.machine_sound())
    assert seen.shape == judged.shape == (16, 640)
    np.testing.assert_array_equal(seen[3], frames[3:8].ravel())
    assert seen.max() < judged.min() == frames[20, 0]


@pytest.mark.parametrize(
    ("word", "written"),
    [("chat", "ჩატ"), ("cela", "ცელა"), ("calle", "კალჰ"), ("thess", "თეს"), ("oah", "ოა"), ("baa", "ბჱ")],
)
def test_the_made_up_script_looks_at_neighbours_and_edges(word: str, written: str) -> None:
    assert transliterator.transliterate(word) == written


def test_each_word_is_taught_up_to_its_end_and_judged_without_it(monkeypatch: pytest.MonkeyPatch) -> None:
    made = transliterator.words
    monkeypatch.setattr(transliterator, "words", lambda count, seed: made(900, seed))
    task = made_up_tasks.transliteration_task(0)
    assert task.judged is not None
    assert len(task.judged) == len(task.held["chars"]) == 500
    for following, judged in zip(task.held_labels, task.judged, strict=True):
        long = int((judged > 0).sum())
        np.testing.assert_array_equal(following[:long], judged[:long])
        assert following[long] == transliterator.END
        assert (following[long + 1 :] == IGNORED).all()
    seen = {row.tobytes() for row in task.train["chars"]}
    assert not any(row.tobytes() in seen for row in task.held["chars"])


def test_teaching_and_stepping_give_the_same_scores() -> None:
    student = transliterator.build("tiny")
    chars = transliterator.words(3, seed=4, longest=10)
    answers = transliterator.written(chars)[:, :6]
    with torch.no_grad():
        taught = student.teach(torch.from_numpy(chars), torch.from_numpy(answers))
        memory, state = student.encode(torch.from_numpy(chars))["memory"], student.initial_state(3)
        for place in range(6):
            told = student.decode_step(torch.from_numpy(answers[:, place]), torch.from_numpy(chars), memory, **state)
            torch.testing.assert_close(told["scores"], taught[:, place], atol=1e-4, rtol=1e-4)
            state = {name: told[f"next_{name}"] for name in state}


def test_each_branch_answers_alone_with_its_half_of_the_head() -> None:
    student = two_branch.build("tiny")
    inputs = two_branch.example(4, seed=1)
    seen = run(two_branch.seen(student), {"image": inputs["image"]})["output"]
    heard = run(two_branch.heard(student), {"spectrum": inputs["spectrum"]})["output"]
    both = run(student, inputs)["output"]
    np.testing.assert_allclose(seen + heard - student.head.bias.detach().numpy(), both, atol=1e-4)
    taught = run(made_up_tasks.SeenAndHeard(student), inputs)
    np.testing.assert_allclose(taught["seen"], seen, atol=1e-5)
    np.testing.assert_allclose(taught["heard"], heard, atol=1e-5)
    np.testing.assert_allclose(taught["output"], both, atol=1e-5)
