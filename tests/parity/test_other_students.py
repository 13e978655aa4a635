"""Students that are on no list, made of known pieces, convert without a line of code for them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from edgekit_converters.capture import capture
from edgekit_converters.capture.axes import parse_dynamic
from edgekit_converters.captured import Arrays
from edgekit_converters.onnx.converter import OnnxConverter
from edgekit_converters.tflite.converter import TfliteConverter
from tests.parity.checking import check

CONVERTERS = {"onnx": OnnxConverter, "tflite": TfliteConverter}


class Excite(nn.Module):
    """Squeeze and excitation with hard-sigmoid, as MobileNetV3 has it."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.down, self.up = nn.Conv2d(width, width // 4, 1), nn.Conv2d(width // 4, width, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        squeezed = nn.functional.adaptive_avg_pool2d(x, 1)
        return x * nn.functional.hardsigmoid(self.up(torch.relu(self.down(squeezed))))


class Inverted(nn.Module):
    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        wide = 3 * inputs
        self.body = nn.Sequential(
            nn.Conv2d(inputs, wide, 1, bias=False), nn.BatchNorm2d(wide), nn.Hardswish(),
            nn.Conv2d(wide, wide, 3, stride, 1, groups=wide, bias=False), nn.BatchNorm2d(wide), nn.Hardswish(),
            Excite(wide), nn.Conv2d(wide, outputs, 1, bias=False), nn.BatchNorm2d(outputs),
        )  # fmt: skip
        self.residual = stride == 1 and inputs == outputs

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + self.body(x) if self.residual else self.body(x)


class MobileNet(nn.Module):
    """MobileNetV2's inverted residuals with hard-swish and squeeze-and-excitation."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 8, 3, 2, 1, bias=False), nn.BatchNorm2d(8), nn.Hardswish())
        self.blocks = nn.Sequential(Inverted(8, 16, 2), Inverted(16, 16, 1))
        self.head = nn.Linear(16, 6)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        return self.head(self.blocks(self.stem(image)).mean((2, 3)))


class Siamese(nn.Module):
    """Two texts through one bidirectional GRU, compared."""

    def __init__(self) -> None:
        super().__init__()
        self.table = nn.Embedding(200, 64)
        self.gru = nn.GRU(64, 48, batch_first=True, bidirectional=True)
        self.head = nn.Linear(3 * 96, 2)

    def read(self, ids: torch.Tensor) -> torch.Tensor:
        return self.gru(self.table(ids))[0].amax(1)

    def forward(self, left: torch.Tensor, right: torch.Tensor) -> torch.Tensor:
        a, b = self.read(left), self.read(right)
        return self.head(torch.cat([a, b, (a - b).abs()], dim=1))


def pictures(seed: int) -> Arrays:
    coarse = np.random.default_rng(seed).standard_normal((1, 3, 4, 4)).astype(np.float32)
    return {"image": coarse.repeat(8, axis=2).repeat(8, axis=3)}


def texts(seed: int) -> Arrays:
    rng = np.random.default_rng(seed)
    return {name: rng.integers(1, 200, (1, 12)) for name in ("left", "right")}


def settled(module: nn.Module, make: Callable[[int], Arrays]) -> nn.Module:
    """Statistics of BatchNorm from some samples."""
    batch = [make(seed) for seed in range(32)]
    with torch.no_grad():
        for _ in range(20):
            module.train()(**{n: torch.from_numpy(np.concatenate([s[n] for s in batch])) for n in batch[0]})
    return module.eval()


@pytest.mark.parametrize("kind", CONVERTERS)
@pytest.mark.parametrize(
    ("student", "make", "least_db"), [(MobileNet, pictures, 18.0), (Siamese, texts, 25.0)], ids=["mobilenet", "siamese"]
)
def test_a_student_off_the_list_converts(
    student: type[nn.Module], make: Callable[[int], Arrays], least_db: float, kind: str, tmp_path: Path
) -> None:
    torch.manual_seed(0)
    module = settled(student(), make)
    dynamic = parse_dynamic([f"{name}:0=B:1-8" for name in make(0)])
    captured = capture(module, name="student", example=make(0), dynamic=dynamic)
    converter = CONVERTERS[kind]()
    fp32 = converter.export(captured, tmp_path, lambda line: None)
    int8 = converter.quantize(captured, fp32, [make(seed) for seed in range(16)], tmp_path, lambda line: None)
    check(captured, (fp32, int8), [make(seed) for seed in range(100, 108)], least_db)
    assert int8.recipe is not None
    schemes = {decision.scheme for decision in int8.recipe.ops if decision.macs}
    assert schemes - {"float", "follow"}
