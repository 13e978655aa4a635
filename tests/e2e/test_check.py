"""`edgekit check`: what stands against a format, told before any work."""

from __future__ import annotations

from typing import Any

import pytest


def test_a_student_that_converts_is_promised_both_formats(edgekit: Any) -> None:
    done = edgekit("check", "students.py:tiny", "--calibration", "calib.npz", "--json", "--quiet")
    assert done.code == 0
    formats = done.document["formats"]
    assert list(formats) == ["onnx", "tflite"]
    for one in formats.values():
        assert one["convertible"] and one["int8_macs_fraction"] == 1.0
        assert one["int8_weight_bytes_fraction"] == pytest.approx(1.0)
        assert one["findings"] == []


def test_an_operator_no_format_has_is_named_with_its_line_and_a_way_out(edgekit: Any) -> None:
    done = edgekit("check", "students.py:eigen", "--example", "x.npz", "--json", "--quiet")
    assert done.code == 3
    for one in done.document["formats"].values():
        (finding,) = one["findings"]
        assert not one["convertible"] and finding["severity"] == "error"
        assert "eig" in finding["op"] and "students.py:" in finding["where"]
        assert finding["reason"] and finding["remedy"]


def test_an_operator_kept_float_is_told_with_place_and_share(edgekit: Any) -> None:
    done = edgekit("check", "students.py:tiny", "--calibration", "calib.npz", "--keep-float", "conv*", "--json")
    assert done.code == 0
    for name, one in done.document["formats"].items():
        (finding,) = [f for f in one["findings"] if "keep-float" in f["reason"]]
        assert finding["severity"] == "warning" and "leave --keep-float out" in finding["remedy"]
        assert "students.py:" in finding["where"] or name == "tflite"
        assert one["int8_macs_fraction"] < 0.5


def test_the_promise_of_check_is_what_the_bundle_holds(edgekit: Any) -> None:
    promised = edgekit("check", "students.py:tiny", "--calibration", "calib.npz", "--json", "--quiet").document
    made = edgekit("convert", "students.py:tiny", "--calibration", "calib.npz", "-o", "t.edge", "--json", "--quiet")
    for graph in made.document["manifest"]["graphs"]:
        if graph["precision"] == "int8" and graph["role"] == "full":
            told = promised["formats"][graph["format"]]
            assert graph["promised_int8_macs_fraction"] == told["int8_macs_fraction"]
            assert graph["int8_weight_bytes_fraction"] == pytest.approx(told["int8_weight_bytes_fraction"], abs=0.02)


def test_a_graph_file_is_checked_for_its_own_format(edgekit: Any, bundle: Any) -> None:
    done = edgekit("check", "tiny.edge/graphs/onnx.fp32.onnx", "--json", "--quiet")
    assert done.code == 0
    assert done.document["formats"]["onnx"]["convertible"]
    assert not done.document["formats"]["tflite"]["convertible"]
