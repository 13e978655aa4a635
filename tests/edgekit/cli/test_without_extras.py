"""The command line on a device: `edgekit[cli]` and one engine, and none of the other extras."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

ROOT = Path(__file__).parents[3]
# All that the other extras bring, with what those bring in turn.
EXTRAS = (
    "torch onnx onnx_ir onnxscript litert_torch ai_edge_quantizer safetensors transformers scipy jinja2 markupsafe "
    "sklearn tokenizers PIL grpc google lz4 zstandard prometheus_client uvloop ray"
)
BLOCK = f"""
import sys, importlib.util
blocked = {set(EXTRAS.split())!r}
real = importlib.util.find_spec
importlib.util.find_spec = lambda name, package=None: None if name in blocked else real(name, package)
class Block:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in blocked:
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)
sys.meta_path.insert(0, Block())
"""


def edgekit(*arguments: str, before: str = BLOCK) -> subprocess.CompletedProcess[str]:
    paths = os.pathsep.join(str(ROOT / name) for name in (".", "runtime", "converters"))
    program = before + "from edgekit.__main__ import main\nmain()"
    return subprocess.run(
        [sys.executable, "-c", program, *arguments],
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
        env={**os.environ, "PYTHONPATH": paths},
    )


@pytest.mark.parametrize(
    "arguments",
    [
        ("doctor",),
        ("devices",),
        ("devices", "pi4"),
        ("inspect", "{tiny}", "--ops"),
        ("profile", "{tiny}", "--graph", "onnx.fp32", "--duration", "0.1"),
        ("profile", "{tiny}", "--device", "pi4"),
        ("compare", "{tiny}:onnx.int8", "{tiny}:onnx.fp32", "--duration", "0.1"),
        ("plan", "{tiny}", "--device", "pi4", "--report", "{tiny}/../plan.html"),
        ("run", "{tiny}", "--input", "{tiny}/../x.npz"),
        ("slim", "{tiny}", "--target", "pi4", "-o", "{tiny}/../slim.edge"),
    ],
    ids=lambda arguments: " ".join(arguments[:1] + arguments[2:4]),
)
def test_what_a_device_does_needs_no_other_extra(arguments: tuple[str, ...], tiny: Path) -> None:
    np.savez(tiny.parent / "x.npz", x=np.zeros((1, 64), np.float32))
    done = edgekit(*(word.format(tiny=tiny) for word in arguments))
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (("convert", "student.py:build", "-o", "out.edge"), "pip install 'edgekit[convert]'"),
        (("check", "student.py:build"), "pip install 'edgekit[convert]'"),
        (("report", "{tiny}", "-o", "out"), "pip install 'edgekit[report]'"),
        (("profile", "{tiny}", "--report", "out"), "pip install 'edgekit[report]'"),
        (("compare", "{tiny}:onnx.int8", "{tiny}:onnx.fp32", "--report", "out"), "pip install 'edgekit[report]'"),
        (("serve", "{tiny}"), "pip install 'edgekit[server]'"),
        (
            ("run", "{tiny}", "--input", "{tiny}/../x.npz", "--server", "grpc://127.0.0.1:1"),
            "pip install 'edgekit[remote]'",
        ),
        (("demo", "--folder", "out"), "pip install 'edgekit[all]'"),
    ],
    ids=lambda value: value[0] + " ".join(value[1:][2:3]) if isinstance(value, tuple) else "",
)
def test_what_is_missing_is_told_with_the_pip_line_that_helps(
    arguments: tuple[str, ...], line: str, tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "student.py").write_text("def build(): ...\n")
    np.savez(tmp_path / "x.npz", x=np.zeros((1, 64), np.float32))
    done = edgekit(*(word.format(tiny=tiny) for word in arguments))
    assert done.returncode == 3, done.stderr
    assert f"what to do: {line}" in done.stderr
    assert "Traceback" not in done.stderr and not (tmp_path / "out").exists()


def test_without_the_command_line_its_own_pip_line_is_named() -> None:
    done = edgekit("doctor", before=BLOCK.replace("{", "{'typer', 'rich', ", 1))
    assert done.returncode == 3
    assert "pip install 'edgekit[cli]'" in done.stderr and "Traceback" not in done.stderr
