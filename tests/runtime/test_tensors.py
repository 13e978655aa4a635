from __future__ import annotations

import numpy as np
import pytest

from edgekit_runtime.errors import InputMismatch
from edgekit_runtime.manifest import Axis, Quantization, Tensor
from edgekit_runtime.tensors import check, convert

IDS = Tensor(name="ids", dtype="int32", shape=("batch", "time"))
MASK = Tensor(name="mask", dtype="float32", shape=("batch", "time"))
AXES = {"time": Axis(symbol="time", min=2, max=8, role="length")}


def test_fitting_inputs_come_back_in_the_graphs_order_with_their_sizes() -> None:
    ids, mask = np.ones((2, 3), np.int32), np.ones((2, 3), np.float32)
    arrays, sizes = check((IDS, MASK), AXES, {"mask": mask, "ids": ids})
    assert list(arrays) == ["ids", "mask"]
    assert arrays["ids"] is ids
    assert sizes == {"batch": 2, "time": 3}


def test_every_problem_is_named_at_once() -> None:
    with pytest.raises(InputMismatch) as caught:
        check((IDS, MASK), AXES, {"ids": np.ones((2, 9)), "masks": 1})
    text = caught.value.message
    assert "input 'mask' is missing" in text
    assert "unexpected input 'masks', did you mean 'mask'?" in text
    assert "ids has dtype float64, takes int32" in text


@pytest.mark.parametrize(
    ("ids", "mask", "words"),
    [
        ((2, 9), (2, 9), "time is 9 in ids, allowed are 2 to 8"),
        ((2, 1), (2, 1), "time is 1 in ids, allowed are 2 to 8"),
        ((2, 3), (2, 4), "time is 3 in ids and 4 in mask"),
        ((3,), (2, 3), r"ids has shape \[3\], takes \[batch, time\]"),
    ],
)
def test_shapes_that_do_not_fit_are_named(ids: tuple[int, ...], mask: tuple[int, ...], words: str) -> None:
    with pytest.raises(InputMismatch, match=words):
        check((IDS, MASK), AXES, {"ids": np.ones(ids, np.int32), "mask": np.ones(mask, np.float32)})


def test_a_fixed_size_is_named_with_its_axis() -> None:
    image = Tensor(name="image", dtype="float32", shape=("batch", 3, 32, 32))
    with pytest.raises(InputMismatch, match="axis 1 must be 3, is 4"):
        check((image,), {}, {"image": np.zeros((1, 4, 32, 32), np.float32)})


@pytest.mark.parametrize(
    ("dtype", "value", "fits"),
    [
        ("int32", np.array([1, 2], np.int64), True),
        ("int32", np.array([1, 2**31]), False),
        ("int32", [1, 2], True),
        ("int32", [1.0, 2.0], False),
        ("int32", np.array([True, False]), True),
        ("uint8", np.array([-1]), False),
        ("int64", np.array([2**63], np.uint64), False),
        ("float32", np.array([0.5]), True),
        ("float32", np.array([1e300]), False),
        ("float32", np.array([np.inf]), True),
        ("float16", np.array([1e6], np.float32), False),
        ("float32", [0.5, 1], True),
        ("float32", [1, 2], True),
        ("float32", np.array([1, 2], np.uint8), False),
        ("float32", np.array(["a"]), False),
        ("bool", np.array([1]), False),
        ("float32", [[1.0], [1.0, 2.0]], False),
    ],
)
def test_only_conversions_that_keep_every_value_happen(dtype: str, value: object, fits: bool) -> None:
    array, problem = convert(Tensor(name="x", dtype=dtype, shape=("n",)), value)
    assert (array is not None) == fits
    if array is not None:
        assert array.dtype == dtype
        np.testing.assert_array_equal(array, np.asarray(value))
    else:
        assert problem.startswith("x ")


def test_a_float_for_an_int8_border_is_told_how_to_quantize() -> None:
    tensor = Tensor(name="x", dtype="int8", shape=("n",), quantization=Quantization(scale=0.5, zero_point=3))
    _, problem = convert(tensor, np.zeros(2, np.float32))
    assert "round(x / 0.5) + 3" in problem
