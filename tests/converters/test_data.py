import json

import numpy as np
import pytest

from edgekit_converters.data import Samples, cast_like, check_fit, load_samples
from edgekit_runtime.errors import Refused, UsageError

X = np.random.default_rng(0).standard_normal((12, 3, 4)).astype(np.float32)


def test_an_npz_gives_samples_with_their_axis_kept(tmp_path):
    np.savez(tmp_path / "c.npz", x=X, labels=np.arange(12), slice=np.asarray(["a", "b"] * 6))
    samples = load_samples(str(tmp_path / "c.npz"), role="calibration")
    assert len(samples) == 12
    assert samples.inputs[3]["x"].shape == (1, 3, 4)
    assert samples.labels.tolist() == list(range(12))
    assert samples.slices[1] == "b"


def test_a_student_without_a_batch_axis_gets_samples_without_one():
    samples = load_samples({"x": X}, role="calibration", example={"x": X[0]})
    assert samples.inputs[0]["x"].shape == (3, 4)


def test_a_folder_of_npy_is_read_by_name_or_by_sample(tmp_path):
    np.save(tmp_path / "x.npy", X)
    assert len(load_samples(str(tmp_path), role="calibration", example={"x": X[:1]})) == 12
    other = tmp_path / "each"
    other.mkdir()
    for index in range(3):
        np.save(other / f"{index}.npy", X[index])
    assert load_samples(str(other), role="calibration", example={"x": X[:1]}).inputs[2]["x"].shape == (1, 3, 4)


def test_lines_of_text_need_a_tokenizer(tmp_path):
    path = tmp_path / "t.jsonl"
    path.write_text("\n".join(json.dumps({"text": word, "label": i}) for i, word in enumerate(["a", "bb"])))
    with pytest.raises(Refused, match="tokenizer"):
        load_samples(str(path), role="calibration")
    samples = load_samples(str(path), role="evaluation", encode=lambda text: {"ids": np.ones((1, len(text)), np.int64)})
    assert samples.labels.tolist() == [0, 1]
    assert samples.inputs[1]["ids"].shape == (1, 2)


def test_a_broken_line_is_named(tmp_path):
    path = tmp_path / "t.jsonl"
    path.write_text('{"text": "a"}\nnope\n')
    with pytest.raises(Refused, match=r"t\.jsonl:2"):
        load_samples(str(path), role="calibration", encode=lambda text: {})


def test_token_labels_of_different_length_are_filled_up_with_not_known():
    samples = load_samples([{"x": X[:1], "labels": [1, 2]}, {"x": X[:1], "labels": [3]}], role="evaluation")
    assert samples.labels.tolist() == [[1, 2], [3, -1]]
    with pytest.raises(Refused, match="different shapes"):
        load_samples([{"x": X[:1], "labels": [0.5, 2]}, {"x": X[:1], "labels": [3.0]}], role="evaluation")


def test_binary_files_are_no_text(tmp_path):
    (tmp_path / "t.txt").write_bytes(b"\x93\xff\x00")
    with pytest.raises(Refused, match=r"t\.txt is not a text file"):
        load_samples(str(tmp_path / "t.txt"), role="calibration", encode=lambda text: {})


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_nan_is_refused_with_its_sample(value):
    bad = X.copy()
    bad[7, 0, 0] = value
    with pytest.raises(Refused, match="sample 7"):
        load_samples({"x": bad}, role="calibration")


def test_no_samples_are_refused():
    with pytest.raises(Refused, match="no samples"):
        load_samples({"x": X[:0]}, role="calibration")


def test_arrays_of_different_length_are_refused():
    with pytest.raises(Refused, match="x: 12, y: 3"):
        load_samples({"x": X, "y": X[:3]}, role="calibration")


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04truncated", b"not a zip"])
def test_a_damaged_npz_is_refused(tmp_path, content):
    (tmp_path / "c.npz").write_bytes(content)
    with pytest.raises(Refused, match="not a readable"):
        load_samples(str(tmp_path / "c.npz"), role="calibration")


def test_pickled_arrays_are_refused(tmp_path):
    np.savez(tmp_path / "c.npz", x=np.asarray([{}, []], dtype=object))
    with pytest.raises(Refused):
        load_samples(str(tmp_path / "c.npz"), role="calibration")


def test_an_unknown_form_is_a_usage_error(tmp_path):
    (tmp_path / "c.csv").write_text("1,2")
    with pytest.raises(UsageError, match="unknown form"):
        load_samples(str(tmp_path / "c.csv"), role="calibration")
    with pytest.raises(Refused, match="no such file"):
        load_samples(str(tmp_path / "d.csv"), role="calibration")


@pytest.mark.parametrize(
    ("arrays", "words"),
    [
        ({"y": X}, "takes x"),
        ({"x": X[..., :2]}, "shape"),
        ({"x": X.astype(np.int64)}, "int64"),
    ],
)
def test_data_that_do_not_fit_the_student_say_how(arrays, words):
    samples = load_samples(arrays, role="calibration")
    with pytest.raises(Refused, match=words):
        check_fit(samples, {"x": X[:1]}, {"x": [0]})


def test_wider_floats_are_cast_to_the_students_dtype():
    samples = cast_like(load_samples({"x": X.astype(np.float64)}, role="calibration"), {"x": X[:1]})
    assert samples.inputs[0]["x"].dtype == np.float32


def test_the_fingerprint_depends_on_every_byte_and_on_the_order():
    one = load_samples({"x": X}, role="calibration").described()
    changed = X.copy()
    changed[11, 2, 3] += 1
    assert one == load_samples({"x": X.copy()}, role="calibration").described()
    assert one != load_samples({"x": changed}, role="calibration").described()
    assert one != load_samples({"x": X[::-1]}, role="calibration").described()
    assert Samples("", ()).described().samples == 0
