"""Students outside the list that mix pieces of it convert without code of their own."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional
from torch.nn.utils.parametrizations import weight_norm

from edgekit_converters.capture.axes import DynamicAxis
from edgekit_converters.capture.torch_student import capture_module
from edgekit_converters.captured import Arrays, Captured
from edgekit_converters.onnx.converter import OnnxConverter
from edgekit_converters.onnx.session import open_session, run_session
from edgekit_converters.tflite.converter import TfliteConverter

FP32 = 1e-4  # of the output's range: students.md, what "works" means
CLOSE_DB = 25.0  # widths of 32: a few per cent of noise


class TemporalAttention(nn.Module):
    """A causal dilated CNN over a sensor's samples, and attention that pools over time."""

    def __init__(self) -> None:
        super().__init__()
        self.convs = nn.ModuleList(weight_norm(nn.Conv1d(6 if n == 0 else 32, 32, 3, dilation=2**n)) for n in range(3))
        self.score = nn.Linear(32, 1)
        self.head = nn.Linear(32, 4)

    def forward(self, signal: torch.Tensor) -> torch.Tensor:
        x = signal.transpose(1, 2)
        for number, conv in enumerate(self.convs):
            y = torch.relu(conv(functional.pad(x, (2 * 2**number, 0))))
            x = y if number == 0 else x + y
        x = x.transpose(1, 2)
        share = torch.softmax(self.score(torch.tanh(x)), dim=1)
        return self.head((x * share).sum(1))


class Conformer(nn.Module):
    """One Conformer-like block on tokens: half a feed-forward, attention, a gated convolution, half a feed-forward."""

    def __init__(self, width: int = 32) -> None:
        super().__init__()
        self.table = nn.Embedding(400, width, padding_idx=0)
        self.norms = nn.ModuleList(nn.LayerNorm(width) for _ in range(5))
        self.feeds = nn.ModuleList(
            nn.Sequential(nn.Linear(width, 4 * width), nn.SiLU(), nn.Linear(4 * width, width)) for _ in range(2)
        )
        self.qkv, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.gate = weight_norm(nn.Conv1d(width, 2 * width, 1))
        self.deep = nn.Conv1d(width, width, 5, padding=2, groups=width, padding_mode="circular")
        self.last = nn.Conv1d(width, width, 1)
        self.head = nn.Linear(width, 3)

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        x = self.table(ids)
        x = x + self.feeds[0](self.norms[0](x)) / 2
        query, key, value = self.qkv(self.norms[1](x)).chunk(3, dim=-1)
        x = x + self.out(torch.softmax(query @ key.transpose(1, 2) / 32**0.5, -1) @ value)
        y = functional.glu(self.gate(self.norms[2](x).transpose(1, 2)), dim=1)
        x = x + self.last(functional.silu(self.deep(y))).transpose(1, 2)
        x = x + self.feeds[1](self.norms[3](x)) / 2
        return self.head(self.norms[4](x).mean(1))


class MatrixWords(nn.Module):
    """Words as matrices near the identity, multiplied in a plain loop over a fixed number of words."""

    def __init__(self) -> None:
        super().__init__()
        self.table = nn.Embedding(300, 36)
        with torch.no_grad():
            self.table.weight.normal_(0, 0.05)
            self.table.weight += torch.eye(6).flatten()
        self.head = nn.Linear(36, 3)

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        matrices = self.table(ids).reshape(ids.shape[0], ids.shape[1], 6, 6)
        product = matrices[:, 0]
        for step in range(1, 8):
            product = product @ matrices[:, step]
        return self.head(product.flatten(1))


def signals(batch: int, length: int, seed: int) -> Arrays:
    values = np.random.default_rng(seed).standard_normal((batch, length, 6)).astype(np.float32)
    return {"signal": np.cumsum(values, 1, dtype=np.float32) / 4}


