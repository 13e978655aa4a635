from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import onnx
import onnx_students as students
import pytest
import torch
from onnx_graphs import normal

from edgekit_converters.captured import Captured
from edgekit_converters.onnx.export import Exported, export
from edgekit_converters.onnx.session import open_session, run_session, serialize
from edgekit_runtime.errors import Refused
from edgekit_runtime.manifest import Tensor


def parity(student: Captured, data: bytes, inputs: dict[str, np.ndarray]) -> float:
    """Largest error over the reference output's range."""
    want, got = student.reference(inputs), run_session(open_session(data), inputs)
    assert list(got) == [tensor.name for tensor in student.outputs]
    return max(float(np.abs(want[k] - got[k]).max() / np.ptp(want[k])) for k in want)


@pytest.fixture(scope="module")
def bilstm() -> tuple[Captured, Exported]:
    student = students.recurrent(torch.nn.LSTM)
    return student, export(student)


@pytest.mark.parametrize("size", [(1, 4), (3, 31), (2, 128)])
def test_a_bilstm_agrees_with_torch_at_every_length(size: tuple[int, int], bilstm: tuple[Captured, Exported]) -> None:
    student, exported = bilstm
    assert parity(student, serialize(exported.model), {"ids": students.ids(*size, 400)}) < 1e-5


def test_recurrent_weights_are_constants_and_time_stays_an_axis(bilstm: tuple[Captured, Exported]) -> None:
    model = bilstm[1].model
    layers = [node for node in model.graph if node.op_type == "LSTM"]
    assert len(layers) == 2
    for layer in layers:
        assert all(value is not None and value.is_initializer() for value in layer.inputs[1:4])
    assert str(layers[0].inputs[0].shape[0]) == "T"  # type: ignore[index]


def test_an_output_called_like_an_inner_node_keeps_its_name() -> None:
    student = students.encoder()
    exported = export(student)
    for length in (4, 17):
        inputs = {"ids": students.ids(2, length, 300), "mask": np.ones((2, length), np.int64)}
        assert parity(student, serialize(exported.model), inputs) < 1e-5


def test_batch_norms_are_folded_and_nothing_of_the_exporter_is_left() -> None:
    student = students.residual_net()
    exported = export(student)
    proto = onnx.load_from_string(serialize(exported.model))
    assert not {node.op_type for node in proto.graph.node} & {"BatchNormalization", "Identity", "Constant", "Dropout"}
    assert not any(node.metadata_props or node.doc_string for node in proto.graph.node)
    assert [output.name for output in proto.graph.output] == ["early", "final"]
    assert exported.wheres["a/Conv"].startswith("onnx_students.py:")
    assert "stem/Conv" in {node.name for node in proto.graph.node}
    assert parity(student, serialize(exported.model), student.example) < 1e-5


def test_two_exports_give_the_same_bytes() -> None:
    assert serialize(export(students.text_cnn()).model) == serialize(export(students.text_cnn()).model)


def test_exporting_leaves_logging_and_warnings_as_they_were() -> None:
    import logging
    import warnings

    before = (logging.root.manager.disable, list(warnings.filters), logging.getLogger("torch.onnx").level)
    export(students.text_cnn())
    assert (logging.root.manager.disable, list(warnings.filters), logging.getLogger("torch.onnx").level) == before


def test_an_unsupported_operator_is_named_with_its_line() -> None:
    class Strange(torch.nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return torch.special.bessel_j1(x)

    x = normal(2, 3)
    student = students.capture(Strange(), {"x": x}, {}, {"output": (2, 3)})
    with pytest.raises(Refused) as refused:
        export(student)
    assert "special_bessel_j1" in refused.value.message and "test_export.py:" in refused.value.message
    assert refused.value.remedy


def onnx_source(path: Path, **more: object) -> Captured:
    tensors = [Tensor(name=name, dtype="float32", shape=("B", 4)) for name in ("x", "y")]
    x = normal(2, 4)
    base = Captured("given", "onnx", (tensors[0],), (tensors[1],), (), {"x": x}, lambda inputs: {}, path=path)
    return dataclasses.replace(base, **more)  # type: ignore[arg-type]


def write(path: Path, body: str) -> Path:
    onnx.save(onnx.parser.parse_model(f'<ir_version: 8, opset_import: ["" : 18]> agraph {body}'), path)
    return path


QDQ = """(float[B,4] x) => (float[B,4] y) <float s = {0.1}, uint8 z = {128}> {
  q = QuantizeLinear(x, s, z)  y = DequantizeLinear(q, s, z) }"""


def test_an_onnx_source_is_cleaned(tmp_path: Path) -> None:
    path = write(
        tmp_path / "a.onnx", "(float[B,4] x) => (float[B,4] y) { a = Identity(x)  b = Relu(a)  y = Identity(b) }"
    )
    assert [node.op_type for node in export(onnx_source(path)).model.graph] == ["Relu"]


def test_a_quantized_source_is_refused_unless_kept(tmp_path: Path) -> None:
    path = write(tmp_path / "q.onnx", QDQ)
    with pytest.raises(Refused, match="quantized already") as refused:
        export(onnx_source(path))
    assert "--precision keep" in refused.value.remedy
    assert len(export(onnx_source(path, quantized=True)).model.graph) == 2


@pytest.mark.parametrize("content", [None, b"", b"not a model", "truncated"])
def test_a_missing_or_damaged_file_is_refused(tmp_path: Path, content: bytes | str | None) -> None:
    path = tmp_path / "a.onnx"
    if content == "truncated":
        whole = write(path, "(float[B,4] x) => (float[B,4] y) { y = Relu(x) }").read_bytes()
        path.write_bytes(whole[: len(whole) // 2])
    elif content is not None:
        path.write_bytes(content)  # type: ignore[arg-type]
    with pytest.raises(Refused, match=r"a\.onnx"):
        export(onnx_source(path))


def failing(student: Captured, opset: int | None) -> None:
    raise RuntimeError("the first exporter fails")


def test_the_older_exporter_steps_in_where_it_is_right(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("edgekit_converters.onnx.export._dynamo", failing)
    student = students.residual_net()
    exported = export(student)
    assert exported.exporter == "torch.onnx torchscript" and "first exporter" in exported.notes[0]
    assert parity(student, serialize(exported.model), student.example) < 1e-5


def test_the_older_exporter_is_not_believed_where_it_froze_a_size(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("edgekit_converters.onnx.export._dynamo", failing)
    with pytest.raises(Refused, match="first exporter"):
        export(students.encoder())


def test_a_source_with_branches_is_taken(tmp_path: Path) -> None:
    body = """(float[B,4] x) => (float[B,4] y) {
      c = Constant<value_int=1>()  b = Cast<to=9>(c)
      y = If (b) <
        then_branch = g1 () => (float[B,4] p) { p = Relu(x) },
        else_branch = g2 () => (float[B,4] q) { q = Neg(x) }> }"""
    path = write(tmp_path / "if.onnx", body)
    model = export(onnx_source(path)).model
    x = normal(2, 4)
    np.testing.assert_array_equal(run_session(open_session(serialize(model)), {"x": x})["y"], np.maximum(x, 0))
