import pytest

from edgekit_converters.capture.source import parse_source
from edgekit_runtime.errors import Refused, UsageError


def test_a_python_file_and_name_is_a_module(tmp_path):
    file = tmp_path / "student.py"
    file.write_text("x = 1")
    spec = parse_source(f"{file}:build")
    assert (spec.kind, spec.path, spec.attribute, spec.stem) == ("module", file, "build", "student")


def test_a_dotted_module_is_named_by_its_last_part():
    spec = parse_source("package.students.text_cnn:build")
    assert (spec.kind, spec.attribute, spec.stem) == ("module", "build", "text_cnn")


@pytest.mark.parametrize("suffix", ["pt2", "onnx", "tflite"])
def test_a_missing_file_is_refused_by_name(tmp_path, suffix):
    with pytest.raises(Refused, match="no such file"):
        parse_source(str(tmp_path / f"student.{suffix}"))


@pytest.mark.parametrize("suffix", ["pt", "pth", "th", "bin", "pkl"])
def test_a_pickle_is_never_a_source(tmp_path, suffix):
    file = tmp_path / f"student.{suffix}"
    file.write_bytes(b"\x80\x04.")
    with pytest.raises(Refused, match="can run code") as caught:
        parse_source(str(file))
    assert "--weights" in caught.value.remedy


def test_a_folder_without_config_is_refused(tmp_path):
    with pytest.raises(Refused, match="without config"):
        parse_source(str(tmp_path))


def test_a_folder_with_pickled_weights_only_is_refused(tmp_path):
    (tmp_path / "config.json").write_text("{}")
    (tmp_path / "pytorch_model.bin").write_bytes(b"x")
    with pytest.raises(Refused, match=r"no \.safetensors"):
        parse_source(str(tmp_path))


def test_a_bundle_as_source_is_recognised(tmp_path):
    (tmp_path / "manifest.json").write_text("{}")
    with pytest.raises(Refused) as caught:
        parse_source(str(tmp_path))
    assert "inspect" in caught.value.remedy


@pytest.mark.parametrize("text", ["student", "student.txt", "a b:c", "student.py:", "student.py:1x"])
def test_anything_else_lists_what_is_allowed(text):
    with pytest.raises((UsageError, Refused)) as caught:
        parse_source(text)
    assert caught.value.remedy
