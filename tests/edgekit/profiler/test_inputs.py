from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgekit.profiler.inputs import fit, synthetic
from edgekit_runtime.errors import InputMismatch
from edgekit_runtime.manifest import Quantization, Tensor


def tensor(name: str, dtype: str, *shape: int | str, **more) -> Tensor:
    return Tensor(name=name, dtype=dtype, shape=shape, **more)


@given(st.integers(1, 5), st.integers(1, 7), st.sampled_from(["float32", "float16", "int64", "int8", "uint8", "bool"]))
def test_synthetic_inputs_have_the_declared_shape_and_dtype(batch: int, length: int, dtype: str):
    arrays = synthetic([tensor("x", dtype, "n", "t", 3)], {"t": length}, batch=batch)
    assert arrays["x"].shape == (batch, length, 3)
    assert arrays["x"].dtype == np.dtype(dtype)


def test_synthetic_inputs_are_the_same_every_time_and_indices_stay_in_every_table():
    declared = [tensor("ids", "int64", 1, 50), tensor("x", "float32", 1, 4)]
    one, two = synthetic(declared, {}), synthetic(declared, {})
    assert all(np.array_equal(one[name], two[name]) for name in one)
    assert set(np.unique(one["ids"])) == {0, 1}


def test_declared_ranges_are_kept_and_quantized_inputs_use_the_whole_range():
    scale = Quantization(scale=0.1, zero_point=3)
    arrays = synthetic(
        [tensor("a", "float32", 900, min=2.0, max=3.0), tensor("q", "int8", 900, quantization=scale)], {}
    )
    assert arrays["a"].min() >= 2.0 and arrays["a"].max() <= 3.0
    assert arrays["q"].min() < -100 and arrays["q"].max() > 100


def test_a_state_follows_the_batch_of_the_samples_beside_it():
    declared = [tensor("x", "float32", "batch", "time"), tensor("state", "float32", 2, "batch", 128)]
    arrays = synthetic(declared, {"time": 512}, batch=4)
    assert arrays["x"].shape == (4, 512)
    assert arrays["state"].shape == (2, 4, 128)


def test_text_cannot_be_made_up():
    with pytest.raises(InputMismatch, match="makes up numbers only"):
        synthetic([tensor("words", "str", 1)], {})


def test_golden_inputs_are_cut_and_repeated_to_the_batch():
    golden = {"x": np.arange(6, dtype=np.float32).reshape(3, 2)}
    assert fit(golden, [tensor("x", "float32", "n", 2)], batch=1)["x"].tolist() == [[0, 1]]
    assert fit(golden, [tensor("x", "float32", "n", 2)], batch=4)["x"].tolist() == [[0, 1], [2, 3], [4, 5], [0, 1]]
    assert fit(golden, [tensor("x", "float32", "n", 2)])["x"].shape == (3, 2)


def test_a_state_is_repeated_along_its_own_batch_axis():
    given = {"x": np.ones((1, 3), np.float32), "state": np.arange(2, dtype=np.float32).reshape(2, 1, 1)}
    wanted = (
        Tensor(name="x", dtype="float32", shape=("B", 3)),
        Tensor(name="state", dtype="float32", shape=(2, "B", 1)),
    )
    made = fit(given, wanted, batch=3, places={"x": 0, "state": 1})
    assert made["x"].shape == (3, 3)
    assert made["state"][:, :, 0].tolist() == [[0, 0, 0], [1, 1, 1]]
    with pytest.raises(InputMismatch):  # the graph declares two layers, not three
        fit({**given, "state": np.ones((3, 1, 2), np.float32)}, wanted, batch=3, places={"x": 0, "state": 1})


def test_a_short_input_is_padded_with_zeros_to_the_rung():
    fitted = fit({"ids": np.ones((1, 3), np.int64)}, [tensor("ids", "int32", 1, 5)])
    assert fitted["ids"].tolist() == [[1, 1, 1, 0, 0]]
    assert fitted["ids"].dtype == np.int32


def test_channels_last_is_met_by_transposing():
    image = np.arange(2 * 3 * 4 * 5, dtype=np.float32).reshape(2, 3, 4, 5)
    fitted = fit({"image": image}, [tensor("args_0", "float32", 2, 4, 5, 3)])
    assert np.array_equal(fitted["args_0"], image.transpose(0, 2, 3, 1))


def test_floats_are_quantized_with_the_scale_the_graph_declares():
    declared = tensor("x", "int8", 3, quantization=Quantization(scale=0.5, zero_point=1))
    assert fit({"x": np.array([0.0, 1.0, 500.0], np.float32)}, [declared])["x"].tolist() == [1, 3, 127]


@pytest.mark.parametrize(
    ("given_inputs", "declared", "message"),
    [
        ({"x": np.zeros((1, 9), np.float32)}, [tensor("x", "float32", 1, 5)], r"shape \[1, 5\] in the graph"),
        ({"x": np.zeros(3, np.float32)}, [tensor("x", "float32", 1, 3)], "shape"),
        ({"x": np.zeros((1, 3), np.float32)}, [tensor("x", "int64", 1, 3)], "takes int64"),
        ({"x": np.zeros(1), "y": np.zeros(1)}, [tensor("x", "float32", 1)], "2 inputs are given"),
    ],
)
def test_what_cannot_fit_is_refused_with_both_shapes(given_inputs, declared, message: str):
    with pytest.raises(InputMismatch, match=message):
        fit(given_inputs, declared)
