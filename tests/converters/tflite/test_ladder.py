import dataclasses
import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgekit_converters.captured import Captured
from edgekit_converters.tflite.ladder import MAX_RUNGS, plan, rung_sizes, shape_at, sizes_of_data
from edgekit_runtime.errors import Refused, UsageError
from edgekit_runtime.manifest import Axis, Tensor


def student(*axes: Axis) -> Captured:
    shape = tuple(axis.symbol for axis in axes)
    example = {"x": np.zeros([max(axis.min, 7) for axis in axes], np.float32)}
    return Captured(
        name="s",
        kind="module",
        inputs=(Tensor(name="x", dtype="float32", shape=shape),),
        outputs=(),
        axes=axes,
        example=example,
        reference=dict,
    )


def axis(symbol: str, role: str, low: int, high: int) -> Axis:
    return Axis(symbol=symbol, min=low, max=high, role=role)  # type: ignore[arg-type]


@given(low=st.integers(1, 600), extra=st.integers(0, 4000))
def test_every_length_fits_a_rung_and_padding_is_less_than_double_above_the_smallest(low: int, extra: int) -> None:
    high = low + extra
    sizes = rung_sizes(axis("T", "length", low, high))
    assert sizes[-1] == high
    assert list(sizes) == sorted(set(sizes))
    assert 1 <= len(sizes) <= MAX_RUNGS
    assert all(after <= 2 * before for before, after in itertools.pairwise(sizes))


def test_the_usual_ladder() -> None:
    assert rung_sizes(axis("T", "length", 1, 128)) == (16, 32, 64, 128)
    assert rung_sizes(axis("T", "length", 1, 512)) == (16, 32, 64, 128, 256, 512)
    assert rung_sizes(axis("T", "length", 1, 10)) == (10,)
    assert rung_sizes(axis("T", "length", 40, 100)) == (64, 100)


def test_batch_is_one_and_other_axes_take_the_size_of_the_example() -> None:
    rungs = plan(student(axis("B", "batch", 1, 8), axis("N", "other", 2, 50)))
    assert [(rung.name, rung.sizes) for rung in rungs] == [("serving_default", {"B": 1, "N": 7})]


def test_two_length_axes_step_together() -> None:
    rungs = plan(student(axis("W", "length", 1, 64), axis("C", "length", 1, 32)))
    assert [rung.sizes for rung in rungs] == [{"W": 16, "C": 16}, {"W": 32, "C": 16}, {"W": 64, "C": 32}]
    assert rungs[-1].name == "w64_c32"


def test_sizes_asked_for_replace_the_default_and_must_fit() -> None:
    one = student(axis("N", "other", 2, 50))
    assert [rung.name for rung in plan(one, {"N": [40, 8]})] == ["n8", "n40"]
    with pytest.raises(UsageError, match="60"):
        plan(one, {"N": [60]})
    with pytest.raises(UsageError, match="'Q'"):
        plan(one, {"Q": [1]})


def test_a_symbol_no_input_has_is_a_mistake() -> None:
    lost = dataclasses.replace(student(axis("N", "other", 2, 50)), inputs=())
    with pytest.raises(UsageError, match="'N'"):
        plan(lost)


def test_shapes_take_the_sizes_of_a_rung() -> None:
    assert shape_at(("B", 3, "T"), {"B": 1, "T": 16}) == (1, 3, 16)


def of_sizes(*sizes: tuple[int, ...]) -> list[dict[str, np.ndarray]]:
    return [{"x": np.zeros(size, np.float32)} for size in sizes]


def test_an_axis_that_cannot_be_padded_gets_the_sizes_of_the_data() -> None:
    made = student(axis("B", "batch", 1, 8), axis("T", "other", 2, 64))  # its example has T = 7
    asked = sizes_of_data(made, of_sizes((1, 9), (3, 5), (1, 9)))
    assert asked == {"T": (5, 7, 9)}
    assert [rung.sizes for rung in plan(made, asked)] == [{"B": 1, "T": size} for size in (5, 7, 9)]
    assert sizes_of_data(made, of_sizes((1, 7))) == {}


def test_an_axis_that_can_be_padded_keeps_its_ladder_whatever_the_data() -> None:
    made = student(axis("B", "batch", 1, 8), axis("T", "length", 2, 64))
    assert sizes_of_data(made, of_sizes((1, 9), (3, 5))) == {}


def test_more_sizes_than_rungs_are_refused_with_the_way_out() -> None:
    made = student(axis("T", "other", 2, 64))
    with pytest.raises(Refused, match=r"'T'.*the data have 7 \(7 to 13\), a file gets 6") as refused:
        sizes_of_data(made, of_sizes(*((size,) for size in range(8, 14))))
    assert "--format onnx" in str(refused.value) and "mask padding" in str(refused.value)


def test_two_axes_that_do_not_step_together_are_refused() -> None:
    made = student(axis("T", "other", 2, 64), axis("S", "other", 2, 64))
    assert sizes_of_data(made, of_sizes((9, 9), (7, 7))) == {"T": (7, 9), "S": (7, 9)}
    with pytest.raises(Refused, match="no rung of the graph takes T 9, S 7"):
        sizes_of_data(made, of_sizes((9, 7), (7, 9)))
