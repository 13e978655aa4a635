"""Passes on small models built by hand."""

import copy

import numpy as np
import pytest

from edgekit_converters.quiet import quiet_native
from edgekit_converters.tflite import flatbuffer as fb
from edgekit_converters.tflite.min_version import first_minor, minimum_runtime
from edgekit_converters.tflite.passes.compact import compact
from edgekit_converters.tflite.passes.metadata import stamp
from edgekit_converters.tflite.passes.names import module_path, tensor_key
from edgekit_converters.tflite.passes.split_table import split_tables
from edgekit_converters.tflite.passes.versions import raise_versions
from edgekit_runtime.errors import Refused

ROWS, WIDTH = 200, 8


def empty_model() -> fb.Model:
    generated = fb.schema()
    model, subgraph = generated.ModelT(), generated.SubGraphT()
    model.version, model.buffers, model.operatorCodes = 3, [generated.BufferT()], []
    subgraph.tensors, subgraph.operators, subgraph.inputs, subgraph.outputs = [], [], [], []
    model.subgraphs, model.signatureDefs = [subgraph], []
    return model


def table_model(scales: np.ndarray) -> fb.Model:
    """EMBEDDING_LOOKUP(ids [4]) in an int8 table [ROWS, WIDTH]."""
    model = empty_model()
    subgraph = model.subgraphs[0]
    rows = np.random.default_rng(0).integers(-127, 128, (ROWS, WIDTH)).astype(np.int8)
    ids = fb.add_tensor(model, subgraph, "ids", (4,), "int32")
    table = fb.add_constant(model, subgraph, "table", rows)
    subgraph.tensors[table].quantization = fb.schema().QuantizationParametersT()
    subgraph.tensors[table].quantization.scale = list(scales)
    subgraph.tensors[table].quantization.zeroPoint = [0] * len(scales)
    answer = fb.add_tensor(model, subgraph, "answer", (4, WIDTH))
    lookup = fb.schema().OperatorT()
    lookup.opcodeIndex = fb.opcode_index(model, "EMBEDDING_LOOKUP")
    lookup.inputs, lookup.outputs = [ids, table], [answer]
    subgraph.operators, subgraph.inputs, subgraph.outputs = [lookup], [ids], [answer]
    return model


def run(model: fb.Model, ids: np.ndarray) -> np.ndarray:
    from ai_edge_litert.interpreter import Interpreter

    with quiet_native():
        interpreter = Interpreter(model_content=fb.serialize(model))
        interpreter.allocate_tensors()
        interpreter.set_tensor(interpreter.get_input_details()[0]["index"], ids.astype(np.int32))
        interpreter.invoke()
        return interpreter.get_tensor(interpreter.get_output_details()[0]["index"])


def test_a_split_table_gives_the_same_rows_for_fewer_bytes() -> None:
    scales = np.random.default_rng(1).uniform(0.01, 1, ROWS).astype(np.float32)
    model, ids = table_model(scales), np.array([3, 0, 49, 3])
    table = fb.data_of(model, model.subgraphs[0].tensors[1])
    assert table is not None
    assert split_tables(model) == 1
    compact(model)
    np.testing.assert_allclose(run(model, ids), table[ids] * scales[ids, None], rtol=1e-6)
    assert split_tables(model) == 0
    assert len(fb.serialize(model)) < len(fb.serialize(table_model(scales)))


def test_two_look_ups_in_one_table_both_get_its_scales() -> None:
    scales = np.random.default_rng(1).uniform(0.01, 1, ROWS).astype(np.float32)
    model, ids = table_model(scales), np.array([3, 0, 49, 3])
    subgraph = model.subgraphs[0]
    table = fb.data_of(model, subgraph.tensors[1])
    assert table is not None
    second = fb.schema().OperatorT()
    second.opcodeIndex, second.inputs = subgraph.operators[0].opcodeIndex, [0, 1]
    second.outputs = [fb.add_tensor(model, subgraph, "again", (4, WIDTH))]
    subgraph.operators.insert(0, second)
    for output in (list(subgraph.outputs), second.outputs):
        whole = copy.deepcopy(model)
        whole.subgraphs[0].outputs = output
        assert split_tables(whole) == 2
        np.testing.assert_allclose(run(whole, ids), table[ids] * scales[ids, None], rtol=1e-6)


