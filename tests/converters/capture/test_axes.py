import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgekit_converters.capture.axes import (
    DynamicAxis,
    axis_role,
    bounds,
    output_shapes,
    padded,
    parse_dynamic,
    resized,
    sizes_to_try,
)
from edgekit_runtime.errors import UsageError

BATCH_AND_TIME = (DynamicAxis("ids", 0, "B"), DynamicAxis("ids", 1, "T"))
IDS = {"ids": np.arange(1, 11).reshape(2, 5)}


def test_the_whole_form_is_read():
    assert parse_dynamic(["ids:1=T:1-128"]) == (DynamicAxis("ids", 1, "T", 1, 128),)


def test_the_same_place_of_two_inputs_shares_a_symbol():
    first, second = parse_dynamic(["ids:0", "mask:0"])
    assert first.symbol == second.symbol == "batch"


@pytest.mark.parametrize("text", ["ids", "ids:x", "ids:0=", "ids:0:5", "ids:0:9-2", "ids:0:0-2", ":0", "ids:0:3-3"])
def test_another_form_is_a_usage_error(text):
    with pytest.raises(UsageError, match="--dynamic"):
        parse_dynamic([text])


@pytest.mark.parametrize("text", ["nope:0", "ids:7", "ids:1:6-9", "ids:1:1-4"])
def test_an_axis_that_is_not_there_or_of_another_size_is_a_usage_error(text):
    with pytest.raises(UsageError) as caught:
        bounds(parse_dynamic([text]), IDS)
    assert caught.value.remedy


def test_one_axis_under_two_symbols_is_a_usage_error():
    with pytest.raises(UsageError, match="axis 0 of input 'ids' twice"):
        parse_dynamic(["ids:0=N", "ids:0=M"])


def test_a_range_said_once_holds_for_every_axis_of_its_symbol():
    two = {"ids": IDS["ids"], "mask": IDS["ids"]}
    for texts in (["ids:1=T:1-9", "mask:1=T"], ["ids:1=T", "mask:1=T:1-9"]):
        assert bounds(parse_dynamic(texts), two) == {"T": (1, 9)}
    with pytest.raises(UsageError, match="two ranges: 1-9 and 1-8"):
        bounds(parse_dynamic(["ids:1=T:1-9", "mask:1=T:1-8"]), two)


def test_one_symbol_with_two_sizes_is_a_usage_error():
    with pytest.raises(UsageError, match="size 2 and 5"):
        bounds(parse_dynamic(["ids:0=N", "ids:1=N"]), IDS)


@given(st.integers(1, 40))
def test_resizing_gives_the_size_and_repeats_from_the_start(size):
    out = resized(IDS, BATCH_AND_TIME, "T", size)["ids"]
    assert out.shape == (2, size)
    assert (out == IDS["ids"][:, np.arange(size) % 5]).all()


@given(st.integers(1, 10))
def test_padding_adds_zeros_at_the_end(extra):
    out = padded(IDS, BATCH_AND_TIME, "T", extra)["ids"]
    assert (out[:, :5] == IDS["ids"]).all()
    assert (out[:, 5:] == 0).all()


@given(st.integers(1, 50), st.integers(0, 50))
def test_sizes_to_try_hold_both_ends(low, more):
    sizes = sizes_to_try(low, low + more)
    assert sizes[0] == low
    assert sizes[-1] == low + more


def _role(run, symbol, limit=(1, 16)):
    shapes = output_shapes(run, IDS, BATCH_AND_TIME, {"B": (1, 8), "T": (1, 16)})
    return axis_role(run, IDS, BATCH_AND_TIME, symbol, limit, shapes)


def _masked_sum(inputs):
    return {"output": np.stack([inputs["ids"].sum(1), (inputs["ids"] ** 2).sum(1)], 1).astype(np.float32)}


def _mean(inputs):
    return {"output": inputs["ids"].mean(1, keepdims=True).astype(np.float32)}


def _mixing(inputs):
    return {"output": (inputs["ids"] - inputs["ids"].mean(0)).sum(1, keepdims=True).astype(np.float32)}


def _per_token(inputs):
    return {"output": inputs["ids"][..., None].astype(np.float32) * np.ones(3, np.float32)}


def test_samples_that_do_not_meet_make_a_batch_axis():
    assert _role(_masked_sum, "B") == "batch"


def test_samples_that_meet_do_not():
    assert _role(_mixing, "B") == "other"


def test_neutral_padding_makes_a_length_axis():
    assert _role(_masked_sum, "T") == "length"
    assert _role(_per_token, "T") == "length"


@given(st.integers(5, 12))
def test_no_size_beyond_the_range_is_tried_to_learn_the_role(high):
    seen = []

    def run(inputs):
        seen.append(inputs["ids"].shape[1])
        return _masked_sum(inputs)

    assert _role(run, "T", (4, high)) == "length"
    own = seen[3:]  # before them `output_shapes` ran: the example, one more of B, one more of T
    assert len(own) == 2
    assert 4 <= own[0] < own[1] <= high


def test_a_mean_over_padding_is_no_length_axis():
    assert _role(_mean, "T") == "other"


def test_outputs_learn_which_axis_follows():
    shapes = output_shapes(_per_token, IDS, BATCH_AND_TIME, {"B": (1, 8), "T": (1, 16)})
    assert shapes[0].shape == ("B", "T", 3)


def test_a_cut_axis_folds_whole_numbers_that_pointed_into_it_and_no_others():
    graph = {
        "x": np.zeros((6, 2), np.float32),
        "edges": np.array([[0, 5], [3, 2]]),
        "kind": np.array([9]),
        "weight": np.array([5.0]),
    }
    dynamic = parse_dynamic(["x:0=N:1-8"])
    cut = resized(graph, dynamic, "N", 4)
    np.testing.assert_array_equal(cut["edges"], [[0, 1], [3, 2]])
    np.testing.assert_array_equal(cut["kind"], [9])
    np.testing.assert_array_equal(cut["weight"], [5.0])
    np.testing.assert_array_equal(resized(graph, dynamic, "N", 8)["edges"], graph["edges"])


STREAM = {
    "x": np.random.default_rng(0).standard_normal((2, 4)),
    "state": np.random.default_rng(1).standard_normal((3, 2, 4)),
    "rate": np.array(16_000),
}
SAMPLES = (DynamicAxis("x", 0, "B"), DynamicAxis("state", 1, "B"))


def _stream(inputs, mixed=0.0):
    state = inputs["state"] + inputs["x"] + mixed * inputs["x"].mean(0)
    return {"output": state.sum(0) * float(inputs["rate"]), "next": state}


@pytest.mark.parametrize(("mixed", "role"), [(0.0, "batch"), (1.0, "other")])
def test_a_state_with_its_samples_in_the_second_axis_is_a_batch_all_the_same(mixed, role):
    def run(inputs):
        return _stream(inputs, mixed)

    shapes = output_shapes(run, STREAM, SAMPLES, {"B": (1, 8)})
    assert {tensor.name: tensor.shape for tensor in shapes} == {"output": ("B", 4), "next": (3, "B", 4)}
    assert axis_role(run, STREAM, SAMPLES, "B", (1, 8), shapes) == role


def test_a_batch_that_one_input_does_not_have_is_none():
    def run(inputs):
        return {"output": inputs["x"] + inputs["state"][:, 0].sum(0)}

    shapes = output_shapes(run, STREAM, SAMPLES[:1], {"B": (1, 8)})
    assert axis_role(run, STREAM, SAMPLES[:1], "B", (1, 8), shapes) != "batch"
