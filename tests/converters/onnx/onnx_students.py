"""Tiny torch students for the ONNX tests, captured by hand."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

from edgekit_converters.capture.recurrent import symbolic_time
from edgekit_converters.captured import Arrays, Captured
from edgekit_converters.quiet import quiet
from edgekit_runtime.manifest import Axis, Tensor

BATCH = Axis(symbol="B", min=1, max=64, role="batch")
LENGTH = Axis(symbol="T", min=4, max=128, role="length")


def capture(
    module: nn.Module,
    example: Arrays,
    axes: Mapping[str, Mapping[int, Axis]],
    outputs: Mapping[str, tuple[int | str, ...]],
    **more: Any,
) -> Captured:
    """A `Captured` of a module whose forward returns one tensor or a dict."""
    module = module.eval()
    tensors = {name: torch.from_numpy(value) for name, value in example.items()}
    dims = {a.symbol: torch.export.Dim(a.symbol, min=a.min, max=a.max) for by in axes.values() for a in by.values()}
    dynamic = {name: {i: dims[a.symbol] for i, a in axes.get(name, {}).items()} for name in example}
    with torch.no_grad(), quiet(), symbolic_time():
        program = torch.export.export(module, (), tensors, dynamic_shapes=dynamic, strict=False)

    def reference(inputs: Mapping[str, np.ndarray]) -> Arrays:
        with torch.no_grad():
            found = module(**{name: torch.from_numpy(value) for name, value in inputs.items()})
        found = found if isinstance(found, dict) else {next(iter(outputs)): found}
        return {name: value.numpy() for name, value in found.items()}

    unique = {a.symbol: a for by in axes.values() for a in by.values()}
    inputs = tuple(
        Tensor(
            name=name,
            dtype=value.dtype.name,
            shape=tuple(
                axes.get(name, {})[i].symbol if i in axes.get(name, {}) else n for i, n in enumerate(value.shape)
            ),
        )
        for name, value in example.items()
    )
    made = tuple(Tensor(name=name, dtype="float32", shape=shape) for name, shape in outputs.items())
    return Captured("tiny", "module", inputs, made, tuple(unique.values()), example, reference, program=program, **more)


class ResidualNet(nn.Module):
    """Conv, BatchNorm, residual adds, a padded shortcut, two exits."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, padding=1, bias=False)
        self.bn = nn.BatchNorm2d(8)
        self.a = nn.Conv2d(8, 8, 3, padding=1)
        self.b = nn.Conv2d(8, 16, 3, stride=2, padding=1)
        self.early = nn.Linear(8, 4)
        self.head = nn.Linear(16, 4)

    def forward(self, image: torch.Tensor) -> dict[str, torch.Tensor]:
        x = F.relu(self.bn(self.stem(image)))
        x = F.relu(x + self.a(x))
        early = self.early(x.mean((2, 3)))
        short = F.pad(x[:, :, ::2, ::2], (0, 0, 0, 0, 4, 4))
        x = F.relu(self.b(x) + short)
        x = F.max_pool2d(x, 2)
        x = F.adaptive_avg_pool2d(x, 1).flatten(1)
        return {"early": early, "final": self.head(x)}


class TextCnn(nn.Module):
    """Embedding, three convolutions, max over time."""

    def __init__(self) -> None:
        super().__init__()
        self.table = nn.Embedding(500, 24)
        self.convs = nn.ModuleList(nn.Conv1d(24, 16, k, padding=k - 1) for k in (2, 3))
        self.head = nn.Linear(32, 3)

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        x = self.table(ids).transpose(1, 2)
        return self.head(torch.cat([F.relu(conv(x)).amax(2) for conv in self.convs], 1))


class Encoder(nn.Module):
    """One post-norm transformer layer with a mask and mean pooling; its output is called like an inner node."""

    def __init__(self, width: int = 64, heads: int = 4) -> None:
        super().__init__()
        self.heads = heads
        self.table = nn.Embedding(300, width)
        self.norm = nn.LayerNorm(width)
        self.q, self.k, self.v, self.o = (nn.Linear(width, width) for _ in range(4))
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.up, self.down = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)

    def forward(self, ids: torch.Tensor, mask: torch.Tensor) -> dict[str, torch.Tensor]:
        x = self.norm(self.table(ids))
        b, t, w = x.shape
        q, k, v = (f(x).view(b, t, self.heads, -1).transpose(1, 2) for f in (self.q, self.k, self.v))
        bias = (1.0 - mask[:, None, None, :].float()) * -1e9
        p = torch.softmax(q @ k.transpose(-1, -2) / (w // self.heads) ** 0.5 + bias, -1)
        x = self.norm1(x + self.o((p @ v).transpose(1, 2).reshape(b, t, w)))
        x = self.norm2(x + self.down(F.gelu(self.up(x))))
        m = mask[..., None].float()
        return {"embedding": (x * m).sum(1) / m.sum(1).clamp(min=1.0)}


class Recurrent(nn.Module):
    """Two bidirectional recurrent layers, max over time."""

    def __init__(self, kind: type[nn.Module]) -> None:
        super().__init__()
        self.table = nn.Embedding(400, 32)
        self.rnn = kind(32, 48, num_layers=2, bidirectional=True, batch_first=True)
        self.head = nn.Linear(96, 5)

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        return self.head(self.rnn(self.table(ids))[0].amax(1))


def ids(batch: int, length: int, top: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(1, top, (batch, length), dtype=np.int64)


def residual_net(**more: Any) -> Captured:
    torch.manual_seed(0)
    module = ResidualNet()
    module.bn.running_mean.normal_()
    module.bn.running_var.uniform_(0.5, 2.0)
    image = np.random.default_rng(0).normal(size=(2, 3, 16, 16)).astype(np.float32)
    return capture(module, {"image": image}, {"image": {0: BATCH}}, {"early": ("B", 4), "final": ("B", 4)}, **more)


def text_cnn() -> Captured:
    torch.manual_seed(0)
    return capture(TextCnn(), {"ids": ids(2, 12, 500)}, {"ids": {0: BATCH, 1: LENGTH}}, {"output": ("B", 3)})


def encoder() -> Captured:
    torch.manual_seed(0)
    example = {"ids": ids(2, 10, 300), "mask": np.ones((2, 10), np.int64)}
    example["mask"][1, 6:] = 0
    both = {0: BATCH, 1: LENGTH}
    return capture(Encoder(), example, {"ids": both, "mask": both}, {"embedding": ("B", 64)})


def recurrent(kind: type[nn.Module]) -> Captured:
    torch.manual_seed(0)
    return capture(Recurrent(kind), {"ids": ids(2, 9, 400)}, {"ids": {0: BATCH, 1: LENGTH}}, {"output": ("B", 5)})


def samples(student: Captured, count: int = 16) -> list[Arrays]:
    """Calibration samples like the student's example, one each."""
    rng = np.random.default_rng(7)
    found = []
    for _ in range(count):
        sample = {}
        for name, value in student.example.items():
            if value.dtype.kind == "f":
                sample[name] = rng.normal(size=(1, *value.shape[1:])).astype(value.dtype)
            else:
                sample[name] = rng.permutation(value.ravel()).reshape(value.shape)[:1]
        found.append(sample)
    return found
