"""Sources of every kind become the same captured student."""

import numpy as np
import pytest
import torch

from edgekit_converters.capture import capture, parse_source
from edgekit_converters.capture.axes import parse_dynamic
from edgekit_converters.capture.program import runner
from edgekit_runtime.errors import Refused

IMAGE = {"image": np.random.default_rng(0).standard_normal((1, 3, 8, 8)).astype(np.float32)}
STUDENT = """
import torch
class Net(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = torch.nn.Conv2d(3, 4, 3)
        self.linear = torch.nn.Linear(4, 5)
    def forward(self, image):
        return self.linear(self.conv(image).mean((2, 3)))
def build():
    return Net()
module = Net()
number = 3
def broken():
    raise RuntimeError("no GPU here")
"""


class Recurrent(torch.nn.Module):
    """A name that an inner node has too (`embedding`), and a recurrent layer with a dynamic time axis."""

    def __init__(self):
        super().__init__()
        self.embedding = torch.nn.Embedding(50, 8)
        self.lstm = torch.nn.LSTM(8, 6, batch_first=True)
        self.gru = torch.nn.GRU(6, 6, batch_first=True)

    def forward(self, ids):
        mask = (ids != 0).unsqueeze(-1)
        hidden, _ = self.lstm(self.embedding(ids))
        hidden, _ = self.gru(hidden)
        return {"embedding": (hidden * mask).sum(1), "tokens": hidden}


@pytest.fixture
def student_file(tmp_path):
    path = tmp_path / "my_student.py"
    path.write_text(STUDENT)
    return path


@pytest.mark.parametrize("name", ["build", "module", "Net"])
def test_a_factory_a_class_and_a_module_are_taken(student_file, name):
    student = capture(parse_source(f"{student_file}:{name}"), name="s", example=IMAGE)
    assert [t.name for t in student.inputs] == ["image"]
    assert student.inputs[0].shape == ("batch", 3, 8, 8)
    assert student.outputs[0].name == "output"
    assert student.axes[0].role == "batch"
    assert student.exporter == "torch.export"


@pytest.mark.parametrize(
    ("name", "words"), [("number", "gives a int"), ("broken", "no GPU here"), ("bild", "build"), ("torch", "module")]
)
def test_a_name_that_gives_no_module_is_refused(student_file, name, words):
    with pytest.raises(Refused) as caught:
        capture(parse_source(f"{student_file}:{name}"), name="s", example=IMAGE)
    assert words in str(caught.value)


def test_recurrent_layers_keep_their_time_axis():
    ids = np.random.default_rng(0).integers(1, 50, (1, 7))
    dynamic = parse_dynamic(["ids:0=B:1-8", "ids:1=T:1-40"])
    student = capture(Recurrent(), name="s", example={"ids": ids}, dynamic=dynamic)
    assert [t.name for t in student.outputs] == ["embedding", "tokens"]
    assert student.outputs[1].shape == ("B", "T", 6)
    assert {axis.symbol: axis.role for axis in student.axes} == {"B": "batch", "T": "length"}
    targets = [str(node.target) for node in student.program.graph.nodes]
    assert "aten.lstm.input" in targets
    assert "aten.gru.input" in targets
    run = runner(student.program.module())
    for length in (1, 5, 40):
        inputs = {"ids": np.random.default_rng(length).integers(1, 50, (3, length))}
        np.testing.assert_allclose(run(inputs)["tokens"], student.reference(inputs)["tokens"], atol=1e-6)


def test_a_frozen_axis_is_refused_with_the_axis_named():
    class Frozen(torch.nn.Module):
        def forward(self, x):
            return x.reshape(-1, 7 * 4)

    with pytest.raises(Refused, match=r"dynamic axis \(T\)"):
        capture(Frozen(), name="s", example={"x": np.ones((2, 7, 4), np.float32)}, dynamic=parse_dynamic(["x:1=T:1-9"]))


