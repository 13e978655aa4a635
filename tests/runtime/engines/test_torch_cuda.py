"""The engine torch for NVIDIA cards: its code paths on the CPU, against ONNX Runtime."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from edgekit_runtime import engines
from edgekit_runtime.errors import EngineMissing, Refused, UsageError

torch = pytest.importorskip("torch")
onnx = pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")

from onnx import TensorProto, helper, numpy_helper  # noqa: E402

from edgekit_runtime.engines.torch_cuda import TABLE, TorchCuda  # noqa: E402

RNG = np.random.default_rng(0)


class OnTheCpu(TorchCuda):
    """The same engine with the CPU in place of the card."""

    device = "cpu"


def f(*shape: int) -> np.ndarray:
    return RNG.normal(size=shape).astype(np.float32)


def i(*values) -> np.ndarray:
    return np.array(values, np.int64)


def graph_of(path: Path, kind: str, given: list, outputs: int = 1, opset: int = 18, fixed=(), domain="", **attributes):
    """A file with one node; inputs at the positions in `fixed` are constants, None is not given."""
    names = [f"i{n}" if value is not None else "" for n, value in enumerate(given)]
    node = helper.make_node(kind, names, [f"o{n}" for n in range(outputs)], name="node", domain=domain, **attributes)
    free = [
        helper.make_tensor_value_info(names[n], helper.np_dtype_to_tensor_dtype(value.dtype), value.shape)
        for n, value in enumerate(given)
        if value is not None and n not in fixed
    ]
    constants = [numpy_helper.from_array(given[n], names[n]) for n in fixed]
    # The type of an output is left to inference, which the checker of ONNX Runtime does itself.
    ends = [onnx.ValueInfoProto(name=f"o{n}") for n in range(outputs)]
    graph = helper.make_graph([node], "one", free, ends, constants)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=9)
    inferred = onnx.shape_inference.infer_shapes(model) if not domain else model
    onnx.save(inferred, path)
    return {names[n]: value for n, value in enumerate(given) if value is not None and n not in fixed}


IMAGE, SEQUENCE = f(2, 6, 7, 8), f(5, 3, 4)
CASES = {
    "add with broadcasting": ("Add", [f(2, 3), f(3)], {}),
    "integer division goes to zero": ("Div", [i(7, -7, 9), i(2, 2, -4)], {}),
    "reflected remainder": ("Mod", [i(7, -7, 9), i(3, 3, -4)], {}),
    "sum of three": ("Sum", [f(2, 3), f(3), f(1, 1)], {}),
    "clip with one end": ("Clip", [f(3, 4), None, np.float32(0.5)], {}),
    "gelu": ("Gelu", [f(3, 4)], {"opset": 20, "approximate": "tanh"}),
    "hard sigmoid": ("HardSigmoid", [f(3, 4)], {"alpha": 0.3}),
    "cast to bool": ("Cast", [f(3, 4).round()], {"to": TensorProto.BOOL}),
    "where": ("Where", [f(3, 4) > 0, f(3, 4), f(4)], {}),
    "softmax": ("Softmax", [f(3, 4, 2)], {"axis": 1}),
    "gather from the end": ("Gather", [f(5, 3), np.array([[0, -1], [2, -5]])], {"axis": 0}),
    "gather on axis 1": ("Gather", [f(5, 3, 2), np.array([2, 0])], {"axis": 1}),
    "gather elements": ("GatherElements", [f(3, 4), np.array([[0, 1], [-1, 2], [3, 0]])], {"axis": 1}),
    "gather in batches": ("GatherND", [f(2, 3, 4), np.array([[[1], [2]], [[0], [-1]]])], {"batch_dims": 1}),
    "scatter that adds": (
        "ScatterND", [f(4, 3), np.array([[1], [1], [3]]), f(3, 3)], {"reduction": "add"},
    ),
    "scatter elements": ("ScatterElements", [f(3, 4), np.array([[0, -1]]), f(1, 2)], {"axis": 1}),
    "slice backwards": ("Slice", [f(6, 5), i(-1), i(-100), i(0), i(-2)], {"fixed": (1, 2, 3, 4)}),
    "slice forwards": ("Slice", [f(6, 5), i(1, 0), i(100, -1)], {"fixed": (1, 2)}),
    "reshape with 0 and -1": ("Reshape", [f(2, 3, 4), i(0, -1)], {"fixed": (1,)}),
    "expand": ("Expand", [f(3, 1), i(2, 1, 4)], {"fixed": (1,)}),
    "unsqueeze": ("Unsqueeze", [f(3, 4), i(0, -1)], {"fixed": (1,)}),
    "squeeze": ("Squeeze", [f(1, 3, 1, 4), i(0, 2)], {"fixed": (1,)}),
    "transpose": ("Transpose", [f(2, 3, 4)], {}),
    "uneven split": ("Split", [f(7, 2)], {"outputs": 3, "num_outputs": 3}),
    "split by sizes": ("Split", [f(2, 7), i(2, 5)], {"outputs": 2, "axis": 1, "fixed": (1,)}),
    "pad with a value": ("Pad", [f(2, 3), i(1, 0, 0, 2), np.float32(3)], {"fixed": (1, 2)}),
    "pad by reflection": ("Pad", [f(2, 3, 4, 5), i(0, 1, 2, 1, 0, 0, 1, 3)], {"mode": "reflect", "fixed": (1,)}),
    "pad at the edge": ("Pad", [f(2, 3, 4), i(0, 1, 2, 0, 0, 1)], {"mode": "edge", "fixed": (1,)}),
    "mean without keeping": ("ReduceMean", [f(2, 3, 4), i(1, 2)], {"keepdims": 0, "fixed": (1,)}),
    "norm": ("ReduceL2", [f(2, 3, 4), i(-1)], {"fixed": (1,)}),
    "maximum of all": ("ReduceMax", [f(2, 3, 4)], {}),
    "product": ("ReduceProd", [f(2, 3, 4), i(0, 2)], {"fixed": (1,)}),
    "last of equal maxima": ("ArgMax", [np.ones((2, 3), np.float32)], {"axis": 1, "select_last_index": 1}),
    "top k": ("TopK", [f(3, 6), i(2)], {"outputs": 2, "fixed": (1,)}),
    "cumulative sum backwards": ("CumSum", [f(3, 4), np.array(1)], {"exclusive": 1, "reverse": 1, "fixed": (1,)}),
    "table in 8 bits": (
        "DequantizeLinear",
        [RNG.integers(-128, 127, (5, 4), np.int8), abs(f(5)), np.zeros(5, np.int8)],
        {"axis": 0, "fixed": (0, 1, 2)},
    ),
    "convolution in groups, padded unevenly": (
        "Conv", [IMAGE, f(4, 3, 3, 3), f(4)], {"group": 2, "pads": [0, 1, 2, 1], "strides": [2, 1]},
    ),
    "convolution, same": ("Conv", [IMAGE, f(4, 6, 3, 3)], {"auto_pad": "SAME_LOWER", "strides": [2, 2]}),
    "dilated convolution over one axis": (
        "Conv", [f(2, 4, 9), f(5, 4, 3)], {"dilations": [2], "pads": [2, 2]},
    ),
    "maximum pool": ("MaxPool", [IMAGE], {"kernel_shape": [3, 3], "pads": [1, 1, 1, 1], "strides": [2, 2]}),
    "average pool leaves padding out": ("AveragePool", [IMAGE], {"kernel_shape": [3, 3], "pads": [1, 1, 0, 1]}),
    "average pool counts padding": (
        "AveragePool", [IMAGE], {"kernel_shape": [2, 2], "pads": [1, 1, 0, 0], "count_include_pad": 1},
    ),
    "average of all pixels": ("GlobalAveragePool", [IMAGE], {}),
    "gemm": ("Gemm", [f(3, 4), f(5, 4), f(5)], {"transB": 1, "alpha": 0.5, "beta": 2.0}),
    "layer norm": ("LayerNormalization", [f(2, 3, 4), f(4), f(4)], {"epsilon": 1e-3}),
    "batch norm": ("BatchNormalization", [IMAGE, f(6), f(6), f(6), abs(f(6))], {}),
    "instance norm": ("InstanceNormalization", [IMAGE, f(6), f(6)], {}),
    "lstm in both directions": (
        "LSTM",
        [SEQUENCE, f(2, 20, 4), f(2, 20, 5), f(2, 40), None, f(2, 3, 5), f(2, 3, 5)],
        {"outputs": 3, "hidden_size": 5, "direction": "bidirectional"},
    ),
    "lstm backwards": (
        "LSTM", [SEQUENCE, f(1, 20, 4), f(1, 20, 5)], {"outputs": 3, "hidden_size": 5, "direction": "reverse"},
    ),
    "gru": (
        "GRU", [SEQUENCE, f(1, 15, 4), f(1, 15, 5), f(1, 30)],
        {"outputs": 2, "hidden_size": 5, "linear_before_reset": 1},
    ),
    "plain recurrent layer": ("RNN", [SEQUENCE, f(1, 5, 4), f(1, 5, 5), f(1, 10)], {"outputs": 2, "hidden_size": 5}),
}  # fmt: skip


@pytest.mark.parametrize("name", CASES)
def test_an_operator_answers_as_onnxruntime_does(name: str, tmp_path: Path):
    kind, given, options = CASES[name]
    path = tmp_path / "net.onnx"
    inputs = graph_of(path, kind, [None if value is None else np.asarray(value) for value in given], **options)
    wanted = engines.get("onnxruntime").load(path).run(inputs)
    found = OnTheCpu().load(path).run(inputs)
    assert wanted.keys() == found.keys()
    for key, value in wanted.items():
        assert found[key].dtype == value.dtype
        # fp32 sums in another order: a few units in the last place of numbers around 1 to 10.
        np.testing.assert_allclose(found[key], value, rtol=1e-4, atol=1e-5)


def test_the_engine_is_known_by_name_and_never_chosen_unasked():
    assert "torch" in engines.names() and engines.formats("torch") == ("onnx",)
    assert "torch" not in engines.available() and "torch" not in engines.for_format("onnx")


def test_without_a_card_the_person_is_told():
    if torch.cuda.is_available():
        pytest.skip("there is a card")
    with pytest.raises(EngineMissing, match=r"finds no NVIDIA card[\s\S]*nvidia-smi"):
        engines.get("torch")


def test_a_trace_counts_work_and_says_who_ran_it(tmp_path: Path):
    path = tmp_path / "net.onnx"
    inputs = graph_of(path, "MatMul", [f(3, 4), f(4, 5)], fixed=(1,))
    (op,) = OnTheCpu().trace(path, inputs, runs=3)
    assert (op.kind, op.macs, op.bytes, op.delegate) == ("MatMul", 60, 4 * (12 + 20 + 15), "torch cpu")
    assert op.ms is not None and op.ms > 0 and op.outputs == ((3, 5),)


@pytest.mark.parametrize(
    ("kind", "given", "options", "words"),
    [
        ("MatMulInteger", [np.ones((2, 2), np.uint8)] * 2, {}, "int8 graph.*torch has no int8"),
        ("Softmax", [np.ones((2, 2), np.float32)], {"opset": 12}, "opset 12"),
        ("Fancy", [np.ones((2, 2), np.float32)], {"domain": "org.example"}, "no org.example.Fancy"),
        ("GRU", [SEQUENCE, f(1, 15, 4), f(1, 15, 5)], {"hidden_size": 5}, "GRU with linear_before_reset=0"),
    ],
)
def test_what_it_cannot_run_is_refused_at_opening(kind, given, options, words, tmp_path: Path):
    graph_of(tmp_path / "net.onnx", kind, given, **options)
    with pytest.raises(Refused, match=words):
        OnTheCpu().load(tmp_path / "net.onnx")


def test_bad_files_values_and_uses_end_in_words(tmp_path: Path):
    engine, path = OnTheCpu(), tmp_path / "net.onnx"
    with pytest.raises(Refused, match="does not exist"):
        engine.load(path)
    path.write_bytes(b"\xff\xff no model")
    with pytest.raises(Refused, match="not a whole ONNX file"):
        engine.load(path)
    inputs = graph_of(path, "Gather", [f(5, 3), i(7)])
    with pytest.raises(UsageError, match="no signatures"):
        engine.load(path, signature="t64")
    opened = engine.load(path)
    with pytest.raises(Refused, match=r"at node \(Gather\)"):
        opened.run(inputs)
    opened.close()
    with pytest.raises(UsageError, match="closed"):
        opened.run(inputs)


def test_every_operator_of_the_table_is_one_of_onnx():
    for kind in TABLE:
        onnx.defs.get_schema(kind)
