"""The same command gives the same bytes, in processes that know nothing of each other."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

import edgekit_runtime

ROOT = Path(__file__).parents[2]
STUDENTS = {
    "cnn": ["students.py:tiny", "--calibration", "calib.npz"],
    "text": ["students.py:text", "--calibration", "ids.npz", "--dynamic", "ids:0", "--dynamic", "ids:1=T:2-32"],
}
# Conversions one after the other in one process, each with its own arguments.
PROGRAM = """\
import json, sys
from edgekit.cli.app import run
for arguments in json.loads(sys.argv[1]):
    if code := run(["convert", *arguments, "--quiet"]):
        sys.exit(code)
"""


def _material(folder: Path) -> None:
    spec = importlib.util.spec_from_file_location("e2e_material", Path(__file__).with_name("conftest.py"))
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    folder.mkdir()
    module.write_material(folder)


def _start(folder: Path, order: list[str], hash_seed: str) -> subprocess.Popen[str]:
    """Begins to convert students in this order in a fresh process and folder."""
    _material(folder)
    paths = os.pathsep.join(str(ROOT / name) for name in (".", "runtime", "converters"))
    work = [[*STUDENTS[student], "-o", f"{student}.edge"] for student in order]
    return subprocess.Popen(
        [sys.executable, "-c", PROGRAM, json.dumps(work)],
        cwd=folder,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": paths, "PYTHONHASHSEED": hash_seed},
    )


def _files(bundle: Path) -> dict[str, bytes]:
    return {p.relative_to(bundle).as_posix(): p.read_bytes() for p in bundle.rglob("*") if p.is_file()}


@pytest.mark.slow
def test_the_same_command_twice_gives_the_same_bundle(tmp_path: Path) -> None:
    # Other hash seeds, folders and orders: neither the order of a set nor a path nor what was converted before may
    # reach the file. Both at once: the two processes share nothing but the clock, which may not reach the file either.
    folders = (tmp_path / "first", tmp_path / "second-and-longer")
    orders = (list(STUDENTS), list(reversed(STUDENTS)))
    processes = [_start(*of, str(seed)) for seed, of in enumerate(zip(folders, orders, strict=True), start=1)]
    for process in processes:
        with process:
            _, err = process.communicate(timeout=300)
        assert process.returncode == 0, err
    for student in STUDENTS:
        first, second = (_files(folder / f"{student}.edge") for folder in folders)
        assert sorted(first) == sorted(second)
        # Timings stand outside the identity; what was decided by them is the same.
        different = [name for name in first if first[name] != second[name] and not name.startswith("reports/")]
        assert different == [], student
        first_id, second_id = (edgekit_runtime.open_bundle(folder / f"{student}.edge").bundle_id for folder in folders)
        assert first_id == second_id
        assert {"graphs/onnx.fp32.onnx", "graphs/tflite.fp32.tflite"} <= set(first)
