"""A `torch.scan` over a cell of the person's own stays one loop in both formats, in integers and in floating point."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn
from torch._higher_order_ops.scan import scan

import edgekit_runtime as er
from edgekit_converters.onnx.converter import OnnxConverter
from edgekit_converters.tflite.converter import TfliteConverter
from edgekit_converters.tflite.flatbuffer import executed, operators, read
from edgekit_converters.tflite.passes.steps_by_four import AT_ONCE
from tests.converters.tflite.students import BATCH, capture, length, nothing

CONVERTERS = {"onnx": OnnxConverter, "tflite": TfliteConverter}


class IntegerCell(nn.Module):
    """int8 products, shifts and bounds; the state and every step's answer are the same tensor."""

    def __init__(self) -> None:
        super().__init__()
        rng = torch.Generator().manual_seed(0)
        draw = lambda *shape: torch.randint(-63, 64, shape, dtype=torch.int8, generator=rng)  # noqa: E731
        self.register_buffer("table", draw(50, 8))
        self.register_buffer("w", draw(8, 16))
        self.register_buffer("u", draw(16, 16))

    def forward(self, ids: torch.Tensor) -> dict[str, torch.Tensor]:
        x = self.table[ids]
        rows = torch._int_mm(x.flatten(0, 1), self.w).unflatten(0, ids.shape).transpose(0, 1)

        def step(state: list[torch.Tensor], row: torch.Tensor) -> tuple[list[torch.Tensor], torch.Tensor]:
            total = row + torch._int_mm(state[0].to(torch.int8), self.u)
            answer = torch.div((total + 4096) * 8, 1000, rounding_mode="trunc").clamp(-127, 127) >> 1
            return [answer], answer.clone()

        zeros = torch.zeros(ids.shape[0], 16, dtype=torch.int32)
        (last,), answers = scan(step, [zeros], rows, dim=0)
        return {"answers": answers.transpose(0, 1).to(torch.float32), "last": last.to(torch.float32)}


class FloatCell(nn.Module):
    """A leaky recurrence with a linear layer inside."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.table, self.inside = nn.Embedding(50, 8), nn.Linear(8, 8)

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        weight, bias = self.inside.weight, self.inside.bias

        def step(state: list[torch.Tensor], row: torch.Tensor) -> tuple[list[torch.Tensor], torch.Tensor]:
            new = 0.5 * state[0] + torch.tanh(nn.functional.linear(row, weight, bias))
            return [new], new * 2

        zeros = torch.zeros(ids.shape[0], 8)
        return scan(step, [zeros], self.table(ids).transpose(0, 1), dim=0)[1].transpose(0, 1)


def ids(batch: int, steps: int) -> np.ndarray:
    return np.random.default_rng(batch + steps).integers(0, 50, (batch, steps))


@pytest.mark.parametrize("module", [IntegerCell, FloatCell])
@pytest.mark.parametrize("name", sorted(CONVERTERS))
def test_a_scan_answers_as_torch_does_at_every_length(module: type[nn.Module], name: str, tmp_path: Path) -> None:
    axes = (BATCH, length(32))
    student = capture(module(), {"ids": ids(2, 9)}, axes, {"ids": ("B", "T")})
    draft = CONVERTERS[name]().export(student, tmp_path, nothing)
    sizes = {"onnx": [(1, 2), (3, 17), (2, 32)], "tflite": [(1, 16), (1, 32)]}[name]
    for batch, steps in sizes:
        signature = f"t{steps}" if name == "tflite" else ""
        loaded = er.engines.get(draft.engine).load(draft.path, threads=1, signature=signature)
        given = {"ids": ids(batch, steps).astype(loaded.inputs[0].dtype)}
        got = loaded.run(given)
        loaded.close()
        for output, value in student.reference({"ids": ids(batch, steps)}).items():
            if module is IntegerCell:
                np.testing.assert_array_equal(got[output], value)
            else:
                np.testing.assert_allclose(got[output], value, rtol=0, atol=2e-6)
    if name == "tflite":
        model = read(draft.path)
        # The step of floats is small enough that four of them are one call.
        calls = 32 // AT_ONCE if module is FloatCell else 32
        assert [calls for _, calls in executed(model, model.subgraphs[1])] == [1, calls]
        assert len(model.subgraphs) == 3  # two lengths and one body
        assert "FLOOR" not in {kind for part in model.subgraphs for kind, _ in operators(model, part)}
