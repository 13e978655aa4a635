"""Calibration, evaluation and example data that do not fit: named, with the sample and what the student takes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

ONNX = ("--format", "onnx")


def images(count: int = 16, **more: np.ndarray) -> dict[str, np.ndarray]:
    return {"image": np.random.default_rng(1).random((count, 1, 8, 8), dtype=np.float32), **more}


def test_without_any_data_the_person_is_told_what_to_give(refused: Any) -> None:
    refused("students.py:tiny").says("no example inputs", "--example", "--calibration")


def test_int8_without_calibration_is_refused_with_both_ways_out(refused: Any, work: Path) -> None:
    np.savez(work / "one.npz", **images(1))
    done = refused("students.py:tiny", "--example", "one.npz")
    done.says("no calibration data", "--calibration", "--precision fp32")


def _whole(done: Any) -> list[dict[str, Any]]:
    """The full graphs of a conversion, without the segments they were cut into."""
    return [graph for graph in done.document["manifest"]["graphs"] if graph["role"] == "full"]


def test_fp32_needs_no_calibration(edgekit: Any, work: Path) -> None:
    np.savez(work / "one.npz", **images(1))
    arguments = ("students.py:tiny", "--example", "one.npz", "--precision", "fp32", *ONNX)
    done = edgekit("convert", *arguments, "-o", "out.edge", "--json", "--quiet")
    assert done.code == 0, done.err
    assert [graph["id"] for graph in _whole(done)] == ["onnx.fp32"]


@pytest.mark.parametrize("option", ["--calibration", "--eval", "--example"])
def test_a_missing_data_file_is_named(refused: Any, option: str) -> None:
    base = () if option == "--calibration" else ("--calibration", "calib.npz")
    refused("students.py:tiny", *base, option, "gone.npz").says("gone.npz", "no such file")


@pytest.mark.parametrize("keep", [0, 10, -30])
def test_a_truncated_npz_is_refused(refused: Any, work: Path, keep: int) -> None:
    data = (work / "calib.npz").read_bytes()
    (work / "cut.npz").write_bytes(data[:keep])
    refused("students.py:tiny", "--calibration", "cut.npz").says("cut.npz", "numpy.savez")


def test_an_npz_of_pickled_objects_is_never_opened(refused: Any, work: Path) -> None:
    np.savez(work / "objects.npz", image=np.array([{"a": 1}], object))
    refused("students.py:tiny", "--calibration", "objects.npz").says("objects.npz", "object arrays are not read")


@pytest.mark.parametrize("option", ["--example", "--calibration"])
def test_wrong_names_show_what_forward_takes(refused: Any, work: Path, option: str) -> None:
    np.savez(work / "wrong.npz", picture=images()["image"])
    more = ("--calibration", "calib.npz") if option == "--example" else ()
    refused("students.py:tiny", option, "wrong.npz", *more).says("picture", "forward(image)", "lacks image")


def test_calibration_with_other_names_than_the_example_is_refused(refused: Any, work: Path) -> None:
    np.savez(work / "one.npz", **images(1))
    np.savez(work / "wrong.npz", picture=images()["image"])
    done = refused("students.py:tiny", "--example", "one.npz", "--calibration", "wrong.npz")
    done.says("sample 0 has inputs picture", "the student takes image")


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_nan_and_infinity_are_found_with_their_sample(refused: Any, work: Path, value: float) -> None:
    data = images()
    data["image"][5, 0, 3, 3] = value
    np.savez(work / "nan.npz", **data)
    refused("students.py:tiny", "--calibration", "nan.npz").says("sample 5 has NaN or infinity in input 'image'")


@pytest.mark.parametrize("shape", [(16, 1, 9, 8), (16, 2, 8, 8), (16, 8, 8)])
def test_calibration_of_another_shape_is_refused(refused: Any, work: Path, shape: tuple[int, ...]) -> None:
    np.savez(work / "one.npz", **images(1))
    np.savez(work / "shape.npz", image=np.zeros(shape, np.float32))
    done = refused("students.py:tiny", "--example", "one.npz", "--calibration", "shape.npz")
    done.says("sample 0, input 'image' has shape", "the student takes (1, 1, 8, 8)")


def test_data_the_student_itself_cannot_run_on_are_refused(refused: Any, work: Path) -> None:
    np.savez(work / "shape.npz", image=np.zeros((16, 3, 8, 8), np.float32))
    refused("students.py:tiny", "--calibration", "shape.npz").says("the student itself fails", "channels")


def test_calibration_of_another_kind_of_number_is_refused(refused: Any, work: Path) -> None:
    np.savez(work / "one.npz", **images(1))
    np.savez(work / "whole.npz", image=np.zeros((16, 1, 8, 8), np.int64))
    done = refused("students.py:tiny", "--example", "one.npz", "--calibration", "whole.npz")
    done.says("input 'image' is int64", "the student takes float32")


def test_arrays_of_different_length_are_refused(refused: Any, work: Path) -> None:
    np.savez(work / "eval.npz", **images(16, labels=np.zeros(15, np.int64)))
    done = refused("students.py:tiny", "--calibration", "calib.npz", "--eval", "eval.npz")
    done.says("differ in their number of samples", "image: 16", "labels: 15")


def test_no_samples_at_all_are_refused(refused: Any, work: Path) -> None:
    np.savez(work / "none.npz", **images(0))
    refused("students.py:tiny", "--calibration", "none.npz").says("holds no samples")


def test_fewer_than_eight_samples_warn_and_work(edgekit: Any, work: Path) -> None:
    np.savez(work / "few.npz", **images(3))
    done = edgekit("convert", "students.py:tiny", "--calibration", "few.npz", *ONNX, "-o", "out.edge")
    assert done.code == 0, done.err
    done.says("warning: 3 calibration samples are few", "100 to 500")
    assert (work / "out.edge" / "graphs" / "onnx.int8.onnx").is_file()


def test_text_without_a_tokenizer_is_refused(refused: Any, work: Path) -> None:
    (work / "lines.txt").write_text("one\ntwo\n", encoding="utf-8")
    refused("students.py:text", "--calibration", "lines.txt").says("has no tokenizer", "--tokenizer")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--dynamic", "image"), ("'image' is not NAME:AXIS",)),
        (("--dynamic", "picture:0"), ("picture", "image")),
        (("--dynamic", "image:7"), ("has only 4 axes", "counted from 0")),
        (("--dynamic", "image:2=H:1-9", "--dynamic", "image:3=H:1-8"), ("two ranges: 1-9 and 1-8", "share a size")),
        (("--dynamic", "image:0=N:9-3"), ("9-3 are not a range",)),
        (("--format", "caffe"), ("caffe", "onnx,tflite")),
        (("--precision", "int4"), ("int4", "auto")),
        (("--metric", "accuracy", "--format", "onnx"), ("'accuracy' is not known", "top1")),
        (("--max-drop", "little", "--format", "onnx"), ("'little' is not a number",)),
        (("--exits", "early,late", "--format", "onnx"), ("early, late", "scores")),
        (("--min-engine", "onnxruntime"), ("onnxruntime=1.18",)),
        (("--min-engine", "onnxruntime=1.2", "--format", "onnx"), ("--min-engine promises 1.2",)),
        (("--version", "0"), ("--version 0",)),
        (("--no-such-option",), ("--no-such-option",)),
    ],
)
def test_options_that_cannot_be_meant_are_wrong_usage(
    refused: Any, arguments: tuple[str, ...], words: tuple[str, ...]
) -> None:
    refused("students.py:tiny", "--calibration", "calib.npz", *arguments, code=2).says(*words)


@pytest.mark.parametrize("option", ["--labels", "--preprocess", "--tokenizer"])
def test_assets_that_are_missing_are_named(refused: Any, option: str) -> None:
    refused("students.py:tiny", "--calibration", "calib.npz", option, "gone").says(option, "gone")


def test_a_preprocess_file_with_an_unknown_key_is_refused(refused: Any, work: Path) -> None:
    (work / "p.toml").write_text('[inputs.image]\nkind = "image"\nsize = [8, 8]\nzoom = 2\n', encoding="utf-8")
    done = refused("students.py:tiny", "--calibration", "calib.npz", "--preprocess", "p.toml")
    done.says("preprocess.toml", "zoom")


FUNCTIONS = """
import numpy as np

