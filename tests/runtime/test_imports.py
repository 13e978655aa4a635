"""The runtime lives without the tools of the floors above."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from edgekit_runtime.testing import make_bundle

ROOT = Path(__file__).parents[2] / "runtime"
BLOCKED = "torch onnx onnxscript onnx_ir litert_torch typer rich tensorflow jax transformers scipy".split()  # noqa: SIM905

PROGRAM = """
import sys
class Block:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in {blocked!r}:
            raise ImportError("blocked: " + name)
sys.meta_path.insert(0, Block())
import numpy as np
import edgekit_runtime as er
assert "onnxruntime" not in sys.modules, "an engine is loaded when a graph is opened, not before"
with er.open(sys.argv[1]) as session:
    print(session.run({{"x": np.ones((2, 4), np.float32)}})["y"].tolist())
loaded = {blocked!r} & {{name.split(".")[0] for name in sys.modules}}
assert not loaded, loaded
"""


def python(code: str, *arguments: str) -> str:
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code, *arguments],
        capture_output=True,
        text=True,
        timeout=120,
        env={"PYTHONPATH": str(ROOT)},
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_a_bundle_opens_and_runs_with_every_conversion_tool_blocked(tmp_path: Path) -> None:
    made = python(PROGRAM.format(blocked=set(BLOCKED)), str(make_bundle(tmp_path / "tiny.edge")))
    assert made.strip() == "[[18.0, 22.0, 26.0], [18.0, 22.0, 26.0]]"


def test_every_module_of_the_runtime_imports_without_an_engine() -> None:
    names = [
        ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__") for path in ROOT.rglob("*.py")
    ]
    assert "edgekit_runtime.session" in names
    # The engine torch is a table of torch's functions: its own modules, and no others, need torch to be read.
    own = {f"edgekit_runtime.engines.torch_{part}" for part in ("cuda", "ops", "layers")}
    assert own < set(names)
    names = [name for name in names if name not in own]
    python(
        "import sys, importlib\n"
        "for name in 'onnxruntime ai_edge_litert tokenizers PIL torch onnx'.split(): sys.modules[name] = None\n"
        f"for name in {names!r}: importlib.import_module(name)"
    )


@pytest.mark.alone
def test_the_import_is_quick() -> None:
    code = (
        "import numpy, onnxruntime, time\nstart = time.process_time()\nimport edgekit_runtime\n"
        "print((time.process_time() - start) * 1e3)"
    )
    extra_ms = min(float(python(code)) for _ in range(3))
    assert extra_ms <= 60


def test_the_public_surface_is_what_is_listed() -> None:
    import edgekit_runtime as er

    assert all(hasattr(er, name) for name in er.__all__)
    assert {"open", "Session", "open_bundle", "EdgekitError"} <= set(er.__all__)


@pytest.mark.parametrize("package", ["edgekit", "edgekit_converters"])
def test_the_runtime_never_names_the_floors_above(package: str) -> None:
    for path in ROOT.rglob("*.py"):
        for line in path.read_text(encoding="utf-8").splitlines():
            words = line.split()
            if words[:1] in (["import"], ["from"]) and len(words) > 1:
                assert words[1].split(".")[0] != package, f"{path.name}: {line}"
