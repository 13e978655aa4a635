"""Commands where only the packages of a server or a device are installed: none may end as a bug for want of one."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from edgekit_runtime.testing import make_bundle

ROOT = Path(__file__).parents[3]
MISSING = ("jinja2", "markupsafe", "onnx", "torch", "litert_torch", "sklearn", "scipy", "transformers")
PROGRAM = f"""
import sys
sys.modules.update(dict.fromkeys({MISSING!r}))  # as good as not installed, to import and to find_spec
from edgekit.__main__ import main
main()
"""


def edgekit(*arguments: str) -> subprocess.CompletedProcess[str]:
    path = ":".join(str(ROOT / name) for name in ("", "runtime", "converters"))
    return subprocess.run(
        [sys.executable, "-c", PROGRAM, *arguments],
        capture_output=True,
        text=True,
        timeout=120,
        env={"PYTHONPATH": path, "OMP_NUM_THREADS": "1"},
    )


@pytest.mark.parametrize("command", [("doctor",), ("devices",), ("demo", "--help")])
def test_what_needs_no_report_runs_without_its_packages(command: tuple[str, ...]) -> None:
    done = edgekit(*command)
    assert done.returncode == 0, done.stderr
    assert done.stdout


def test_a_bundle_is_profiled_without_the_packages_of_reports_and_a_report_names_them(tmp_path: Path) -> None:
    pytest.importorskip("onnxruntime", reason="ONNX Runtime is not installed: pip install 'edgekit[onnxruntime]'")
    bundle = str(make_bundle(tmp_path / "tiny.edge"))
    done = edgekit("profile", bundle, "--duration", "0.05", "--quiet")
    assert done.returncode == 0, done.stderr
    done = edgekit("report", bundle, "-o", str(tmp_path / "report"))
    assert done.returncode == 3 and "pip install 'edgekit[report]'" in done.stderr
