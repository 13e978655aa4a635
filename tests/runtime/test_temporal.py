from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgekit_runtime.errors import InputMismatch, UsageError
from edgekit_runtime.exits import score
from edgekit_runtime.manifest import State, Tensor
from edgekit_runtime.stream import Stream
from edgekit_runtime.temporal import EarlyStream, Ending, said

INPUTS = (
    Tensor(name="x", dtype="float32", shape=("B", 3)),
    Tensor(name="h", dtype="float32", shape=(1, "B", 3)),
)


def leaky(asked: list[int]):
    """A recurrence: h' = h / 2 + x; its logits are h'."""

    def run(given: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        asked.append(len(given["x"]))
        h = given["h"] / 2 + given["x"]
        return {"logits": h[0], "h_next": h.astype(np.float32)}

    return run


def early(ending: Ending, asked: list[int]) -> EarlyStream:
    return EarlyStream(Stream(leaky(asked), INPUTS, (State(input="h", output="h_next"),)), INPUTS, "B", ending)


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 6), st.integers(1, 5), st.floats(0.34, 1), st.sampled_from(("last", "mean")), st.integers(0, 999))
def test_each_sequence_is_answered_by_the_first_step_that_is_sure(
    n: int, steps: int, threshold: float, how: str, seed: int
) -> None:
    x = np.random.default_rng(seed).normal(0, 2, (n, steps, 3)).astype(np.float32)
    plain = Stream(leaky([]), INPUTS, (State(input="h", output="h_next"),))
    answers = said([plain.step({"x": x[:, k]})["logits"] for k in range(steps)], how)
    sure = np.stack([score("max_softmax", one) >= threshold for one in answers])
    sure[-1] = True
    asked: list[int] = []
    stream = early(Ending([threshold] * steps, how, "logits"), asked)
    k = 0
    while not stream.done:
        stream.step({"x": x[:, k]})
        k += 1
    assert (stream.exits == sure.argmax(0)).all()
    assert stream.answers is not None
    for row, step in enumerate(stream.exits):
        np.testing.assert_allclose(stream.answers[row], answers[step][row], rtol=1e-5, atol=1e-6)
    assert asked == [int((stream.exits >= k).sum()) for k in range(len(asked))], "ended sequences are not run again"


def test_the_mean_counts_every_step_so_far() -> None:
    logits = [np.array([[2.0, 0]]), np.array([[0.0, 4]])]
    assert [one.tolist() for one in said(logits, "mean")] == [[[2, 0]], [[1, 2]]]
    assert said(logits, "last")[1].tolist() == [[0, 4]]


def test_a_stream_that_has_ended_wants_a_reset_and_then_begins_anew() -> None:
    asked: list[int] = []
    stream = early(Ending([0.0, 0.0], "last", "logits"), asked)
    one = {"x": np.array([[1.0, 0, 0]], np.float32)}
    stream.step(one)
    first = stream.answers
    with pytest.raises(UsageError, match="has its answer"):
        stream.step(one)
    stream.reset()
    assert not stream.done
    stream.step(one)
    assert first is not None and stream.answers is not None
    np.testing.assert_array_equal(first, stream.answers)
    assert asked == [1, 1]


def test_what_does_not_fit_is_told() -> None:
    stream = early(Ending([2.0, 0.0], "last", "logits"), [])
    stream.step({"x": np.zeros((2, 3), np.float32)})
    with pytest.raises(InputMismatch, match="x holds 3 sequences, the first step had 2"):
        stream.step({"x": np.zeros((3, 3), np.float32)})
    with pytest.raises(UsageError, match="no output 'scores'"):
        early(Ending([2.0, 0.0], "last", "scores"), []).step({"x": np.zeros((2, 3), np.float32)})
    with pytest.raises(UsageError, match="steps 'first'"):
        Ending([0.0], "first", "logits")
