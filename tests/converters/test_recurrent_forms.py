"""Recurrent layers in every form a student may use them, in both formats: stacked, both directions, given states, the
last state read, single steps."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

import edgekit_runtime as er
from edgekit_converters.captured import Arrays
from edgekit_converters.draft import FormatConverter
from edgekit_converters.onnx.converter import OnnxConverter
from edgekit_converters.tflite.converter import TfliteConverter
from edgekit_converters.tflite.flatbuffer import operators, read
from tests.converters.tflite.students import BATCH, capture, length, nothing, sqnr_db

FP32 = 2e-6  # values of about 1; sums in another order


class Stacked(nn.Module):
    """Two layers in both directions that begin with a state made from an input; all that the layer returns is read."""

    def __init__(self, kind: type[nn.RNNBase]) -> None:
        super().__init__()
        self.layer = kind(8, 12, num_layers=2, bidirectional=True, batch_first=True)
        self.start = nn.Linear(3, 12)

    def forward(self, frames: torch.Tensor, about: torch.Tensor) -> dict[str, torch.Tensor]:
        first = self.start(about)[None].repeat(4, 1, 1)
        if isinstance(self.layer, nn.LSTM):
            sequence, (hidden, cell) = self.layer(frames, (first, torch.tanh(first)))
            return {"sequence": sequence, "hidden": hidden.transpose(0, 1), "cell": cell.transpose(0, 1)}
        sequence, hidden = self.layer(frames, first)
        return {"sequence": sequence, "hidden": hidden.transpose(0, 1)}


class Step(nn.Module):
    """One step of two cells, the state passes through the border."""

    def __init__(self) -> None:
        super().__init__()
        self.lower, self.upper = nn.LSTMCell(8, 12), nn.GRUCell(12, 10)

    def forward(
        self, frame: torch.Tensor, h: torch.Tensor, c: torch.Tensor, g: torch.Tensor
    ) -> dict[str, torch.Tensor]:
        h, c = self.lower(frame, (h, c))
        return {"h_next": h, "c_next": c, "g_next": self.upper(h, g)}


class OneStepLayers(nn.Module):
    """The same as `Step` with whole layers that are given one step."""

    def __init__(self) -> None:
        super().__init__()
        self.lower, self.upper = nn.LSTM(8, 12, batch_first=True), nn.GRU(12, 10, batch_first=True)

    def forward(
        self, frame: torch.Tensor, h: torch.Tensor, c: torch.Tensor, g: torch.Tensor
    ) -> dict[str, torch.Tensor]:
        x, (h, c) = self.lower(frame[:, None], (h[None], c[None]))
        return {"h_next": h[0], "c_next": c[0], "g_next": self.upper(x, g[None])[1][0]}


def examples(batch: int, steps: int, seed: int = 0) -> Arrays:
    rng = np.random.default_rng(seed)
    return {
        "frames": rng.standard_normal((batch, steps, 8)).astype(np.float32),
        "about": rng.standard_normal((batch, 3)).astype(np.float32),
    }


def converted(converter: FormatConverter, student: object, samples: list[Arrays], folder: Path) -> tuple[Path, Path]:
    fp32 = converter.export(student, folder, nothing)  # type: ignore[arg-type]
    return fp32.path, converter.quantize(student, fp32, samples, folder, nothing).path  # type: ignore[arg-type]


CONVERTERS = {"onnx": OnnxConverter, "tflite": TfliteConverter}


@pytest.mark.parametrize("kind", [nn.LSTM, nn.GRU, nn.RNN])
@pytest.mark.parametrize("name", sorted(CONVERTERS))
def test_stacked_layers_with_given_states_answer_as_torch_does(
    kind: type[nn.RNNBase], name: str, tmp_path: Path
) -> None:
    torch.manual_seed(0)
    shapes = {"frames": ("B", "T", 8), "about": ("B", 3)}
    example = examples(2, 9)
    student = capture(Stacked(kind), example, (BATCH, length(16)), shapes)
    fp32, int8 = converted(CONVERTERS[name](), student, [examples(1, 16, seed) for seed in range(10, 74)], tmp_path)
    sizes = [(1, 16)] if name == "tflite" else [(1, 16), (3, 2), (2, 7)]
    if name == "tflite":  # both directions of a layer in one call a step
        assert [k for k, _ in operators(read(fp32), read(fp32).subgraphs[0])].count("IF") == 2 * 16
    with er.open(fp32) as whole, er.open(int8) as small:
        for batch, steps in sizes:
            inputs = examples(batch, steps, seed=7)
            want, got, coded = student.reference(inputs), whole.run(inputs), small.run(inputs)
            for output, value in want.items():
                np.testing.assert_allclose(got[output], value, rtol=0, atol=FP32)
                assert sqnr_db(value, coded[output]) > 30  # weights, rows and a calibrated layer of 8 bits


@pytest.mark.parametrize("module", [Step, OneStepLayers])
@pytest.mark.parametrize("name", sorted(CONVERTERS))
def test_single_steps_answer_as_torch_does(module: type[nn.Module], name: str, tmp_path: Path) -> None:
    torch.manual_seed(0)
    rng = np.random.default_rng(0)

    def drawn() -> Arrays:
        sizes = {"frame": 8, "h": 12, "c": 12, "g": 10}
        return {key: rng.standard_normal((1, size)).astype(np.float32) for key, size in sizes.items()}

    student = capture(module(), drawn())
    path = CONVERTERS[name]().export(student, tmp_path, nothing).path
    with er.open(path) as session:
        for inputs in (drawn(), drawn()):
            got = session.run(inputs)
            for output, value in student.reference(inputs).items():
                np.testing.assert_allclose(got[output], value, rtol=0, atol=FP32)
