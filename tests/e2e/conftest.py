"""The command line as a function, in an empty folder with a few tiny students and their data."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

SHARED = Path(__file__).parents[3] / "shared" / "data"

STUDENTS = '''\
import torch
from torch import nn


class Tiny(nn.Module):
    """[B, 1, 8, 8] -> 4 scores."""

    def __init__(self, classes=4):
        super().__init__()
        self.conv = nn.Conv2d(1, 8, 3, padding=1)
        self.head = nn.Linear(8 * 16, classes)

    def forward(self, image):
        x = torch.max_pool2d(torch.relu(self.conv(image)), 2)
        return {"scores": self.head(x.flatten(1))}


class Frozen(nn.Module):
    def __init__(self):
        super().__init__()
        self.head = nn.Linear(48, 4)

    def forward(self, x):
        return self.head(x.reshape(-1, 48))


class Eigen(nn.Module):
    def forward(self, x):
        return torch.linalg.eigvalsh(x @ x.transpose(-1, -2))


@torch.library.custom_op("edgekit_e2e::twist", mutates_args=())
def twist(x: torch.Tensor) -> torch.Tensor:
    return x.flip(-1) * 2


@twist.register_fake
def _(x):
    return torch.empty_like(x)


class Twist(nn.Module):
    def forward(self, x):
        return twist(x)


class Text(nn.Module):
    """ids [B, T] -> 2 scores."""

    def __init__(self):
        super().__init__()
        self.table = nn.Embedding(50, 16, padding_idx=0)
        self.head = nn.Linear(16, 2)

    def forward(self, ids):
        rows = self.table(ids)
        return self.head(rows.sum(1))


def tiny():
    return Tiny()


def five():
    return Tiny(5)


def text():
    return Text()


def a_dict():
    return {"model": Tiny()}


def with_argument(size):
    return Tiny(size)


def broken():
    raise RuntimeError("no such checkpoint")


constant = 3
frozen, eigen, twisted = Frozen(), Eigen(), Twist()
'''


@dataclasses.dataclass(frozen=True)
class Done:
    """What one command left behind: exit code, stdout and stderr with white space evened out (consoles wrap)."""

    code: int
    out: str
    err: str

    @property
    def document(self) -> Any:
        return json.loads(self.out)

    def says(self, *words: str) -> None:
        """Fails unless every word stands in what the person reads."""
        missing = [word for word in words if word not in self.err + self.out]
        assert not missing, f"{missing} not in:\n{self.err}\n{self.out}"


Command = Callable[..., Done]


@pytest.fixture
def work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder: students.py, calib.npz (16 samples), x.npz for the students that take x."""
    monkeypatch.chdir(tmp_path)
    write_material(tmp_path)
    return tmp_path


def write_material(folder: Path) -> None:
    rng = np.random.default_rng(0)
    (folder / "students.py").write_text(STUDENTS, encoding="utf-8")
    np.savez(folder / "calib.npz", image=rng.random((16, 1, 8, 8), dtype=np.float32))
    np.savez(folder / "x.npz", x=rng.random((16, 6, 8), dtype=np.float32))
    np.savez(folder / "ids.npz", ids=rng.integers(1, 50, (16, 12)))


@pytest.fixture
def edgekit(work: Path, capsys: pytest.CaptureFixture[str]) -> Command:
    """Runs `edgekit ARGUMENTS` in `work`."""
    from edgekit.cli.app import run

    def call(*arguments: str) -> Done:
        capsys.readouterr()
        code = run(list(arguments))
        captured = capsys.readouterr()
        return Done(code, " ".join(captured.out.split()), " ".join(captured.err.split()))

    return call


def files(folder: Path) -> dict[Path, bytes]:
    """Every file under a folder with its content. Python's own byte code does not count."""
    return {p: p.read_bytes() for p in folder.rglob("*") if p.is_file() and "__pycache__" not in p.parts}


@pytest.fixture
def refused(edgekit: Command, work: Path) -> Command:
    """`edgekit convert ARGUMENTS -o out.edge` must end with exit code 3 and leave everything as it was."""

    def call(*arguments: str, code: int = 3) -> Done:
        before = files(work)
        done = edgekit("convert", *arguments, "-o", "out.edge", "--quiet")
        assert done.code == code, f"exit code {done.code}: {done.err}"
        assert "what to do:" in done.err
        assert files(work) == before
        assert not list(work.glob(".out*")), "half-written folders are left behind"
        return done

    return call


@pytest.fixture(scope="session")
def tiny_bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An ONNX bundle of the tiny student; copied by whoever changes it."""
    import os

    from edgekit.cli.app import run

    folder = tmp_path_factory.mktemp("tiny")
    write_material(folder)
    here = Path.cwd()
    os.chdir(folder)
    try:
        arguments = ["students.py:tiny", "--calibration", "calib.npz", "--format", "onnx", "-o", "tiny.edge", "--quiet"]
        assert run(["convert", *arguments]) == 0
    finally:
        os.chdir(here)
    return folder / "tiny.edge"


@pytest.fixture
def bundle(tiny_bundle: Path, work: Path) -> Path:
    """`tiny.edge` in the current folder, free to be damaged."""
    import shutil

    shutil.copytree(tiny_bundle, work / "tiny.edge")
    return work / "tiny.edge"


@pytest.fixture(scope="module")
def student_files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the students and their data, for the tests of one module together."""
    folder = tmp_path_factory.mktemp("students")
    write_material(folder)
    return folder