def tokens(batch: int, length: int, seed: int, largest: int = 400) -> Arrays:
    return {"ids": np.random.default_rng(seed).integers(1, largest, (batch, length))}


def words(batch: int, length: int, seed: int) -> Arrays:
    return tokens(batch, 8, seed, 300)


STUDENTS: dict[str, tuple[type[nn.Module], Callable[[int, int, int], Arrays], bool]] = {
    "temporal attention": (TemporalAttention, signals, True),
    "conformer": (Conformer, tokens, True),
    "matrix words": (MatrixWords, words, False),
}


def captured(name: str) -> Captured:
    kind, make, moves = STUDENTS[name]
    torch.manual_seed(0)
    example = make(2, 12, 0)
    (given,) = example
    dynamic = [DynamicAxis(given, 0, "B", 1, 8)] + ([DynamicAxis(given, 1, "T", 8, 32)] if moves else [])
    return capture_module(kind().eval(), name=name, example=example, dynamic=dynamic)


def sqnr_db(want: np.ndarray, got: np.ndarray) -> float:
    return float(20 * np.log10(np.linalg.norm(want) / max(np.linalg.norm(want - got), 1e-30)))


@pytest.mark.slow
@pytest.mark.parametrize("name", STUDENTS)
def test_it_converts_to_onnx_and_answers_at_every_size(name: str, tmp_path: Path) -> None:
    student, make = captured(name), STUDENTS[name][1]
    converter = OnnxConverter()
    fp32 = converter.export(student, tmp_path, lambda line: None)
    int8 = converter.quantize(student, fp32, [make(1, 12, n) for n in range(1, 17)], tmp_path, lambda line: None)
    exact, rounded = (open_session(draft.path) for draft in (fp32, int8))
    for size in ((1, 8), (4, 12), (2, 32)):
        inputs = make(*size, 99)
        want = student.reference(inputs)["output"]
        assert np.abs(run_session(exact, inputs)["output"] - want).max() <= FP32 * max(np.ptp(want), 1.0)
        assert sqnr_db(want, run_session(rounded, inputs)["output"]) > CLOSE_DB


@pytest.mark.slow
@pytest.mark.parametrize("name", STUDENTS)
def test_it_converts_to_tflite(name: str, tmp_path: Path) -> None:
    from tests.converters.tflite.students import run_file

    student, make = captured(name), STUDENTS[name][1]
    converter = TfliteConverter()
    fp32 = converter.export(student, tmp_path, lambda line: None)
    int8 = converter.quantize(student, fp32, [make(1, 12, n) for n in range(1, 17)], tmp_path, lambda line: None)
    signature = fp32.signatures[-1] if fp32.signatures else None
    length = signature.sizes.get("T", 8) if signature else 8
    inputs = make(1, length, 99)
    want = student.reference(inputs)["output"]
    exact, rounded = (
        run_file(draft.path, inputs, signature.name if signature else "serving_default")["output"]
        for draft in (fp32, int8)
    )
    assert np.abs(exact - want).max() <= FP32 * max(np.ptp(want), 1.0)
    assert sqnr_db(want, rounded) > CLOSE_DB


def test_matrices_near_the_identity_are_stored_as_what_they_differ_from_it(tmp_path: Path) -> None:
    import onnx
    from onnx import numpy_helper

    student = captured("matrix words")
    converter = OnnxConverter()
    fp32 = converter.export(student, tmp_path, lambda line: None)
    int8 = converter.quantize(student, fp32, [words(1, 8, n) for n in range(8)], tmp_path, lambda line: None)
    constants = [numpy_helper.to_array(tensor) for tensor in onnx.load(int8.path).graph.initializer]
    scales = next(array for array in constants if array.shape == (300, 1))
    assert scales.max() < 0.3 / 127  # the largest difference of a row; a one on the diagonal would give 1 / 127
    assert any(array.shape == (36,) and np.array_equal(array, np.eye(6).ravel()) for array in constants)