def test_writing_and_reading_gives_the_same_bytes() -> None:
    data = fb.serialize(table_model(np.ones(ROWS, np.float32)))
    assert fb.serialize(fb.parse(data, "x")) == data


def test_buffers_are_aligned_to_sixteen_bytes() -> None:
    data = fb.serialize(table_model(np.ones(ROWS, np.float32)))
    rows = np.random.default_rng(0).integers(-127, 128, (ROWS, WIDTH)).astype(np.int8).tobytes()
    assert data.index(rows) % 16 == 0


def test_equal_buffers_and_unused_things_go() -> None:
    model = table_model(np.ones(ROWS, np.float32))
    subgraph = model.subgraphs[0]
    rows = fb.data_of(model, subgraph.tensors[1])
    assert rows is not None
    copy = fb.add_constant(model, subgraph, "copy", rows)
    second = fb.schema().OperatorT()
    second.opcodeIndex = subgraph.operators[0].opcodeIndex
    second.inputs, second.outputs = [0, copy], [fb.add_tensor(model, subgraph, "second", (4, WIDTH))]
    subgraph.operators.append(second)
    subgraph.outputs.append(second.outputs[0])
    fb.add_constant(model, subgraph, "nobody reads this", np.zeros(1000, np.float32))
    fb.opcode_index(model, "CONV_2D")
    compact(model)
    assert len(model.buffers) == 2
    assert len(subgraph.tensors) == 5
    assert [fb.kind_of(model, operator) for operator in subgraph.operators] == ["EMBEDDING_LOOKUP"] * 2
    assert len(model.operatorCodes) == 1


def test_a_table_with_a_scale_a_row_needs_a_new_runtime_and_a_split_one_does_not() -> None:
    model = table_model(np.linspace(0.1, 1, ROWS).astype(np.float32))
    raise_versions(model)
    assert minimum_runtime(model) == "2.17"
    model = table_model(np.linspace(0.1, 1, ROWS).astype(np.float32))
    split_tables(model)
    raise_versions(model)
    assert stamp(model) == "2.3"
    assert [entry.name for entry in model.metadata] == [b"min_runtime_version"]


@pytest.mark.parametrize(
    ("kind", "version", "minor"),
    [("CONV_2D", 1, 3), ("FULLY_CONNECTED", 12, 17), ("GATHER_ND", 5, 16), ("CONV_2D", 99, 16), ("GELU", 1, 9)],
)
def test_operator_versions_name_their_runtime(kind: str, version: int, minor: int) -> None:
    assert first_minor(kind, version) == minor


@pytest.mark.parametrize("data", [b"", b"hello world, this is no model", b"\xff\xff\xff\x7fTFL3" + bytes(40)])
def test_what_is_not_a_model_is_refused(data: bytes) -> None:
    with pytest.raises(Refused, match=r"x\.tflite"):
        fb.parse(data, "x.tflite")


def test_a_fused_operator_is_called_by_its_deepest_module() -> None:
    fused = "a.Net_m/torch.nn.LayerNorm_norm;;a.Net_m/a.Block_0/torch.nn.modules.linear.Linear_fc;3"
    assert module_path(fused) == "m/0/fc"
    assert module_path("a.<locals>.Net;2") == ""
    assert module_path("package.my_students.Net/package.my_students.Net_fc/torch.nn.Linear;1") == "fc"


def test_the_signature_is_no_part_of_a_tensors_key() -> None:
    assert tensor_key("t16/body/CONV_2D", ["t16", "t32"]) == "body/CONV_2D"
    assert tensor_key("body/CONV_2D", ["t16"]) == "body/CONV_2D"
