from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from edgekit_runtime import head as heads
from edgekit_runtime.errors import BundleInvalid, Refused, UsageError
from edgekit_runtime.head import Head
from edgekit_runtime.preprocess import Preprocessor, Settings

HEAD = Head(np.array([[1, 0], [0, 1], [-1, -1]], np.float32), np.array([0, 0.5, 0], np.float32))


def test_a_head_survives_its_file_and_scores_an_embedding(tmp_path: Path) -> None:
    HEAD.save(tmp_path / "head.npz")
    again = heads.load(tmp_path / "head.npz")
    np.testing.assert_array_equal(again.scores({"embedding": np.array([[2.0, 1.0]], np.float32)}), [[2, 1.5, -3]])
    assert again.output == "embedding"


def test_a_session_with_a_head_answers_with_its_labels() -> None:
    prepared = Preprocessor(Settings(inputs={}), ["a", "b", "c"], None, [], HEAD)
    answers = prepared.decode({"embedding": np.array([[2.0, 1.0], [-1.0, 0.0]], np.float32)})
    assert [answer.label for answer in answers] == ["a", "c"]


def test_what_does_not_fit_is_told(tmp_path: Path) -> None:
    with pytest.raises(Refused, match="reads 2 values of the output 'embedding'"):
        HEAD.scores({"other": np.zeros((1, 2), np.float32)})
    with pytest.raises(Refused, match="reads 2 values"):
        HEAD.scores({"embedding": np.zeros((1, 3), np.float32)})
    with pytest.raises(UsageError, match="finite"):
        Head(np.array([[np.nan, 0]]), np.zeros(1))
    with pytest.raises(BundleInvalid, match="not a head"):
        heads.load(tmp_path / "missing.npz")
    np.savez(tmp_path / "odd.npz", weight=np.zeros((2, 2)))
    with pytest.raises(BundleInvalid, match="not a head"):
        heads.load(tmp_path / "odd.npz")
    np.savez(tmp_path / "pickle.npz", weight=np.array([{}], object), bias=np.zeros(1), output=np.array("x"))
    with pytest.raises(BundleInvalid, match="not a head"):
        heads.load(tmp_path / "pickle.npz")
