"""Which changes make a row of the matrix again."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks import fingerprint
from edgekit.students import registry

VIT = registry.get("vit")
CODE = '''"""About."""
def double(x):
    """Twice."""
    return 2 * x  # why
'''


@pytest.mark.parametrize(
    "said", [CODE.replace("Twice", "Two times"), CODE.replace("# why", ""), CODE.replace("\n", "\n\n")]
)
def test_docstrings_comments_and_layout_change_nothing(said: str, tmp_path: Path) -> None:
    (tmp_path / "a.py").write_text(CODE)
    (tmp_path / "b.py").write_text(said)
    assert fingerprint.tree(tmp_path / "a.py") == fingerprint.tree(tmp_path / "b.py")


def test_another_statement_or_string_counts(tmp_path: Path) -> None:
    for name, source in {
        "a": CODE,
        "b": CODE.replace("2 * x", "3 * x"),
        "c": CODE + '"a string that is no docstring"',
    }.items():
        (tmp_path / f"{name}.py").write_text(source)
    assert len({fingerprint.tree(tmp_path / f"{name}.py") for name in "abc"}) == 3


def test_a_student_hangs_on_its_own_file_and_what_that_imports() -> None:
    names = {path.stem for path in fingerprint.closure(VIT)}
    assert {"vit", "sampling"} <= names
    assert "gcn" not in names and "train" not in names
    assert "picture_tasks" in {path.stem for path in fingerprint.closure(registry.get("autoencoder"))}


def test_other_weights_make_conversion_and_timing_again_but_not_the_training(tmp_path: Path) -> None:
    before = {step: fingerprint.fingerprint(step, VIT, tmp_path) for step in fingerprint.CODE}
    assert before == {step: fingerprint.fingerprint(step, VIT, tmp_path) for step in fingerprint.CODE}
    (tmp_path / "weights.safetensors").write_bytes(b"other")
    after = {step: fingerprint.fingerprint(step, VIT, tmp_path) for step in fingerprint.CODE}
    assert {step for step in after if after[step] != before[step]} == {"convert", "speed", "twin"}
    assert fingerprint.fingerprint("convert", VIT, None) not in (before["convert"], after["convert"])


def test_code_of_a_step_counts_for_the_steps_that_read_its_files(monkeypatch: pytest.MonkeyPatch) -> None:
    before = {step: fingerprint.fingerprint(step, VIT, None) for step in fingerprint.CODE}
    monkeypatch.setitem(fingerprint.CODE, "stock", (*fingerprint.CODE["stock"], "benchmarks/page.py"))
    after = {step: fingerprint.fingerprint(step, VIT, None) for step in fingerprint.CODE}
    assert {step for step in after if after[step] != before[step]} == {"stock", "speed"}


def test_what_only_a_session_with_a_server_loads_makes_no_row_again() -> None:
    loaded = subprocess.run(
        [sys.executable, "-c", "import sys, benchmarks.rows, edgekit.converting; print(*sys.modules)"],
        cwd=fingerprint.ROOT, capture_output=True, text=True, check=True,
    ).stdout.split()  # fmt: skip
    served = [path.removeprefix("runtime/").replace("/", ".") for path in fingerprint.SERVED]
    assert not [name for name in loaded if name.startswith(tuple(served))]
    found = [str(path.relative_to(fingerprint.ROOT)) for path in fingerprint.files(["runtime"])]
    assert "runtime/edgekit_runtime/session.py" in found
    assert not [path for path in found if path.startswith(fingerprint.SERVED)]
