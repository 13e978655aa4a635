from __future__ import annotations

import pytest

from edgekit_runtime.engines import litert_profile
from edgekit_runtime.engines.litert_profile import Event, join
from edgekit_runtime.measurement import OpCost

ROWS = (
    OpCost(name="CONV_2D_0", kind="CONV_2D", macs=100, bytes=10, int8=True),
    OpCost(name="SOFTMAX_1", kind="SOFTMAX", macs=0, bytes=4),
    OpCost(name="FULLY_CONNECTED_2", kind="FULLY_CONNECTED", macs=20, bytes=5),
)
RUN = [
    Event("Convolution (NHWC, QC8) IGEMM", True, 0, 18),
    Event("SOFTMAX", False, 1, 3),
    Event("TfLiteXNNPackDelegate", False, 5, 30),
    Event("Fully Connected (NC, F32) GEMM", True, 0, 7),
]


def test_events_take_names_and_work_of_the_operators_they_stand_for():
    rows = join(ROWS, [RUN, RUN], looped=False)
    assert [(row.name, row.ms, row.macs, row.delegate) for row in rows] == [
        ("CONV_2D_0", 0.018, 100, "XNNPACK"),
        ("SOFTMAX 1", 0.003, 0, "LiteRT"),
        ("FULLY_CONNECTED_2", 0.007, 20, "XNNPACK"),
    ]
    assert rows[0].int8 and not rows[2].int8


def test_one_interrupted_run_does_not_move_the_times():
    slow = [Event(event.tag, event.delegate, event.index, event.micros + 900) for event in RUN]
    assert join(ROWS, [RUN] * 7 + [slow], looped=False)[0].ms == pytest.approx(0.018)


def test_where_the_numbers_of_operators_differ_no_work_is_claimed():
    rows = join(ROWS[:2], [RUN], looped=False)
    assert [row.macs for row in rows] == [None, 0, None]
    assert rows[0].int8  # told by XNNPACK's own name


def test_pieces_of_the_delegate_are_told_apart_and_loops_are_added_up():
    twice = [Event("Add (ND, F32)", True, 0, 1), Event("GATHER", False, 0, 2), Event("Add (ND, F32)", True, 0, 4)]
    assert [row.ms for row in join((), [twice], looped=False)] == [0.001, 0.002, 0.004]
    assert [row.ms for row in join((), [twice], looped=True)] == [0.005, 0.002]


@pytest.mark.parametrize(
    ("version", "known"), [("2.3.0", True), ("2.10.1", True), ("2.2.9", False), ("3.0.0", False), ("x", False)]
)
def test_only_known_layouts_are_called(version: str, known: bool):
    assert litert_profile.supported(version) is known
