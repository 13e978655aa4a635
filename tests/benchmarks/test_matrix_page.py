"""What the page of the matrix says of made-up rows."""

from __future__ import annotations

from typing import Any

import msgspec
import numpy as np
import pytest

from benchmarks.cells import Cell, Held, Quality, Row, Slice, Speed, Twin, loss, verdict
from benchmarks.held import from_outputs
from benchmarks.matrix_page import body, picture, states_of_rows
from edgekit_converters.verify.metrics import METRICS

QUALITY = Quality("top1", 0.900, 0.899, 0.001, (-0.002, 0.004), 500, True, 0.995, 0.999, 40.0)
CELL = Cell(quality=QUALITY, weights=0.99, macs=0.9, size=0.26, batch=1.0, padding=1.0, sizes={"B": [1, 2, 3, 4, 5]})
SPEED = Speed({"onnx.fp32": 2.0, "onnx.int8": 1.0}, {"onnx": (2.0, 1.9, 2.1)})


def row(name: str = "one", number: int = 1, **changed: Any) -> Row:
    made = Row(name, number, True, True, 3.0, {"onnx": CELL, "tflite": CELL}, speed=SPEED)
    return msgspec.structs.replace(made, **changed)


def with_cell(**changed: Any) -> Row:
    return row(cells={"onnx": msgspec.structs.replace(CELL, **changed), "tflite": CELL})


def test_a_good_cell_works_without_a_word() -> None:
    assert verdict(row(), "onnx") == verdict(row(), "tflite")
    assert (verdict(row(), "onnx").state, verdict(row(), "onnx").reasons) == ("works", [])


@pytest.mark.parametrize(
    ("changed", "state", "word"),
    [
        ({"fp32_error": 2e-4}, "failed", "fp32 differs"),
        ({"failures": ["onnx.int8 at B=7: no"]}, "failed", "at B=7"),
        ({"padding": 0.99}, "failed", "padding changes answers"),
        ({"weights": 0.5}, "failed", "50% of weight bytes"),
        ({"weights": 0.5, "back_for_speed_bytes": 0.49}, "works", ""),
        ({"quality": msgspec.structs.replace(QUALITY, drop=0.02)}, "failed", "loses 2.00 points"),
        ({"refused": "no such operator"}, "refused", "no such operator"),
        ({"quality": None, "int8_refused": "drop 0.0550 against 0.0100 allowed"}, "refused", "ships fp32"),
        ({"quality": None, "int8_refused": "slower than fp32"}, "works", "ships fp32"),
        ({"quality": None, "int8_refused": "slower than fp32", "batch": 0.5}, "failed", "batch changes"),
    ],
)
def test_a_cell_works_is_refused_or_failed_with_the_reason(changed: dict[str, Any], state: str, word: str) -> None:
    seen = verdict(with_cell(**changed), "onnx")
    assert seen.state == state
    assert word in "; ".join(seen.reasons)


def test_int8_that_is_seen_to_be_slower_does_not_work() -> None:
    slow = row(speed=Speed({"onnx.fp32": 1.0, "onnx.int8": 1.2}, {"onnx": (0.83, 0.80, 0.86)}))
    unsure = row(speed=Speed({"onnx.fp32": 1.0, "onnx.int8": 1.0}, {"onnx": (0.99, 0.95, 1.04)}))
    assert verdict(slow, "onnx").state == "failed"
    assert verdict(unsure, "onnx").state == "works"
    assert "one ONNX | **missed**" in body([slow], 36)


def test_a_row_whose_steps_left_nothing_still_gives_a_page() -> None:
    broken = row("late", 2, cells={}, speed=None, trouble="convert: no result within 300 s")
    page = body([row(), broken], 36)
    assert "2 work, 0 refused, 2 failed | **missed**" in page
    assert "| late | TFLite | failed | convert: no result within 300 s |" in page
    slow = body([row(trouble="stock: no result within 150 s", speed=None)], 36)
    assert "| one | - | a step left nothing | stock: no result within 150 s |" in slow
    assert "≥ 1.8x | - | not seen |" in slow
    assert "0 work" in body([broken], 36)
    assert "<svg" in picture([broken])


def test_the_picture_has_its_axis_title_and_no_row_without_a_word() -> None:
    bare = Speed({"onnx.int8": 1.0}, {})
    twin = Twin({"onnx": 0.3}, {"onnx": (2.0, 1.9, 2.1)}, {"onnx.int8": 1.0, "onnx.fp32": 2.0})
    text = picture([row("whole"), row("integers", speed=bare, twin=twin), row("nothing", speed=bare)])
    assert "times as fast as the faster fp32 graph" in text
    assert ">whole<" in text and "a program of integers" in text and ">nothing<" not in text
    assert "a program of integers" not in picture([row("whole")])


