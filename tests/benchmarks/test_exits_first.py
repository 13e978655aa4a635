"""The first student of the cascade: what it learns from, and when its teacher is asked."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from benchmarks import exits_first
from edgekit.students.text_cnn import TextCNN

IDS = np.arange(1, 2401, dtype=np.int64).reshape(1200, 2)


def bundle(sha256: str) -> Any:
    return SimpleNamespace(
        root=Path("teacher"), manifest=SimpleNamespace(graphs=[SimpleNamespace(id="onnx.int8", sha256=sha256)])
    )


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many sentences the teacher was asked at a time."""
    found: list[int] = []

    def run(inputs: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        found.append(len(inputs["ids"]))
        return {"output": np.stack([inputs["ids"].sum(1), inputs["mask"].sum(1)], 1).astype(np.float32)}

    @contextlib.contextmanager
    def opened(*_: object, **__: object) -> Iterator[object]:
        yield SimpleNamespace(run=run)

    monkeypatch.setattr(exits_first.er, "open", opened)
    return found


def test_no_sentence_is_both_learnt_from_and_judged_on() -> None:
    learn, judge = exits_first.parts(IDS)
    assert len(judge) == exits_first.DEVELOPMENT and len(learn) == 200
    assert np.array_equal(np.sort(np.concatenate([learn, judge])[:, 0]), IDS[:, 0])


def test_the_teacher_is_asked_once_for_each_sentence_and_again_when_it_or_they_change(
    asked: list[int], tmp_path: Path
) -> None:
    first = exits_first.answers(tmp_path, bundle("a"), IDS[:100])
    assert sum(asked) == 100 and np.array_equal(first[:, 0], IDS[:100].sum(1)) and (first[:, 1] == 2).all()
    assert np.array_equal(exits_first.answers(tmp_path, bundle("a"), IDS[:100]), first) and sum(asked) == 100
    exits_first.answers(tmp_path, bundle("a"), IDS[:90])
    assert sum(asked) == 190
    exits_first.answers(tmp_path, bundle("b"), IDS[:90])
    assert sum(asked) == 280


def test_the_development_line_tells_agreement_and_what_would_leave() -> None:
    torch.manual_seed(0)
    student = TextCNN(2401, 4, kernels=(1, 2), means=True).eval()
    with torch.no_grad():
        student.head.weight *= 50
        said = student(torch.from_numpy(IDS)).numpy()
    assert exits_first.development(student, IDS, said) == "100.0% as the teacher, 100.0% leave at a risk of 0.01"
    said[:60] = said[:60, ::-1]
    told = exits_first.development(student, IDS, said)
    assert told.startswith("95.0% as the teacher") and "100.0% leave" not in told


def test_students_together_answer_with_the_mean_of_their_logits() -> None:
    one, other = (exits_first.member(2401, lesson).eval() for lesson in exits_first.LESSONS)
    ids = torch.from_numpy(IDS[:5])
    with torch.inference_mode():
        wanted = (one(ids) + other(ids)) / 2
        assert not torch.allclose(one(ids), other(ids))
        torch.testing.assert_close(exits_first.Together([one, other])(ids), wanted)
