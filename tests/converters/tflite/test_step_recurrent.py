"""The pass that writes recurrent layers as calls of a step, on markers put in by hand, against torch."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from edgekit_converters.quiet import quiet_native
from edgekit_converters.tflite import apply
from edgekit_converters.tflite import flatbuffer as fb
from edgekit_converters.tflite.coverage import coverage
from edgekit_converters.tflite.passes.compact import compact
from edgekit_converters.tflite.passes.step_recurrent import is_recurrent_product, step_recurrent
from edgekit_converters.tflite.resolve import resolve
from edgekit_converters.tflite.torch_passes.mark_recurrent import CELL, GIVEN, PREFIX
from tests.converters.tflite.students import sqnr_db
from tests.converters.tflite.test_passes import empty_model

SIZES = st.integers(1, 5)
KINDS = {
    "lstm": torch.nn.LSTM,
    "gru": torch.nn.GRU,
    "rnn_tanh": torch.nn.RNN,
    "rnn_relu": lambda *sizes, **options: torch.nn.RNN(*sizes, nonlinearity="relu", **options),
}


def weights_of(layer: torch.nn.RNNBase) -> list[np.ndarray]:
    return [parameter.detach().numpy() for parameter in layer.parameters()]


def kind_of(layer: torch.nn.RNNBase) -> str:
    return layer.mode.lower()


def marked(
    layers: list[torch.nn.RNNBase], shape: tuple[int, int, int], *, chained: bool = False, given: bool = False
) -> fb.Model:
    """Layers over one input, side by side or each on the answer of the one before; with states as inputs if `given`."""
    model = empty_model()
    subgraph = model.subgraphs[0]
    data = fb.add_tensor(model, subgraph, "x", shape)
    subgraph.inputs = [data]
    for place, layer in enumerate(layers):
        small = (shape[0], layer.hidden_size)
        lstm = kind_of(layer) == "lstm"
        states = [fb.add_tensor(model, subgraph, f"state{place}.{k}", small) for k in range(given * (1 + lstm))]
        subgraph.inputs += states
        with_cell = given and lstm
        size = (shape[0], shape[1] + with_cell, layer.hidden_size)
        answer = fb.add_tensor(model, subgraph, f"{place}/STABLEHLO_COMPOSITE", size)
        operator = fb.schema().OperatorT()
        operator.opcodeIndex = fb.opcode_index(model, "STABLEHLO_COMPOSITE")
        constants = (fb.add_constant(model, subgraph, "", values) for values in weights_of(layer))
        operator.inputs = [data, *states, *constants]
        operator.outputs = [answer]
        operator.builtinOptions2Type = fb.schema().BuiltinOptions2.StableHLOCompositeOptions
        operator.builtinOptions2 = fb.schema().StableHLOCompositeOptionsT()
        operator.builtinOptions2.name = (
            f"{PREFIX}{kind_of(layer)}{CELL if with_cell else ''}{GIVEN if given else ''}".encode()
        )
        subgraph.operators.append(operator)
        subgraph.outputs.append(answer)
        data = answer if chained else data
    return model


def run(model: fb.Model, *data: np.ndarray) -> list[np.ndarray]:
    from ai_edge_litert.interpreter import Interpreter

    with quiet_native():
        interpreter = Interpreter(model_content=fb.serialize(model))
        interpreter.allocate_tensors()
        for detail, values in zip(interpreter.get_input_details(), data, strict=True):
            interpreter.set_tensor(detail["index"], values)
        interpreter.invoke()
        return [interpreter.get_tensor(detail["index"]) for detail in interpreter.get_output_details()]


@settings(max_examples=40, deadline=None)
@given(
    kind=st.sampled_from(sorted(KINDS)), batch=SIZES, steps=SIZES, features=SIZES, units=SIZES, bias=st.booleans(),
    abreast=st.integers(1, 3),
)  # fmt: skip
def test_steps_compute_what_torch_computes(
    kind: str, batch: int, steps: int, features: int, units: int, bias: bool, abreast: int
) -> None:
    torch.manual_seed(0)
    layers = [KINDS[kind](features, units, bias=bias, batch_first=True) for _ in range(abreast)]
    data = torch.randn(batch, steps, features)
    model = marked(layers, (batch, steps, features))
    assert step_recurrent(model) == abreast
    compact(model)
    for layer, got in zip(layers, run(model, data.numpy()), strict=True):
        np.testing.assert_allclose(got, layer(data)[0].detach().numpy(), rtol=0, atol=2e-6)


@settings(max_examples=25, deadline=None)
@given(kind=st.sampled_from(sorted(KINDS)), batch=SIZES, steps=SIZES, abreast=st.integers(1, 3))
def test_steps_begin_with_the_state_given_and_tell_the_last_cell(
    kind: str, batch: int, steps: int, abreast: int
) -> None:
    torch.manual_seed(0)
    layers = [KINDS[kind](3, 4, batch_first=True) for _ in range(abreast)]
    data = torch.randn(batch, steps, 3)
    states = [torch.randn(1, batch, 4) for _ in range(abreast * (2 if kind == "lstm" else 1))]
    model = marked(layers, (batch, steps, 3), given=True)
    step_recurrent(model)
    compact(model)
    got = iter(run(model, data.numpy(), *(state[0].numpy() for state in states)))
    for place, layer in enumerate(layers):
        first = tuple(states[2 * place :][:2]) if kind == "lstm" else states[place]
        expected, final = layer(data, first)
        if kind == "lstm":
            expected = torch.cat([expected, final[1].transpose(0, 1)], dim=1)
        np.testing.assert_allclose(next(got), expected.detach().numpy(), rtol=0, atol=2e-6)


def test_going_hand_in_hand_never_makes_a_circle() -> None:
    # A (wide) -> D (narrow), F (narrow) -> E (wide): A with E and F with D would wait for each other.
    torch.manual_seed(0)
    layers = [torch.nn.GRU(*sizes, batch_first=True) for sizes in ((4, 4), (4, 2), (4, 2), (2, 4))]
    model = marked(layers, (1, 3, 4))
    subgraph = model.subgraphs[0]
    a, f, d, e = subgraph.operators
    d.inputs[0], e.inputs[0] = a.outputs[0], f.outputs[0]
    step_recurrent(model)
    compact(model)
    data = torch.randn(1, 3, 4)
    made_a, made_f, made_d, made_e = run(model, data.numpy())
    for layer, source, got in zip(
        layers, (data, data, torch.from_numpy(made_a), torch.from_numpy(made_f)),
        (made_a, made_f, made_d, made_e), strict=True,
    ):  # fmt: skip
        np.testing.assert_allclose(got, layer(source)[0].detach().numpy(), rtol=0, atol=2e-6)


def test_lstms_that_wait_for_each_other_do_not_go_hand_in_hand() -> None:
    torch.manual_seed(0)
    layers = [torch.nn.LSTM(6, 6, batch_first=True) for _ in range(3)]
    data = torch.randn(1, 4, 6)
    model = marked(layers, (1, 4, 6), chained=True)
    step_recurrent(model)
    assert len(model.subgraphs) == 1 + 3
    value = data
    for layer, got in zip(layers, run(model, data.numpy()), strict=True):
        value = layer(value)[0]
        np.testing.assert_allclose(got, value.detach().numpy(), rtol=0, atol=2e-6)


def test_a_step_is_written_once_however_many_there_are() -> None:
    layers = [torch.nn.LSTM(8, 16, batch_first=True) for _ in range(2)]
    sizes = {}
    for steps in (8, 9):
        model = marked(layers, (1, steps, 8))
        step_recurrent(model)
        compact(model)
        assert len(model.subgraphs) == 2
        assert [calls for _, calls in fb.executed(model, model.subgraphs[0])] == [1, steps]
        sizes[steps] = len(fb.serialize(model))
    assert sizes[9] - sizes[8] < 256  # bytes a step costs in the file


def test_the_answer_does_not_depend_on_the_call_before() -> None:
    from ai_edge_litert.interpreter import Interpreter

    model = marked([torch.nn.LSTM(8, 16, batch_first=True)], (1, 4, 8))
    step_recurrent(model)
    with quiet_native():
        interpreter = Interpreter(model_content=fb.serialize(model))
    interpreter.allocate_tensors()
    first, other = np.random.default_rng(0).standard_normal((2, 1, 4, 8)).astype(np.float32)
    answers = []
    for data in (first, other, first):
        interpreter.set_tensor(interpreter.get_input_details()[0]["index"], data)
        interpreter.invoke()
        answers.append(interpreter.get_tensor(interpreter.get_output_details()[0]["index"]))
    np.testing.assert_array_equal(answers[0], answers[2])


def test_in_int8_every_product_is_an_integer_one_also_inside_the_step(tmp_path: Path) -> None:
    torch.manual_seed(0)
    steps, units = 12, 32
    layers = [torch.nn.LSTM(units, units, batch_first=True) for _ in range(2)]
    model = marked(layers, (1, steps, units))
    step_recurrent(model)
    recipe = resolve(model)
    assert [decision.op for decision in recipe.ops] == ["0/LSTM.input", "1/LSTM.input", "0/LSTM.state", "1/LSTM.state"]
    assert all(is_recurrent_product(decision.op) for decision in recipe.ops)
    assert {decision.scheme for decision in recipe.ops} == {"dynamic_row"}
    assert {decision.macs for decision in recipe.ops} == {steps * 4 * units * units}
    quantized = apply.quantize(model, recipe, {})
    compact(quantized)
    path = tmp_path / "int8.tflite"
    path.write_bytes(fb.serialize(quantized))
    assert coverage(path) == (1.0, 1.0, 4 * steps * 4 * units * units)
    data = torch.randn(1, steps, units)
    for layer, got in zip(layers, run(quantized, data.numpy()), strict=True):
        assert sqnr_db(layer(data)[0].detach().numpy(), got) > 35


def test_one_lstm_may_be_kept_in_floating_point() -> None:
    model = marked([torch.nn.LSTM(4, 4, batch_first=True) for _ in range(2)], (1, 3, 4))
    step_recurrent(model)
    schemes = {decision.op: decision.scheme for decision in resolve(model, ["0"]).ops}
    assert schemes == {
        "0/LSTM.input": "float",
        "0/LSTM.state": "float",
        "1/LSTM.input": "dynamic_row",
        "1/LSTM.state": "dynamic_row",
    }
    quantized = apply.quantize(model, resolve(model, ["0"]), {})
    dtypes = {
        fb.text(part.tensors[operator.outputs[0]].name): fb.dtype_of(part.tensors[int(operator.inputs[1])])
        for part in quantized.subgraphs
        for kind, operator in fb.operators(quantized, part)
        if kind == "FULLY_CONNECTED"
    }
    assert dtypes == {op: "float32" if scheme == "float" else "int8" for op, scheme in schemes.items()}


@pytest.mark.parametrize("name", ["LSTMs/FULLY_CONNECTED", "LSTM.inputs", "my_GRU.state", "fc/FULLY_CONNECTED"])
def test_other_products_are_not_taken_for_a_layers(name: str) -> None:
    assert not is_recurrent_product(name)


def test_a_trace_counts_the_work_of_every_step(tmp_path: Path) -> None:
    from edgekit_runtime import engines

    model = marked([torch.nn.LSTM(6, 4, batch_first=True)], (1, 9, 6))
    step_recurrent(model)
    compact(model)
    path = tmp_path / "lstm.tflite"
    path.write_bytes(fb.serialize(model))
    rows = engines.get("litert").trace(path, {"x": np.zeros((1, 9, 6), np.float32)})
    assert sum(row.macs or 0 for row in rows if row.kind == "FULLY_CONNECTED") == 9 * (6 + 4) * 16
    assert sum(row.macs or 0 for row in rows) == coverage(path)[2]
