"""Every reference student in both formats, beside the tools underneath, and which cells work.

    python -m benchmarks matrix                       all rows
    python -m benchmarks matrix text_cnn resnet20     these; the page keeps the others as last seen
    --seeded    weights of a seed for all; without it students with a recipe are trained first, once
    --fresh     forget what earlier runs found (trained weights stay)

Each step of each row is a process of its own with a time limit, and leaves a JSON file under build/matrix/: an
interrupted run goes on where it stopped. Files written by other code than today's are made again. Conversions run two
at a time; timing runs alone.
"""

from __future__ import annotations

import argparse
import concurrent.futures
import hashlib
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec

from benchmarks.cells import FORMATS, Cell, Row, Speed
from benchmarks.matrix_page import body, picture
from edgekit.students import registry

ROOT = Path(__file__).parent.parent
FOLDER = ROOT / "build" / "matrix"
PICTURE = ROOT / "docs" / "results" / "matrix.svg"
LIMIT_S = {"train": 1200, "convert": 300, "stock": 150, "speed": 90}
AT_ONCE = 2


def run(words: Sequence[str] = ()) -> str:
    parser = argparse.ArgumentParser(prog="python -m benchmarks matrix")
    parser.add_argument("rows", nargs="*", choices=[[], *registry.STUDENTS], metavar="STUDENT")
    parser.add_argument("--seeded", action="store_true")
    parser.add_argument("--fresh", action="store_true")
    asked = parser.parse_args(words)
    names = list(asked.rows or registry.STUDENTS)
    FOLDER.mkdir(parents=True, exist_ok=True)
    mark = fingerprint(asked.seeded)
    with concurrent.futures.ThreadPoolExecutor(AT_ONCE) as pool:
        for step in ("train", "convert", "stock"):
            list(pool.map(lambda name, step=step: _step(step, name, mark, asked), names))
    for name in names:
        _step("speed", name, mark, asked)
    rows = [row for name in registry.STUDENTS if (row := read(name)) is not None]
    PICTURE.write_text(picture(rows))
    return body(rows, len(registry.STUDENTS))


def fingerprint(seeded: bool) -> str:
    """Of the code that makes a row and of the tools' versions: another one makes old files worthless."""
    from edgekit_converters.versions import tool_versions

    digest = hashlib.sha256(repr((sorted(tool_versions().items()), seeded)).encode())
    for folder in ("converters", "runtime", "edgekit/students"):
        for path in sorted((ROOT / folder).rglob("*.py")):
            digest.update(path.read_bytes())
    for name in ("rows.py", "cells.py"):
        digest.update((ROOT / "benchmarks" / name).read_bytes())
    return digest.hexdigest()[:16]


def _step(step: str, name: str, mark: str, asked: argparse.Namespace) -> None:
    path, stamp = FOLDER / f"{name}.{step}.json", FOLDER / f"{name}.{step}.stamp"
    if path.is_file() and stamp.is_file() and stamp.read_text() == mark and not asked.fresh:
        return
    path.unlink(missing_ok=True)
    command = [
        sys.executable,
        "-m",
        "benchmarks.rows",
        step,
        name,
        str(FOLDER),
        *([] if asked.seeded else ["trained"]),
    ]
    with (FOLDER / f"{name}.{step}.log").open("w") as log:
        try:
            code = subprocess.run(
                command,
                cwd=ROOT,
                stdout=log,
                stderr=log,
                timeout=LIMIT_S[step],
                env={**os.environ, "OMP_NUM_THREADS": "1"},
            ).returncode
        except subprocess.TimeoutExpired:
            code = -1
    if code:
        lines = [line for line in (FOLDER / f"{name}.{step}.log").read_text().splitlines() if line.strip()]
        why = f"no result within {LIMIT_S[step]} s" if code == -1 else (lines[-1] if lines else f"exit code {code}")
        path.write_bytes(msgspec.json.encode({"trouble": f"{step}: {why[:200]}"}))
    stamp.write_text(mark)
    print(f"{name} {step}: {'done' if not code else 'failed'}", flush=True)


def read(name: str) -> Row | None:
    """What the steps of a row left; None where none ran."""
    found: dict[str, dict[str, Any]] = {
        step: msgspec.json.decode(path.read_bytes())
        for step in LIMIT_S
        if (path := FOLDER / f"{name}.{step}.json").is_file()
    }
    if not found:
        return None
    made = found.get("convert", {})
    cells = {kind: msgspec.convert(made["cells"][kind], Cell) for kind in FORMATS} if "cells" in made else {}
    timed = found.get("speed", {}).get("speed")
    return Row(
        name=name,
        row=registry.get(name).row,
        trained=bool(made.get("trained")),
        seconds=float(made.get("seconds", 0.0)),
        cells=cells,
        stock=found.get("stock", {}).get("stock", {}),
        speed=msgspec.convert(timed, Speed) if timed else None,
        trouble="; ".join(str(step["trouble"]) for step in found.values() if "trouble" in step),
    )