def test_a_row_of_several_students_is_as_good_as_its_worst() -> None:
    bad = row("two", cells={"onnx": CELL, "tflite": Cell(refused="no")})
    assert states_of_rows([bad, row()]) == {(1, "onnx"): "works", (1, "tflite"): "refused"}


def test_the_median_speed_counts_graphs_of_a_millisecond_and_more() -> None:
    quick = row("quick", 2, speed=Speed({"onnx.fp32": 0.2, "onnx.int8": 0.2}, {"onnx": (1.0, 0.98, 1.02)}))
    page = body([row(), quick], 36)
    assert "median of 1 graphs whose fp32 takes 1 ms or more | ≥ 1.8x | 2.00x | met" in page


def test_what_is_lost_is_told_in_points_and_of_a_metric_without_scale_as_a_share() -> None:
    seen = msgspec.structs.replace(QUALITY, metric="perplexity", reference=200.0, value=201.0, drop=1.0)
    assert loss(seen, seen.metric) == pytest.approx(0.005)
    page = body([row(), with_cell(quality=seen)], 36)
    assert "0.50 (one ONNX) | met" in page
    assert loss(QUALITY, "top1") == QUALITY.drop


def test_groups_and_held_back_figures_stand_on_the_page() -> None:
    dark = Slice("dark", 0.40, 0.32, 0.08, (0.02, 0.14), 146, "failed")
    held = Held("top1", 0.386, (0.344, 0.428), 500)
    page = body([msgspec.structs.replace(with_cell(slices=[dark]), held=held)], 36)
    assert "| one | ONNX | dark | 146 | 0.400 | 0.320 | +8.00 [+2.00, +14.00] | failed |" in page
    assert "groups that pass the gate | all | 0 of 1 | **missed**" in page
    assert "| one | top1 | 500 | 0.386 [0.344, 0.428] | 0.899 | 0.899 |" in page


def test_the_interval_of_a_students_own_metric_holds_the_value_and_skips_unknown_labels() -> None:
    labels = np.array([*[0] * 80, *[1] * 20, -1, -1])
    outputs = [np.array([[1.0, 0.0]])] * 102
    held = from_outputs(outputs, labels, METRICS["top1"])
    assert (held.n, held.value) == (100, pytest.approx(0.8))
    low, high = held.interval_95
    # A binomial's standard error of 0.04: about 0.08 either way.
    assert low == pytest.approx(0.72, abs=0.02)
    assert high == pytest.approx(0.88, abs=0.02)


def test_a_program_of_integers_is_held_against_its_twin_and_is_no_slower_shipped_graph() -> None:
    timed = {"onnx.int8": 4.0, "onnx.fp32": 2.0, "tflite.int8": 8.0, "tflite.fp32": 1.0}
    twin = Twin({"onnx": 0.257, "tflite": 0.281}, timed, {"onnx": (0.5, 0.49, 0.51), "tflite": (0.125, 0.12, 0.13)})
    alone = Speed({"onnx.int8": 4.0, "tflite.int8": 8.0}, {})
    itself = msgspec.structs.replace(CELL, size=1.0)
    page = body([row("whole", 14, cells={"onnx": itself, "tflite": itself}, speed=alone, twin=twin)], 36)
    assert "≤ 0.27x | 0.281x; 1 of 2 graphs above: whole TFLite | **missed**" in page
    assert "0.257x (of its twin)" in page
    assert "| whole | ONNX | 0.257x | 4.000 | 2.000 | 0.50x [0.49, 0.51] |" in page
    assert "shipped int8 graphs slower than fp32 | none | none | met" in page
    assert "1.000x" not in page


def test_a_file_above_the_limit_is_named_with_what_int8_cannot_make_smaller() -> None:
    large = row(cells={"onnx": msgspec.structs.replace(CELL, size=0.31), "tflite": CELL})
    page = body([msgspec.structs.replace(large, structure={"onnx": (4000, 31000)})], 36)
    assert "0.310x; 1 of 2 graphs above: one ONNX (4,000 of 31,000 bytes are operators, names and scales)" in page
    assert "0.260x (one TFLite); 0 of 2 graphs above | met" in body([row()], 36)
