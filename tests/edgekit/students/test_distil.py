"""Sentences made of others, and a student that learns a teacher's answers."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from edgekit.students import distil
from edgekit.students.sampling import seeded
from edgekit.students.text_cnn import TextCNN

MADE = distil.Made(phrases=40, swapped=30, joined=20, dropped=10)


def sentences(count: int = 60, longest: int = 16) -> np.ndarray:
    """Sentences of 3 to 12 pieces of 200 to 249, in the form that BERT reads."""
    rng = np.random.default_rng(3)
    found = np.zeros((count, longest), np.int64)
    for row in found:
        body = rng.integers(200, 250, int(rng.integers(3, 13)))
        row[: len(body) + 2] = [distil.FIRST_PIECE, *body, distil.LAST_PIECE]
    return found


def bodies(ids: np.ndarray) -> list[list[int]]:
    """The pieces between the marks; a sentence without its marks, or with something behind them, is refused."""
    found = []
    for row in ids.tolist():
        length = sum(piece != 0 for piece in row)
        assert row[0] == distil.FIRST_PIECE and row[length - 1] == distil.LAST_PIECE and not any(row[length:])
        found.append(row[1 : length - 1])
    return found


def test_each_kind_of_sentence_is_made_of_sentences_as_it_says() -> None:
    ids = sentences()
    known = bodies(ids)
    made = bodies(distil.made_sentences(ids, MADE))
    phrases, swapped, joined, dropped = made[:40], made[40:70], made[70:90], made[90:]
    runs = {tuple(body[a:b]) for body in known for a in range(len(body)) for b in range(a + 1, len(body) + 1)}
    assert all(len(phrase) >= 3 and tuple(phrase) in runs for phrase in phrases)
    alike = [max(sum(map(int.__eq__, one, body)) for body in known if len(body) == len(one)) for one in swapped]
    shares = [count / len(one) for count, one in zip(alike, swapped, strict=True)]
    assert 0.6 < np.mean(shares) < 1.0
    assert all(
        any(tuple(one[:cut]) in runs and tuple(one[cut:]) in runs for cut in range(3, len(one))) for one in joined
    )
    assert any(tuple(one) not in runs for one in joined)

    def within(short: list[int], body: list[int]) -> bool:
        rest = iter(body)
        return all(piece in rest for piece in short)

    assert all(any(within(one, body) for body in known) for one in dropped)
    assert np.mean([len(one) for one in dropped]) < 0.95 * np.mean([len(body) for body in known])


def test_sentences_are_the_same_for_one_seed_and_others_for_another() -> None:
    ids = sentences()
    first, again, other = (distil.made_sentences(ids, MADE, seed) for seed in (1, 1, 2))
    assert np.array_equal(first, again) and not np.array_equal(first, other)


def test_a_table_begins_with_what_tells_frequent_pieces_apart() -> None:
    rng = np.random.default_rng(0)
    table = rng.normal(size=(250, 8)).astype(np.float32) * 0.01
    table[200:225, 5] += 4.0  # the pieces that occur differ in one direction
    table[1:100, 2] += rng.normal(size=99) * 50  # those that do not occur differ more, in another
    embedding = torch.nn.Embedding(250, 2, padding_idx=0)
    distil.begin(embedding, table, sentences(), spread=0.5)
    places = embedding.weight.detach().numpy()
    assert not places[0].any()
    gap = abs(places[200:225, 0].mean() - places[225:250, 0].mean())
    assert gap > 10 * places[200:225, 0].std()


@pytest.mark.parametrize("means", [False, True])
def test_a_student_learns_a_teachers_answers_and_padding_changes_none(means: bool) -> None:
    ids = distil.made_sentences(sentences(), distil.Made(300, 0, 0, 0))
    votes = (((ids >= 200) & (ids < 225)).sum(1) - (ids >= 225).sum(1)).astype(np.float32)
    answers = np.stack([-votes, votes], 1)
    with seeded(0):
        student = TextCNN(250, 8, kernels=(1, 2, 3), means=means)
    before = {name: value.clone() for name, value in student.state_dict().items()}

    def agreement() -> float:
        with torch.inference_mode():
            said = distil.in_batches(lambda part: student(torch.from_numpy(part)).numpy(), ids)
            whole = student(torch.from_numpy(ids)).numpy()
        np.testing.assert_allclose(said, whole, atol=1e-5)  # in the order given, whatever the length of a batch
        return float((said.argmax(1) == answers.argmax(1))[votes != 0].mean())

    student.eval()
    told: list[str] = []
    lesson = distil.Lesson(epochs=12, batch=32, peak_rate=1e-2)
    untaught = agreement()
    loss = distil.teach(student, student.embedding, ids, answers, lesson, told.append)
    assert not student.training and len(told) == 12 and f"{loss:.3f}" in told[-1]
    assert agreement() > max(0.9, untaught)
    taught = {name: value.clone() for name, value in student.state_dict().items()}
    student.load_state_dict(before)
    distil.teach(student, student.embedding, ids, answers, lesson)
    assert all(torch.equal(taught[name], value) for name, value in student.state_dict().items())


def test_a_hard_lesson_learns_what_is_named_and_not_how_sure_the_teacher_is() -> None:
    ids = distil.made_sentences(sentences(), distil.Made(200, 0, 0, 0))
    first = (ids >= 225).sum(1) > (ids >= 200).sum(1) / 2
    answers = np.where(first[:, None], [[0.0, 0.1]], [[0.1, 0.0]]).astype(np.float32)  # right, and hardly sure

    def sureness(hard: bool) -> float:
        with seeded(0):
            student = TextCNN(250, 8, kernels=(1, 2), means=True)
        distil.teach(student, student.embedding, ids, answers, distil.Lesson(20, 32, 1e-2, hard=hard))
        with torch.inference_mode():
            return float(torch.softmax(student(torch.from_numpy(ids)), 1).amax(1).mean())

    assert sureness(hard=False) < 0.55 < 0.62 < sureness(hard=True)
