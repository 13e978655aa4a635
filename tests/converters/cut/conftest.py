"""Tiny students, cut once for all tests of the folder."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

import edgekit
from edgekit_runtime.bundle import Bundle, open_bundle


class Exits(nn.Module):
    """image [B, 1, 8, 8] -> two early exits and the full answer, with a residual block on the way."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(1, 8, 3, padding=1)
        self.block = nn.ModuleList([nn.Conv2d(8, 8, 3, padding=1), nn.Conv2d(8, 8, 3, padding=1)])
        self.down = nn.Conv2d(8, 16, 3, stride=2, padding=1)
        self.deep = nn.Conv2d(16, 16, 3, padding=1)
        self.heads = nn.ModuleList([nn.Linear(8, 4), nn.Linear(16, 4), nn.Linear(16, 4)])

    def forward(self, image: torch.Tensor) -> dict[str, torch.Tensor]:
        x = torch.relu(self.stem(image))
        y = torch.relu(x + self.block[1](torch.relu(self.block[0](x))))
        first = self.heads[0](y.mean((2, 3)))
        z = torch.relu(self.down(y))
        second = self.heads[1](z.mean((2, 3)))
        last = self.heads[2](torch.relu(self.deep(z)).mean((2, 3)))
        return {"early": first, "middle": second, "full": last}


class Masked(nn.Module):
    """ids [B, T] -> 3 scores: two layers of attention-like mixing under a mask, so that ids are read again late."""

    def __init__(self) -> None:
        super().__init__()
        self.table = nn.Embedding(400, 128, padding_idx=0)
        self.layers = nn.ModuleList(nn.Linear(128, 128) for _ in range(2))
        self.head = nn.Linear(128, 3)

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        mask = (ids != 0).to(torch.float32)[:, :, None]
        x = self.table(ids)
        for layer in self.layers:
            x = x + torch.relu(layer(x)) * mask
        return self.head((x * mask).sum(1))


def loud(module: nn.Module) -> nn.Module:
    """Seeded weights that give answers which differ from sample to sample."""
    torch.manual_seed(3)
    for parameter in module.parameters():
        nn.init.normal_(parameter, std=0.2)
    return module.eval()


def images(n: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(n, 1, 8, 8)).astype(np.float32)


def texts(n: int, length: int, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    ids = rng.integers(1, 400, (n, length))
    ids[np.arange(length)[None] >= rng.integers(1, length + 1, n)[:, None]] = 0
    return ids


@pytest.fixture(scope="session")
def exits_bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """The student with exits, in both formats."""
    return edgekit.convert(
        loud(Exits()),
        out=tmp_path_factory.mktemp("exits") / "exits.edge",
        calibration={"image": images(16)},
        dynamic=("image:0=B:1-64",),
        exits=("early", "middle", "full"),
        max_drop=0.5,
    )


@pytest.fixture(scope="session")
def masked_bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """The student whose inputs are read again late, in both formats, with a ladder in TFLite."""
    return edgekit.convert(
        loud(Masked()),
        out=tmp_path_factory.mktemp("masked") / "masked.edge",
        calibration={"ids": texts(16, 20)},
        dynamic=("ids:0=B:1-64", "ids:1=T:1-32"),
        metric="cosine",
        max_drop=0.2,
    )


@pytest.fixture
def copy_of(tmp_path: Path):
    """A bundle's copy, free to be changed."""

    def make(bundle: Bundle) -> Bundle:
        target = tmp_path / "copy.edge"
        shutil.copytree(bundle.root, target)
        return open_bundle(target)

    return make


@pytest.fixture
def exits_student() -> nn.Module:
    """The student with exits."""
    return loud(Exits())
