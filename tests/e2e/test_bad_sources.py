"""Students that cannot be taken: each says what, where and what to do, exits with 3 and leaves nothing behind."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx.parser
import pytest
import torch

CALIBRATED = ("--calibration", "calib.npz")
QDQ = """
<ir_version: 8, opset_import: ["" : 17]>
quantized (float[N, 4] x) => (float[N, 4] y)
<float scale = {0.1}, int8 zero = {0}>
{
    q = QuantizeLinear(x, scale, zero)
    y = DequantizeLinear(q, scale, zero)
}
"""
TABLE = """
<ir_version: 8, opset_import: ["" : 17]>
quantized (float[N, 4] x) => (float[N, 600] y)
<float scale = {0.1}, int8 zero = {0}>
{
    w = DequantizeLinear(codes, scale, zero)
    y = MatMul(x, w)
}
"""


@pytest.mark.parametrize("source", ["nowhere.py:tiny", "nowhere.onnx", "nowhere.tflite", "nowhere.pt2"])
def test_a_source_that_does_not_exist_is_named(refused: Any, source: str) -> None:
    refused(source, *CALIBRATED).says(source.split(":")[0], "no such file", "check the path")


@pytest.mark.parametrize("suffix", ["onnx", "tflite", "pt2"])
@pytest.mark.parametrize("content", [b"", b"\x08\x08garbage" * 40])
def test_a_damaged_source_file_is_refused_by_name(refused: Any, work: Path, suffix: str, content: bytes) -> None:
    (work / f"model.{suffix}").write_bytes(content)
    refused(f"model.{suffix}", *CALIBRATED).says(f"model.{suffix}")


@pytest.mark.parametrize("keep", [0.3, 0.9])
def test_a_truncated_onnx_file_is_refused(refused: Any, work: Path, tiny_bundle: Path, keep: float) -> None:
    data = (tiny_bundle / "graphs" / "onnx.fp32.onnx").read_bytes()
    (work / "cut.onnx").write_bytes(data[: int(len(data) * keep)])
    refused("cut.onnx", *CALIBRATED).says("cut.onnx")


def test_a_truncated_pt2_file_is_refused(refused: Any, work: Path) -> None:
    program = torch.export.export(torch.nn.Linear(4, 2), (torch.zeros(1, 4),))
    torch.export.save(program, work / "cut.pt2")
    data = (work / "cut.pt2").read_bytes()
    (work / "cut.pt2").write_bytes(data[: len(data) // 2])
    refused("cut.pt2", *CALIBRATED).says("cut.pt2", "torch.export.save")


def test_a_missing_name_in_the_file_lists_what_is_there(refused: Any) -> None:
    refused("students.py:tinny", *CALIBRATED).says("students.py has no name 'tinny'", "tiny")


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("a_dict", ("gives a dict, not an nn.Module",)),
        ("constant", ("gives a int, not an nn.Module",)),
        ("with_argument", ("raised TypeError", "size", "without arguments")),
        ("broken", ("raised RuntimeError: no such checkpoint",)),
    ],
)
def test_a_factory_that_gives_no_module_says_what_it_gave(refused: Any, name: str, words: tuple[str, ...]) -> None:
    refused(f"students.py:{name}", *CALIBRATED).says(f"students.py:{name}", *words)


def test_a_file_that_does_not_import_shows_its_error(refused: Any, work: Path) -> None:
    (work / "students.py").write_text("import no_such_package\n", encoding="utf-8")
    refused("students.py:tiny", *CALIBRATED).says("no module named 'no_such_package'", "install it")


@pytest.mark.parametrize("suffix", [".pt", ".pth", ".pkl"])
def test_a_pickle_as_the_source_is_never_opened(refused: Any, work: Path, suffix: str) -> None:
    refused(f"model{suffix}", *CALIBRATED).says("is a pickle", f"--weights model{suffix}")


def test_a_pickled_module_as_weights_is_not_loaded(refused: Any, work: Path) -> None:
    torch.save(torch.nn.Linear(2, 2), work / "module.pth")
    done = refused("students.py:tiny", *CALIBRATED, "--weights", "module.pth")
    done.says("hold more than tensors", "could run code", "safetensors")


@pytest.mark.parametrize("suffix", ["pth", "safetensors"])
def test_truncated_weights_are_refused(refused: Any, work: Path, suffix: str) -> None:
    from safetensors.torch import save_file

    state = {"conv.weight": torch.zeros(8, 1, 3, 3)}
    path = work / f"w.{suffix}"
    save_file(state, path) if suffix == "safetensors" else torch.save(state, path)
    path.write_bytes(path.read_bytes()[:-40])
    refused("students.py:tiny", *CALIBRATED, "--weights", path.name).says(path.name, "truncated")


def test_missing_weights_are_named(refused: Any) -> None:
    refused("students.py:tiny", *CALIBRATED, "--weights", "gone.pth").says("gone.pth: no such file")


def test_a_state_dict_that_does_not_fit_lists_every_difference(refused: Any, work: Path) -> None:
    state = {"conv.weight": torch.zeros(8, 1, 3, 3), "head.weight": torch.zeros(7, 128), "tail.bias": torch.zeros(1)}
    torch.save({"state_dict": state}, work / "w.pth")
    done = refused("students.py:tiny", *CALIBRATED, "--weights", "w.pth")
    done.says("missing (2): conv.bias, head.bias", "unexpected (1): tail.bias", "wrong shape (1): head.weight")
    done.says("weights (7, 128), module (4, 128)")


def test_weights_go_with_a_python_source_only(refused: Any, work: Path) -> None:
    onnx.save(onnx.parser.parse_model(QDQ), work / "m.onnx")
    done = refused("m.onnx", *CALIBRATED, "--weights", "calib.npz", code=2)
    done.says("--weights goes with a Python source")


def test_a_dynamic_axis_that_the_student_fixes_is_named(refused: Any) -> None:
    done = refused("students.py:frozen", "--calibration", "x.npz", "--dynamic", "x:0", "--dynamic", "x:1=T:1-12")
    done.says("fixes a dynamic axis (T)", "leave the axis static")


@pytest.mark.parametrize("example", [True, False])
def test_a_dynamic_axis_that_an_onnx_file_froze_is_named(refused: Any, work: Path, example: bool) -> None:
    text = """
    <ir_version: 8, opset_import: ["" : 17]>
    frozen (float[N, T] x) => (float[N, 6] y)
    <int64[2] shape = {-1, 6}>
    { y = Reshape(x, shape) }
    """
    onnx.save(onnx.parser.parse_model(text), work / "frozen.onnx")
    np.savez(work / "one.npz", x=np.zeros((1, 6), np.float32))
    arguments = ("--dynamic", "x:0=N:1-12", "--dynamic", "x:1=T:1-6", "--precision", "fp32")
    done = refused("frozen.onnx", *arguments, *(("--example", "one.npz") if example else ()))
    done.says("frozen.onnx declares axis 'T' as dynamic", "size 1" if example else "runs at size 6, not at 1")


def test_an_opset_for_a_file_that_is_taken_as_it_is_is_wrong_usage(refused: Any, work: Path) -> None:
    onnx.save(onnx.parser.parse_model(QDQ), work / "qdq.onnx")
    done = refused("qdq.onnx", "--precision", "keep", "--opset", "18", code=2)
    done.says("--opset goes with a torch source", "qdq.onnx")


def test_dynamic_axes_for_an_exported_program_are_wrong_usage(refused: Any, work: Path) -> None:
    torch.export.save(torch.export.export(torch.nn.Linear(4, 2), (torch.zeros(1, 4),)), work / "m.pt2")
    done = refused("m.pt2", *CALIBRATED, "--dynamic", "input:0", code=2)
    done.says("--dynamic does not go with a .pt2 source")


def test_an_axis_that_is_fixed_in_the_file_cannot_be_declared_dynamic(refused: Any, work: Path) -> None:
    onnx.save(onnx.parser.parse_model(QDQ), work / "fixed.onnx")
    done = refused("fixed.onnx", "--precision", "keep", "--dynamic", "x:1")
    done.says("--dynamic x:1: that axis is fixed in the file")


@pytest.mark.parametrize(
    ("name", "operator", "line"), [("eigen", "_linalg_eigh", "linalg.eigvalsh"), ("twisted", "twist", "return twist(")]
)
def test_an_operator_that_no_format_takes_is_named_with_its_line(
    refused: Any, work: Path, name: str, operator: str, line: str
) -> None:
    source = (work / "students.py").read_text(encoding="utf-8").splitlines()
    number = next(index for index, text in enumerate(source, start=1) if line in text)
    done = refused(f"students.py:{name}", "--calibration", "x.npz")
    done.says("no format takes this student", "onnx: ", "tflite: ")
    for part in (done.err.split("onnx: ")[1].split("tflite: ")[0], done.err.split("tflite: ")[1]):
        assert operator in part
        assert f"students.py:{number}" in part, part
        assert "->" in part, "every reason carries a way out"
        assert "step 3/3" not in part, "the exporter's advice to its own developers helps nobody here"


def test_a_quantized_onnx_file_needs_precision_keep(refused: Any, work: Path) -> None:
    onnx.save(onnx.parser.parse_model(QDQ), work / "qdq.onnx")
    refused("qdq.onnx").says("qdq.onnx is quantized already", "--precision keep")


def test_a_quantized_onnx_file_is_kept_as_it_is(edgekit: Any, work: Path) -> None:
    onnx.save(onnx.parser.parse_model(QDQ), work / "qdq.onnx")
    done = edgekit("convert", "qdq.onnx", "--precision", "keep", "-o", "kept.edge", "--json", "--quiet")
    assert done.code == 0, done.err
    (graph,) = done.document["manifest"]["graphs"]
    kept = (work / "kept.edge" / graph["path"]).read_bytes()
    assert kept == (work / "qdq.onnx").read_bytes()
    assert [(row["format"], row["precision"]) for row in done.document["refused"]] == [("tflite", "all")]


def save_with_data(path: Path, location: str) -> None:
    """A quantized model, y = x @ w, whose weights lie in a file of their own."""
    model = onnx.parser.parse_model(TABLE)
    codes = np.random.default_rng(0).integers(-127, 128, (4, 600)).astype(np.int8)
    model.graph.initializer.append(onnx.numpy_helper.from_array(codes, "codes"))
    (path.parent / location).parent.mkdir(parents=True, exist_ok=True)
    onnx.save(model, path, save_as_external_data=True, location=location, size_threshold=1000)


@pytest.mark.parametrize("location", ["weights.bin", "parts/weights.bin"])
def test_a_quantized_onnx_file_keeps_its_external_data(edgekit: Any, work: Path, location: str) -> None:
    save_with_data(work / "large.onnx", location)
    done = edgekit("convert", "large.onnx", "--precision", "keep", "-o", "large.edge", "--json", "--quiet")
    assert done.code == 0, done.err
    (graph,) = done.document["manifest"]["graphs"]
    assert graph["data"] == [f"graphs/{location}"]
    for name, given in ((graph["path"], "large.onnx"), (graph["data"][0], location)):
        assert (work / "large.edge" / name).read_bytes() == (work / given).read_bytes()
    assert edgekit("verify", "large.edge").code == 0


def test_external_data_that_is_missing_or_named_as_the_graph_is_refused(refused: Any, work: Path) -> None:
    save_with_data(work / "alone.onnx", "alone.bin")
    (work / "alone.bin").unlink()
    refused("alone.onnx", "--precision", "keep").says("alone.onnx", "alone.bin")
    save_with_data(work / "odd.onnx", "onnx.int8.onnx")
    refused("odd.onnx", "--precision", "keep").says("named as the graph", "save it again")


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("person_detect.tflite", ("DEPTHWISE_CONV_2D", "quantization")),
        ("audio_preprocessor_int8.tflite", ("SignalWindow",)),
    ],
)
def test_a_tflite_file_that_todays_litert_refuses_is_refused_clearly(
    refused: Any, name: str, words: tuple[str, ...]
) -> None:
    path = Path(__file__).parents[3] / "shared" / "data" / "models" / "tflite_micro" / name
    if not path.is_file():
        pytest.skip(f"shared/data/models/tflite_micro/{name} is not here")
    refused(str(path), "--precision", "keep").says(name, "litert", *words)


def test_the_example_of_an_onnx_file_must_have_its_names(refused: Any, work: Path) -> None:
    onnx.save(onnx.parser.parse_model(QDQ), work / "qdq.onnx")
    np.savez(work / "wrong.npz", z=np.zeros((1, 4), np.float32))
    done = refused("qdq.onnx", "--precision", "keep", "--example", "wrong.npz")
    done.says("takes inputs x", "the example has z")
