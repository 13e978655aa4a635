"""Sizes as a kernel sees them: whole vectors, runs that lie together, rows of a table."""

from __future__ import annotations

import math

import pytest

from edgekit.devices import coordinates
from edgekit.devices.families import cell
from edgekit_runtime.measurement import OpCost

Shape = tuple[int, ...]


def op(kind: str, inputs: list[Shape], *outputs: Shape, macs: int = 0, int8: bool = False) -> OpCost:
    size = 1 if int8 else 4
    moved = size * sum(map(math.prod, (*inputs, *outputs)))
    return OpCost(name="op", kind=kind, inputs=tuple(inputs), outputs=outputs, macs=macs, bytes=moved, int8=int8)


@pytest.mark.parametrize(
    ("kind", "int8", "sizes", "channels", "seen"),
    [
        ("CONV_2D", False, (64, 500, 100), 100, (64, 500, 128)),  # tiles of 32 columns
        ("CONV_2D1d", False, (64, 500, 100), 100, (64, 500, 128)),
        ("CONV_2D", False, (64, 72, 8), 8, (64, 72, 16)),  # a narrower tile where all fits one
        ("CONV_2D", True, (1024, 27, 12), 3, (1024, 72, 16)),  # 3 channels of each of 9 taps take the room of 8
        ("FULLY_CONNECTED", True, (1, 300, 2), 300, (1, 304, 16)),
        ("Conv", False, (64, 36, 12), 4, (64, 36, 16)),
        ("Conv1d", False, (52, 500, 100), 100, (64, 500, 100)),  # pixels are the columns of its product
        ("Conv1d", False, (1, 192, 64), 64, (1, 192, 64)),  # one pixel: a matrix times a vector
        ("QLinearConv", True, (64, 27, 16), 3, (64, 28, 16)),
    ],
)
def test_products_are_counted_in_whole_vectors(kind: str, int8: bool, sizes: Shape, channels: int, seen: Shape) -> None:
    assert coordinates.product(kind, int8, sizes, channels) == seen


@pytest.mark.parametrize(
    ("given", "run"),
    [
        (op("Concat", [(1, 60, 8), (1, 4, 8)], (1, 64, 8)), 256),  # two pieces in a row
        (op("Concat", [(64, 8), (64, 8)], (64, 16)), 8),
        (op("Slice", [(1, 64, 8)], (1, 60, 8)), 480),
        (op("Slice", [(64, 8)], (64, 7)), 7),
        (op("Split", [(64, 16)], (64, 8), (64, 8)), 8),
        (op("Pad", [(64, 8)], (66, 8)), 512),
        (op("PAD", [(1, 8, 8, 16), (4, 2)], (1, 10, 10, 16)), 16),  # pixel by pixel
        (op("PAD", [(1, 8, 8, 16), (4, 2)], (1, 10, 8, 16)), 128),  # row by row
        (op("PAD", [(1, 16, 8, 8), (4, 2)], (1, 16, 9, 9)), 8),  # channels first: the last axis grows
        (op("PAD", [(8, 8), (2, 2)], (8, 8)), 64),  # nothing grows
        (op("STRIDED_SLICE", [(1, 64, 2, 8)], (1, 32, 2, 8)), 1),  # one by one
        (op("STRIDED_SLICE", [(1, 64, 2, 8)], (1, 63, 2, 8)), 1008),  # all but one
        (op("Concat", [(4,)], (2, 2)), 4),  # of another rank: nothing is told
        (op("Concat", []), 1),
    ],
)
def test_a_run_is_what_lies_together_on_both_sides(given: OpCost, run: int) -> None:
    assert coordinates.run(given) == run


@pytest.mark.parametrize(
    ("inputs", "run"),
    [
        ([(64, 8), (64, 8)], 512),
        ([(64, 8), (8,)], 8),
        ([(64, 8), (64, 1)], 8),
        ([(64, 8), ()], 512),
        ([(4, 16, 8), (16, 8)], 128),
    ],
)
def test_operands_go_on_alike_as_long_as_none_begins_anew(inputs: list[Shape], run: int) -> None:
    output = max(inputs, key=math.prod)
    assert coordinates.binary_run(op("Add", inputs, output)) == run