def raising():
    raise ValueError("disk gone")

def half_way():
    yield {"image": np.zeros((1, 1, 8, 8), np.float32)}
    raise ValueError("half way")

def a_number():
    return 5

constant = 7
"""


@pytest.mark.parametrize(
    ("name", "word"),
    [("raising", "disk gone"), ("half_way", "half way"), ("a_number", "int"), ("constant", "int"), ("gone", "gone")],
)
def test_a_data_function_that_fails_is_the_persons_error_not_a_bug(
    refused: Any, work: Path, monkeypatch: pytest.MonkeyPatch, name: str, word: str
) -> None:
    (work / "e2e_functions.py").write_text(FUNCTIONS, encoding="utf-8")
    monkeypatch.syspath_prepend(str(work))
    refused("students.py:tiny", "--calibration", f"e2e_functions:{name}").says(f"e2e_functions:{name}", word)


@pytest.mark.parametrize("option", ["--calibration", "--eval"])
def test_a_sample_on_which_the_student_fails_is_named(refused: Any, work: Path, option: str) -> None:
    data = dict(np.load(work / "ids.npz"))
    np.savez(work / "good.npz", **data)
    data["ids"][3, 2] = 50  # the table has rows 0 to 49
    np.savez(work / "ids.npz", **data)
    given = {"--calibration": "good.npz", "--eval": "good.npz", option: "ids.npz"}
    words = [word for pair in given.items() for word in pair]
    done = refused("students.py:text", "--example", "good.npz", *words)
    done.says("ids.npz: sample 3", "the student itself fails", "out of range")


@pytest.mark.parametrize(
    ("labels", "more"),
    [
        (np.array(["cat"] * 16), ()),
        (np.zeros((16, 3)), ()),
        (np.zeros(16), ()),
        (np.full(16, 99), ()),
        (np.full(16, 99), ("--metric", "perplexity")),
        (np.full(16, -1), ()),
    ],
    ids=["words", "float rows", "float classes", "no such class", "no such token", "none known"],
)
def test_labels_that_do_not_fit_the_output_are_refused(
    refused: Any, work: Path, labels: np.ndarray, more: tuple[str, ...]
) -> None:
    np.savez(work / "eval.npz", **images(16, labels=labels))
    done = refused("students.py:tiny", "--calibration", "calib.npz", "--eval", "eval.npz", *ONNX, *more)
    done.says("eval.npz: labels")


def test_samples_without_a_known_label_do_not_count(edgekit: Any, work: Path) -> None:
    labels = np.r_[np.full(10, -1), np.zeros(6, np.int64)]
    np.savez(work / "eval.npz", **images(16, labels=labels))
    arguments = ("--calibration", "calib.npz", "--eval", "eval.npz", *ONNX, "-o", "out.edge", "--json", "--quiet")
    done = edgekit("convert", "students.py:tiny", *arguments)
    assert done.code == 0, done.err
    (quality,) = done.document["manifest"]["quality"]
    assert (quality["metric"], quality["n"]) == ("top1", 6)


@pytest.mark.parametrize("opset", [15, 23])
def test_the_opset_asked_for_is_in_every_graph(edgekit: Any, work: Path, opset: int) -> None:
    arguments = ("--calibration", "calib.npz", *ONNX, "--opset", str(opset), "-o", "out.edge", "--quiet")
    done = edgekit("convert", "students.py:tiny", *arguments)
    assert done.code == 0, done.err
    graphs = sorted((work / "out.edge" / "graphs").glob("*.onnx"))
    assert {"onnx.fp32.onnx", "onnx.int8.onnx"} < {path.name for path in graphs}
    for path in graphs:
        assert {entry.domain: entry.version for entry in onnx.load(path).opset_import}[""] == opset


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (("--preprocess", "calib.npz"), 3),
        (("--dynamic", "image:0=N:1-1"), 2),
        (("--dynamic", "image:2=H:8-12"), 3),  # pooling makes 8 and 9 one size, 10 is another
        (("--dynamic", "image:2=H:9-20"), 2),
        (("--dynamic", "image:0=N", "--dynamic", "image:0=M"), 2),
        (("--exits", "scores,scores"), 2),
        (("--seed", "-5"), 2),
        (("--name", "a/b"), 2),
        (("--opset", "5"), 2),
        (("--opset", "999"), 2),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else str(value),
)
def test_no_option_value_ends_in_a_bug_or_is_ignored(refused: Any, arguments: tuple[str, ...], code: int) -> None:
    done = refused("students.py:tiny", "--calibration", "calib.npz", *ONNX, *arguments, code=code)
    assert "Traceback" not in done.err
