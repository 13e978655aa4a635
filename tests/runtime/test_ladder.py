from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgekit_runtime import ladder
from edgekit_runtime.errors import InputMismatch
from edgekit_runtime.manifest import Axis, Signature, Tensor

X = Tensor(name="x", dtype="float32", shape=("batch", "time", 2))
SCALE = Tensor(name="scale", dtype="float32", shape=(1,))
OUT = Tensor(name="y", dtype="float32", shape=("time", "batch"))
TOTAL = Tensor(name="total", dtype="float32", shape=("batch",))
AXES = {
    "batch": Axis(symbol="batch", min=1, max=99, role="batch"),
    "time": Axis(symbol="time", min=1, max=32, role="length"),
}


def rungs(*sizes: tuple[int, int]) -> tuple[Signature, ...]:
    return tuple(Signature(name=f"b{b}t{t}", sizes={"batch": b, "time": t}) for b, t in sizes)


def student(arrays: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Independent along batch, and zeros at the end of time change nothing but zeros at the end."""
    y = arrays["x"].sum(axis=2) * arrays["scale"]
    return {"y": y.T, "total": y.sum(axis=1)}


@settings(deadline=None)
@given(
    batch=st.integers(1, 9),
    time=st.integers(1, 32),
    steps=st.lists(st.tuples(st.integers(1, 4), st.sampled_from([4, 8, 16])), max_size=4),
)
def test_a_ladder_answers_as_the_student_itself(batch: int, time: int, steps: list[tuple[int, int]]) -> None:
    steps = [*steps, (1, 32)]
    ran: list[tuple[int, ...]] = []

    def run_rung(arrays: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        ran.append(arrays["x"].shape)
        return student(arrays)

    x = np.random.default_rng(batch * 100 + time).normal(size=(batch, time, 2)).astype(np.float32)
    arrays = {"x": x, "scale": np.array([2], np.float32)}
    chosen = ladder.plan(rungs(*steps), AXES, {"batch": batch, "time": time})
    made = ladder.run(chosen, run_rung, (X, SCALE), (OUT, TOTAL), arrays)
    expected = student(arrays)
    np.testing.assert_array_equal(made["y"], expected["y"])
    # Sums over padded rows may round in another order.
    np.testing.assert_allclose(made["total"], expected["total"], rtol=1e-5, atol=1e-5)
    assert {(shape[0], shape[1]) for shape in ran} <= set(steps)
    assert len(ran) == chosen.slices


def test_the_cheapest_rung_that_fits_is_taken() -> None:
    there = rungs((1, 8), (1, 16), (4, 16), (1, 32))
    names = {
        sizes: ladder.plan(there, AXES, dict(zip(("batch", "time"), sizes, strict=True))).rung.name
        for sizes in ((1, 3), (1, 8), (1, 9), (4, 16), (1, 17), (2, 8))
    }
    assert names == {
        (1, 3): "b1t8",
        (1, 8): "b1t8",
        (1, 9): "b1t16",
        (4, 16): "b1t16",  # four runs of 16 cost as much as one of 64: the first listed
        (1, 17): "b1t32",
        (2, 8): "b1t8",
    }


def test_an_axis_that_cannot_be_padded_takes_listed_sizes_only() -> None:
    axes = {"n": Axis(symbol="n", min=1, max=99, role="other")}
    there = (Signature(name="a", sizes={"n": 4}), Signature(name="b", sizes={"n": 8}))
    assert ladder.plan(there, axes, {"n": 8}).exact
    with pytest.raises(InputMismatch, match="takes n 5; it has n 4; n 8") as caught:
        ladder.plan(there, axes, {"n": 5}, advice="graph='onnx.fp32' takes every size")
    assert "onnx.fp32" in caught.value.remedy


def test_a_request_longer_than_the_longest_rung_is_refused() -> None:
    with pytest.raises(InputMismatch, match="time 33"):
        ladder.plan(rungs((1, 16), (1, 32)), AXES, {"batch": 1, "time": 33})


def test_answers_without_a_batch_axis_are_not_put_together() -> None:
    chosen = ladder.plan(rungs((1, 8)), AXES, {"batch": 2, "time": 8})
    pooled = Tensor(name="y", dtype="float32", shape=(3,))
    with pytest.raises(InputMismatch, match="has no axis batch"):
        ladder.run(chosen, student, (X,), (pooled,), {"x": np.zeros((2, 8, 2), np.float32)})


def test_slices_share_what_has_no_samples_and_cut_a_state_along_its_own_axis() -> None:
    inputs = (
        Tensor(name="x", dtype="float32", shape=("B", 3)),
        Tensor(name="state", dtype="float32", shape=(2, "B", 1)),
        Tensor(name="rate", dtype="int64", shape=()),
    )
    outputs = (Tensor(name="next", dtype="float32", shape=(2, "B", 1)),)

    def step(arrays: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        assert isinstance(arrays["rate"], np.ndarray)  # engines take no numpy scalar
        return {"next": arrays["state"] * arrays["rate"] + arrays["x"].sum(1)[None, :, None]}

    rng = np.random.default_rng(0)
    given_arrays = {
        "x": rng.standard_normal((5, 3)).astype(np.float32),
        "state": rng.standard_normal((2, 5, 1)).astype(np.float32),
        "rate": np.array(3, np.int64),
    }
    axes = {"B": Axis(symbol="B", min=1, max=2, role="batch")}
    chosen = ladder.plan(ladder.slices(axes, {"B": 5}), axes, {"B": 5})
    assert chosen.slices == 3
    made = ladder.run(chosen, step, inputs, outputs, given_arrays)
    np.testing.assert_allclose(made["next"], step(given_arrays)["next"], rtol=1e-6)