def test_gathering_counts_rows_and_how_wide_they_are() -> None:
    assert cell(op("Gather", [(1000, 16), (4,)], (4, 16))).grid == (64, 16)
    assert cell(op("GATHER", [(1000, 1), (64,)], (64, 1))).grid == (64, 1)
    assert cell(op("ScatterND", [(10, 16), (40, 1), (40, 16)], (10, 16))).grid == (640, 16)


def int32(kind: str, *inputs: Shape) -> OpCost:
    return OpCost(name="op", kind=kind, inputs=inputs, outputs=(max(inputs, key=math.prod),), dtype="int32")


def test_litert_computes_int32_by_itself_and_repeats_an_operand_in_another_loop() -> None:
    assert cell(int32("SUB", (1, 64), (1, 64))).key == "elementwise/ADDInt/float"
    assert cell(int32("MINIMUM", (1, 64), ())).key == "elementwise/MAXIMUMIntBroadcast/float"
    assert cell(int32("RIGHT_SHIFT", (1, 64), (1, 1))).key == "elementwise/RIGHT_SHIFTInt/float"
    assert cell(op("SUB", [(1, 64), ()], (1, 64))).key == "elementwise/ADD/float"  # fp32 is XNNPACK's
    assert cell(int32("Sub", (1, 64), ())).key == "elementwise/Add/float"  # ONNX Runtime has one kernel for both


def test_a_repeated_operand_is_compared_along_the_last_axis_alone() -> None:
    assert cell(op("LESS", [(64, 1), ()], (64, 1))).grid == (64, 1)
    assert cell(op("LESS", [(64, 1), (64, 1)], (64, 1))).grid == (64, 64)
    assert cell(op("LESS", [(64,), ()], (64,))).grid == (64, 64)
    assert cell(op("SELECT_V2", [(64, 1), (64, 8), ()], (64, 8))).grid == (512, 8)
    assert cell(op("REDUCE_ALL", [(64, 1), (1,)], (64,))).grid == (64, 64)


def test_a_transposition_to_few_channels_is_another_kernel_than_one_of_matrices() -> None:
    assert cell(op("TRANSPOSE", [(1, 3, 16, 16), (4,)], (1, 16, 16, 3))).kind == "TRANSPOSEThin"
    assert cell(op("TRANSPOSE", [(1, 16, 16, 3), (4,)], (1, 3, 16, 16))).kind == "TRANSPOSE"
    assert cell(op("TRANSPOSE", [(1, 80, 20, 3), (4,)], (1, 20, 80, 3))).kind == "TRANSPOSE"  # rows stay whole


def test_a_part_is_counted_by_what_is_taken_and_not_by_what_it_is_taken_from() -> None:
    assert cell(op("SLICE", [(1024, 64)], (2, 64))).grid == (128, 128)


def test_a_convolution_of_one_channel_is_no_depthwise_one() -> None:
    first = op("DEPTHWISE_CONV_2D", [(1, 49, 10, 1), (1, 10, 4, 64)], (1, 25, 5, 64), macs=125 * 40 * 64)
    assert cell(first).key == "conv/CONV_2D/float"
    deeper = op("DEPTHWISE_CONV_2D", [(1, 25, 5, 64), (1, 3, 3, 64)], (1, 25, 5, 64), macs=125 * 9 * 64)
    assert cell(deeper).key == "depthwise/DEPTHWISE_CONV_2D/float"


def test_small_products_of_a_batch_are_told_from_large_ones() -> None:
    many = op("MatMul", [(27, 20, 20), (27, 20, 20)], (27, 20, 20), macs=27 * 20**3)
    assert cell(many).grid == (27, 20, 20, 32)
    assert cell(many).sizes == (540, 20, 20)


def test_one_step_of_a_convolution_over_time_is_still_one_over_one_axis() -> None:
    step = op("CONV_2D", [(1, 1, 3, 64), (64, 1, 3, 64)], (1, 1, 1, 64), macs=192 * 64)
    assert cell(step).key == "conv/CONV_2D1dVector/float"
