from __future__ import annotations

import numpy as np
import pytest

pytest.importorskip("grpc")

from edgekit.serve.models import Model
from edgekit_runtime.errors import InputMismatch, Refused
from edgekit_runtime.manifest import Tensor
from edgekit_runtime.remote.answers import Expected, accepted

IDS = Tensor(name="ids", dtype="int32", shape=("B", "T"))


def model() -> Model:
    return Model("m", "1", (IDS,), (), "", "B", None)  # type: ignore[arg-type]  # nothing is run


def test_integers_of_another_width_become_those_of_the_graph() -> None:
    got = model().taken({"ids": np.array([[1, 2]], np.int64)})["ids"]
    assert got.dtype == np.int32 and got.tolist() == [[1, 2]]
    same = np.array([[1, 2]], np.int32)
    assert model().taken({"ids": same})["ids"] is same


def test_what_the_graph_cannot_hold_and_other_kinds_are_refused() -> None:
    with pytest.raises(InputMismatch, match="holds values from 1 to 1099511627776"):
        model().taken({"ids": np.array([[1, 2**40]], np.int64)})
    with pytest.raises(InputMismatch, match="ids is float32"):
        model().taken({"ids": np.ones((1, 2), np.float32)})


def test_an_answer_of_another_width_is_taken_as_it_is_here() -> None:
    label = Tensor(name="label", dtype="int64", shape=("B",))
    expected = Expected((label,), "", {"B": 2})
    answer = {"label": np.array([1, 2], np.int32)}
    assert accepted(answer, None, expected)["label"].dtype == np.int64
    with pytest.raises(Refused, match="the answer has no label int64"):
        accepted({"label": np.ones(2, np.float32)}, None, expected)
