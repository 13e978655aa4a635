from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import edgekit
from edgekit_converters.onnx import company, converter, pins
from edgekit_runtime.manifest import Axis, Tensor
from edgekit_runtime.tensors import batch_place

AXES = (Axis(symbol="B", min=1, max=4, role="batch"), Axis(symbol="T", min=1, max=9, role="length"))
X = Tensor(name="x", dtype="float32", shape=("B", "T", 3))
STATE = Tensor(name="state", dtype="float32", shape=(2, "B", 3))
Y = Tensor(name="y", dtype="float32", shape=("B", "T", 3))


class Session:
    """An engine that answers x plus `leak` times the largest value of all of x."""

    def __init__(self, leak: float) -> None:
        self.leak = leak

    def get_inputs(self) -> list[Tensor]:
        return [X]

    def get_outputs(self) -> list[Tensor]:
        return [Y]

    def run(self, _: None, inputs: Mapping[str, np.ndarray]) -> list[np.ndarray]:
        return [inputs["x"] + self.leak * inputs["x"].max()]


def samples(lengths: tuple[int, ...]) -> list[dict[str, Any]]:
    rng = np.random.default_rng(0)
    return [
        {"x": rng.standard_normal((1, n, 3)).astype(np.float32), "state": np.full((2, 1, 3), n, np.float32)}
        for n in lengths
    ]


def test_the_batch_of_a_state_is_not_its_first_axis() -> None:
    assert [batch_place(tensor, AXES) for tensor in (X, STATE)] == [0, 1]
    assert batch_place(Tensor(name="rate", dtype="int64", shape=()), AXES) is None


def test_samples_are_put_together_along_each_inputs_own_axis_and_padded_to_the_longest() -> None:
    found = company.gather(samples((2, 5, 3, 4, 1)), (X, STATE), AXES)
    assert found is not None
    # Four fit into a batch; the fifth is alone, and says nothing.
    assert [batch["x"].shape for batch in found.together] == [(4, 5, 3)]
    assert found.together[0]["state"][0, :, 0].tolist() == [2, 5, 3, 4]
    assert not found.together[0]["x"][0, 2:].any()
    assert company.gather(samples((2,)), (X, STATE), AXES) is None
    assert company.gather(samples((2, 2)), (X, STATE), AXES[1:]) is None


def test_an_answer_that_follows_its_company_is_seen() -> None:
    found = company.gather([{"x": s["x"]} for s in samples((2, 5, 3, 4))], (X,), AXES)
    assert found is not None
    assert company.agreement(Session(0.0), found, (Y,), AXES) == pytest.approx(1.0, abs=1e-9)
    assert company.agreement(Session(0.5), found, (Y,), AXES) < 0.99


class Tagger(nn.Module):
    def __init__(self, loud: float) -> None:
        super().__init__()
        self.embedding = nn.Embedding(50, 16)
        nn.init.normal_(self.embedding.weight, std=loud)
        self.layer = nn.LSTM(16, 16, batch_first=True)
        self.head = nn.Linear(16, 4)

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        return self.head(self.layer(self.embedding(ids))[0])


def reason(module: nn.Module, path: Any, dynamic: tuple[str, ...]) -> str:
    ids = np.random.default_rng(0).integers(0, 50, (16, 8))
    bundle = edgekit.convert(module.eval(), out=path, calibration={"ids": ids}, dynamic=dynamic, formats=("onnx",))
    graph = bundle.graph("onnx.int8")
    text = bundle.file(graph.recipe).read_text() if graph.recipe else ""
    return text[text.index("DynamicQuantizeLSTM") :].split('"')[0]


@pytest.mark.parametrize(("enough", "level"), [(-1.0, "nothing"), (2.0, "x and h")])
def test_no_more_ends_are_pinned_than_the_answers_need(
    enough: float, level: str, tmp_path: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pins, "ENOUGH", enough)
    torch.manual_seed(0)
    told = reason(Tagger(1.0), tmp_path / "t.edge", ("ids:0=B:1-8",))
    assert f"calibrated ends in {level}: alone and in a batch the answers agree to cosine" in told


def test_a_student_without_a_batch_axis_is_not_measured(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def never(*_: object) -> None:
        raise AssertionError("nothing to measure")

    monkeypatch.setattr(converter.company, "agreement", never)
    torch.manual_seed(0)
    assert "calibrated ends" not in reason(Tagger(1.0), tmp_path / "t.edge", ("ids:1=T:4-12",))
