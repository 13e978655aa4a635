"""Tiny students, captured by hand, and one way to run a TFLite file."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import nn

from edgekit_converters.capture.recurrent import symbolic_time
from edgekit_converters.captured import Arrays, Captured
from edgekit_converters.quiet import quiet, quiet_native
from edgekit_runtime.manifest import Axis, Tensor

BATCH = Axis(symbol="B", min=1, max=8, role="batch")


def length(largest: int = 32) -> Axis:
    return Axis(symbol="T", min=2, max=largest, role="length")


def capture(
    module: nn.Module,
    example: Arrays,
    axes: Sequence[Axis] = (),
    inputs: Mapping[str, tuple[int | str, ...]] | None = None,
    **fields: object,
) -> Captured:
    """A Captured as the capture package makes it: `inputs` gives the shapes with symbols."""
    module = module.eval()
    inputs = inputs or {name: array.shape for name, array in example.items()}
    dims = {axis.symbol: torch.export.Dim(axis.symbol, min=axis.min, max=axis.max) for axis in axes}
    dynamic = {
        name: {place: dims[size] for place, size in enumerate(shape) if isinstance(size, str)}
        for name, shape in inputs.items()
    }

    def run(arrays: Mapping[str, np.ndarray]) -> Arrays:
        with torch.no_grad():
            found = module(**{name: torch.from_numpy(np.asarray(value)) for name, value in arrays.items()})
        found = found if isinstance(found, dict) else {"output": found}
        return {name: value.numpy() for name, value in found.items()}

    tensors = {name: torch.from_numpy(value) for name, value in example.items()}
    with quiet(), symbolic_time():
        program = torch.export.export(module, (), tensors, dynamic_shapes=dynamic, strict=False)
    outputs = {
        name: tuple("B" if place == 0 and axes else size for place, size in enumerate(value.shape))
        for name, value in run(example).items()
    }
    return Captured(
        name="student",
        kind="module",
        inputs=tuple(Tensor(name=n, dtype=str(example[n].dtype), shape=tuple(s)) for n, s in inputs.items()),
        outputs=tuple(Tensor(name=n, dtype="float32", shape=s) for n, s in outputs.items()),
        axes=tuple(axes),
        example=example,
        reference=run,
        program=program,
        **fields,  # type: ignore[arg-type]
    )


def run_file(path: Path, inputs: Arrays, signature: str = "serving_default") -> Arrays:
    """Runs one signature of a file; 64-bit integers are given as 32-bit."""
    from ai_edge_litert.interpreter import Interpreter

    given = {name: array.astype(np.int32) if array.dtype == np.int64 else array for name, array in inputs.items()}
    with quiet_native():
        return Interpreter(str(path)).get_signature_runner(signature)(**given)


def sqnr_db(reference: np.ndarray, value: np.ndarray) -> float:
    """Signal to noise in dB."""
    return float(10 * np.log10((reference**2).sum() / max(((reference - value) ** 2).sum(), 1e-30)))


class Residual(nn.Module):
    """Two convolutions around a shortcut, a pool and a linear layer; 8 output channels throughout."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 16, 3, padding=1), nn.BatchNorm2d(16), nn.ReLU())
        self.body = nn.Conv2d(16, 16, 3, padding=1)
        self.head = nn.Linear(16, 4)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        hidden = self.stem(image)
        return self.head(torch.relu(hidden + self.body(hidden)).mean((2, 3)))


class TextCnn(nn.Module):
    """Embedding, two convolutions, masked maximum over time."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(400, 32, padding_idx=0)
        self.convs = nn.ModuleList(nn.Conv1d(32, 16, size, padding=size // 2) for size in (3, 5))
        self.out = nn.Linear(32, 3)

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        hidden = self.embedding(ids).transpose(1, 2)
        mask = (ids != 0).unsqueeze(1)
        return self.out(torch.cat([(torch.relu(conv(hidden)) * mask).amax(-1) for conv in self.convs], dim=1))


class Encoder(nn.Module):
    """One attention layer with a mask, mean pooling; the output is called like the embedding inside."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(300, 64)
        self.qkv = nn.Linear(64, 192)
        self.proj = nn.Linear(64, 64)
        self.norm = nn.LayerNorm(64)
        self.up = nn.Linear(64, 128)
        self.down = nn.Linear(128, 64)
        with torch.no_grad():  # outlier features, as trained transformers have them
            self.norm.weight[:2] = 100.0

    def forward(self, ids: torch.Tensor, mask: torch.Tensor) -> dict[str, torch.Tensor]:
        hidden = self.embedding(ids)
        query, key, value = self.qkv(hidden).chunk(3, dim=-1)
        scores = query @ key.transpose(1, 2) / 8 + (mask[:, None, :].float() - 1) * 1e4
        hidden = self.norm(hidden + self.proj(torch.softmax(scores, -1) @ value))
        hidden = hidden + self.down(nn.functional.gelu(self.up(hidden)))
        weight = mask.unsqueeze(-1).float()
        return {"embedding": (hidden * weight).sum(1) / weight.sum(1).clamp(min=1e-6)}


class BiLstm(nn.Module):
    """Two bidirectional LSTM layers and a linear layer for each token."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(100, 24)
        self.lstm = nn.LSTM(24, 16, num_layers=2, batch_first=True, bidirectional=True)
        self.out = nn.Linear(32, 3)

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        return self.out(self.lstm(self.embedding(ids))[0].amax(1))


def token_samples(largest_id: int, lengths: Sequence[int]) -> list[Arrays]:
    rng = np.random.default_rng(3)
    return [{"ids": rng.integers(1, largest_id, (1, size))} for size in lengths]


def nothing(line: str) -> None:
    """A progress callback that says nothing."""
