"""Equal tables stand once in the file, and the model that is read back is the same."""

from __future__ import annotations

import copy

import numpy as np

from edgekit_converters.quiet import quiet_native
from edgekit_converters.tflite import flatbuffer as fb
from edgekit_converters.tflite.passes.names import entries, shorten
from edgekit_converters.tflite.tables import contents, serialize

UNITS = 4


def rungs(count: int, links: int = 20) -> fb.Model:
    """Signatures t0, t1, ...: each multiplies x [1, UNITS] by one constant, `links` times over."""
    generated = fb.schema()
    model = generated.ModelT()
    model.version, model.buffers, model.operatorCodes = 3, [generated.BufferT()], []
    model.subgraphs, model.signatureDefs = [], []
    for rung in range(count):
        subgraph = generated.SubGraphT()
        subgraph.tensors, subgraph.operators = [], []
        last = fb.add_tensor(model, subgraph, f"t{rung}/x", (1, UNITS))
        factor = fb.add_constant(model, subgraph, f"t{rung}/MUL.in1", np.linspace(1, 2, UNITS, dtype=np.float32))
        subgraph.tensors[factor].buffer = 1
        subgraph.inputs = [last]
        for link in range(links):
            operator = generated.OperatorT()
            operator.opcodeIndex = fb.opcode_index(model, "MUL")
            operator.builtinOptionsType, operator.builtinOptions = (
                generated.BuiltinOptions.MulOptions,
                generated.MulOptionsT(),
            )
            made = fb.add_tensor(model, subgraph, f"t{rung}/MUL:{link}", (1, UNITS))
            operator.inputs, operator.outputs = [last, factor], [made]
            subgraph.operators.append(operator)
            last = made
        subgraph.outputs = [last]
        signature = generated.SignatureDefT()
        signature.signatureKey, signature.subgraphIndex = f"t{rung}".encode(), rung
        signature.inputs, signature.outputs = entries(["x"], [0]), entries(["y"], [last])
        model.subgraphs.append(subgraph)
        model.signatureDefs.append(signature)
    return model


def answers(data: bytes) -> list[bytes]:
    x = np.linspace(-1, 1, UNITS, dtype=np.float32)[None]
    with quiet_native():
        from ai_edge_litert.interpreter import Interpreter

        engine = Interpreter(model_content=data)
        return [engine.get_signature_runner(key)(x=x)["y"].tobytes() for key in sorted(engine.get_signature_list())]


def test_a_file_with_shared_tables_reads_and_answers_as_before() -> None:
    model = rungs(3)
    before = copy.deepcopy(model)
    plain = serialize(copy.deepcopy(model))
    shorten(model)
    data = serialize(model)
    assert answers(data) == answers(plain)
    assert serialize(model) == data  # writing leaves the model as it was
    again = fb.parse(data, "again")
    for one, other in zip(again.subgraphs, before.subgraphs, strict=True):
        assert [list(o.inputs) + list(o.outputs) for o in one.operators] == [
            [*o.inputs, *o.outputs] for o in other.operators
        ]
        assert [fb.shape_of(t) for t in one.tensors] == [fb.shape_of(t) for t in other.tensors]


def test_another_signature_of_the_same_operators_costs_two_numbers_a_table() -> None:
    sizes = []
    for count in (1, 2):
        model = rungs(count)
        shorten(model)
        sizes.append(len(serialize(model)))
    own = 2 * 4 * 20  # an offset for each tensor and operator
    assert sizes[1] - sizes[0] < own + 200  # and the signature and the subgraph themselves


def test_tensors_that_differ_in_anything_stay_apart() -> None:
    model = rungs(1, links=2)
    first, *_, last = model.subgraphs[0].tensors
    first.name = last.name = b""
    assert contents(first) == contents(last)
    parameters = fb.schema().QuantizationParametersT()
    parameters.scale, parameters.zeroPoint = [0.5], [0]
    last.quantization = parameters
    assert contents(first) != contents(last)
    first.quantization = copy.deepcopy(parameters)
    assert contents(first) == contents(last)
    first.quantization.zeroPoint = [1]
    assert contents(first) != contents(last)
    assert contents(0.0) != contents(-0.0)
    assert contents(1) != contents(True)


def test_constants_lose_their_names_and_signatures_their_prefix() -> None:
    model = rungs(2, links=1)
    shorten(model)
    for subgraph in model.subgraphs:
        assert [fb.text(tensor.name) for tensor in subgraph.tensors] == ["x", "", "MUL:0"]
