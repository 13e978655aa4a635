"""Which student is named for a budget, and what the picture shows, from made-up candidates."""

from __future__ import annotations

import xml.etree.ElementTree as ElementTree
from pathlib import Path

import msgspec
import numpy as np
import pytest

from benchmarks import __main__ as benchmarks
from benchmarks import which_student
from benchmarks.which_picture import Point, front, picture
from benchmarks.which_student import Candidate, recommend


def candidate(name: str, right: int, ms: float, size: int = 1000, of: int = 872) -> Candidate:
    # Those answered rightly are the first ones: whoever is right more often is right wherever the other is.
    return Candidate(name, "onnx.int8", Path(), np.arange(of) < right, size, None, {"pi4": ms})


def test_the_most_accurate_student_within_the_budget_is_named() -> None:
    small, large = candidate("small", 600, 1.0), candidate("large", 700, 8.0, size=9000)
    assert recommend([small, large], "pi4", None, None) is large
    assert recommend([small, large], "pi4", 5.0, None) is small
    assert recommend([small, large], "pi4", None, 2000) is small
    assert recommend([small, large], "pi4", 0.5, None) is None


def test_a_cheaper_student_is_named_where_the_difference_cannot_be_told_from_none() -> None:
    best = candidate("best", 700, 8.0)
    # Right on one sentence less, and on as many others as it loses: nobody can tell.
    mixed = np.roll(best.right, 100)
    cheap = Candidate("cheap", "onnx.int8", Path(), mixed & (np.arange(872) > 0), 1000, None, {"pi4": 1.0})
    assert recommend([best, cheap], "pi4", None, None) is cheap


def test_a_student_that_does_not_run_on_a_device_is_not_named_there() -> None:
    assert recommend([candidate("one", 700, 1.0)], "n100", None, None) is None


def test_the_front_holds_what_nothing_else_beats() -> None:
    points = [
        Point("a", "g", 1.0, 0.7),
        Point("b", "g", 2.0, 0.6),
        Point("c", "g", 3.0, 0.8),
        Point("d", "g", 3.0, 0.75),
    ]
    assert [point.student for point in front(points)] == ["a", "c"]


def test_the_picture_is_well_formed_even_with_one_point_or_none() -> None:
    panels = {"here": [Point("a", "onnx.int8", 1.0, 0.7), Point("b<", "tflite.fp32", 30.0, 0.8)], "pi4": [], "n100": []}
    panels["n100"] = [Point("a", "onnx.fp32", 2.0, 0.7)]
    drawn = ElementTree.fromstring(picture(panels))
    name = "{http://www.w3.org/2000/svg}"
    assert len(list(drawn.iter(f"{name}circle"))) == 2
    assert "pi4: nothing runs there" in "".join(drawn.itertext())
    ElementTree.fromstring(picture({"here": []}))


def test_the_matrix_bundle_is_taken_only_where_its_weights_were_trained(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(which_student, "MATRIX", tmp_path)
    assert not which_student._of_trained_weights("text_cnn")
    for trained in (False, True):
        (tmp_path / "text_cnn.convert.json").write_bytes(msgspec.json.encode({"trained": trained}))
        assert which_student._of_trained_weights("text_cnn") is trained


def test_the_page_is_one_of_the_benchmarks_and_an_unknown_one_is_refused(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert set(benchmarks.WORDS) <= set(benchmarks.NAMES)
    monkeypatch.setattr("sys.argv", ["benchmarks", "which_studnet"])
    assert benchmarks.main() == 2
    assert "which_student" in capsys.readouterr().err