def test_a_size_the_student_does_not_take_is_told_as_the_students_own():
    class Positions(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.table = torch.nn.Embedding(10, 4)

        def forward(self, ids):
            return self.table(torch.arange(ids.shape[1])) + ids.unsqueeze(-1)

    with pytest.raises(Refused):
        capture(
            Positions(), name="s", example={"ids": np.ones((2, 5), np.int64)}, dynamic=parse_dynamic(["ids:1=T:1-32"])
        )


def test_a_student_that_mixes_samples_keeps_its_batch_fixed():
    class Mixing(torch.nn.Module):
        def forward(self, x):
            return x - x.mean(0) + x.sum(0)

    student = capture(Mixing(), name="s", example={"x": np.ones((3, 4), np.float32)})
    assert student.axes == ()
    assert any("batch axis is fixed" in note for note in student.notes)


def test_data_the_student_cannot_run_on_are_told_before_any_exporter():
    with pytest.raises(Refused, match=r"the student itself fails on input \[2, 5\]: RuntimeError"):
        capture(torch.nn.Sequential(torch.nn.Linear(4, 3)), name="s", example={"input": np.ones((2, 5), np.float32)})


def test_an_id_outside_the_table_is_told_as_the_students_own_failure():
    student = capture(torch.nn.Embedding(10, 4), name="s", example={"input": np.ones((1, 5), np.int64)})
    with pytest.raises(Refused, match=r"the student itself fails on input \[1, 2\]: IndexError"):
        student.reference({"input": np.asarray([[3, 10]])})


@pytest.mark.parametrize(
    "example", [{"picture": IMAGE["image"]}, {**IMAGE, "mask": np.ones(3)}, {}], ids=["other name", "too many", "none"]
)
def test_example_inputs_of_the_wrong_names_are_refused(student_file, example):
    with pytest.raises(Refused, match="example inputs are"):
        capture(parse_source(f"{student_file}:build"), name="s", example=example)


def test_no_example_is_refused(student_file):
    with pytest.raises(Refused, match="no example inputs"):
        capture(parse_source(f"{student_file}:build"), name="s", example=None)


@pytest.mark.parametrize("keyword", [True, False])
def test_an_exported_program_is_taken_with_its_axes(tmp_path, keyword):
    module = torch.nn.Sequential(torch.nn.Linear(4, 3), torch.nn.ReLU()).eval()
    batch = torch.export.Dim("batch", min=1, max=9)
    data = torch.randn(2, 4)
    arguments, keywords = ((), {"input": data}) if keyword else ((data,), {})
    shapes = {"input": {0: batch}} if keyword else ({0: batch},)
    program = torch.export.export(module, arguments, keywords, dynamic_shapes=shapes)
    torch.export.save(program, tmp_path / "s.pt2")
    student = capture(parse_source(str(tmp_path / "s.pt2")), name="s", example=None)
    assert student.inputs[0].name == "input"
    assert (student.axes[0].max, student.axes[0].role) == (9, "batch")
    assert runner(student.program.module())({"input": np.ones((5, 4), np.float32)})["output"].shape == (5, 3)


def test_a_truncated_program_is_refused(tmp_path):
    (tmp_path / "s.pt2").write_bytes(b"PK\x03\x04 not a zip")
    with pytest.raises(Refused, match="not a readable exported program"):
        capture(parse_source(str(tmp_path / "s.pt2")), name="s", example=None)


def test_outputs_that_are_no_tensors_are_refused():
    class Odd(torch.nn.Module):
        def forward(self, x):
            return {"y": x, "n": 3}

    with pytest.raises(Refused, match="int as n"):
        capture(Odd(), name="s", example={"x": np.ones((2, 2), np.float32)})


def test_a_quantized_program_is_taken_only_to_be_kept(tmp_path):
    import torch.ao.quantization.fx._decomposed

    quantize = torch.ops.quantized_decomposed.quantize_per_tensor.default
    dequantize = torch.ops.quantized_decomposed.dequantize_per_tensor.default

    class Quantized(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.linear = torch.nn.Linear(4, 3)

        def forward(self, x):
            return self.linear(dequantize(quantize(x, 0.1, 0, -128, 127, torch.int8), 0.1, 0, -128, 127, torch.int8))

    program = torch.export.export(Quantized().eval(), (), {"x": torch.randn(2, 4)})
    torch.export.save(program, tmp_path / "q.pt2")
    with pytest.raises(Refused, match="quantized already") as caught:
        capture(parse_source(str(tmp_path / "q.pt2")), name="q", example=None)
    assert "--precision keep" in caught.value.remedy
    assert capture(parse_source(str(tmp_path / "q.pt2")), name="q", example=None, keep=True).quantized
