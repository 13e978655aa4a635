"""The same command gives the same bytes, in processes that know nothing of each other."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
STUDENTS = {
    "cnn": ("students.py:tiny", "--calibration", "calib.npz"),
    "text": ("students.py:text", "--calibration", "ids.npz", "--dynamic", "ids:0", "--dynamic", "ids:1=T:2-32"),
}


def _material(folder: Path) -> None:
    spec = importlib.util.spec_from_file_location("e2e_material", Path(__file__).with_name("conftest.py"))
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    folder.mkdir()
    module.write_material(folder)


def _start(folder: Path, arguments: tuple[str, ...], hash_seed: str) -> subprocess.Popen[str]:
    """Begins a conversion in a fresh process and folder."""
    _material(folder)
    paths = os.pathsep.join(str(ROOT / name) for name in (".", "runtime", "converters"))
    return subprocess.Popen(
        [sys.executable, "-m", "edgekit", "convert", *arguments, "-o", "same.edge", "--json", "--quiet"],
        cwd=folder,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": paths, "PYTHONHASHSEED": hash_seed},
    )


def _finish(folder: Path, process: subprocess.Popen[str]) -> tuple[str, dict[str, bytes]]:
    """The bundle_id and every file."""
    with process:
        out, err = process.communicate(timeout=300)
    assert process.returncode == 0, err
    bundle = folder / "same.edge"
    files = {p.relative_to(bundle).as_posix(): p.read_bytes() for p in bundle.rglob("*") if p.is_file()}
    return json.loads(out)["bundle_id"], files


@pytest.mark.slow
@pytest.mark.parametrize("student", list(STUDENTS))
def test_the_same_command_twice_gives_the_same_bundle(tmp_path: Path, student: str) -> None:
    # Other hash seeds and folders: neither the order of a set nor a path may reach the file. Both at once: the two
    # processes share nothing but the clock, which may not reach the file either.
    folders = (tmp_path / "first", tmp_path / "second-and-longer")
    processes = [_start(folder, STUDENTS[student], str(seed)) for seed, folder in enumerate(folders, start=1)]
    (first_id, first), (second_id, second) = map(_finish, folders, processes)
    assert sorted(first) == sorted(second)
    # Timings stand outside the identity; what was decided by them is the same.
    different = [name for name in first if first[name] != second[name] and not name.startswith("reports/")]
    assert different == []
    assert first_id == second_id
    assert {"graphs/onnx.fp32.onnx", "graphs/tflite.fp32.tflite"} <= set(first)
