"""Every reference student in both formats, beside the tools underneath, and which cells work.

    python -m benchmarks matrix                       all rows
    python -m benchmarks matrix text_cnn resnet20     these; the page keeps the others as last seen
    --seeded    weights of a seed for all; without it students with a recipe are trained first, once
    --fresh     forget what earlier runs found (trained weights stay)

Each step of each row is a process of its own with a time limit, and leaves a JSON file under build/matrix/: an
interrupted run goes on where it stopped. What other code or weights than today's made (see `fingerprint`) is made
again, and so is what failed. Conversions run two at a time; timing runs alone.
"""

from __future__ import annotations

import argparse
import concurrent.futures
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec

from benchmarks.cells import FORMATS, Cell, Held, Row, Speed, Twin
from benchmarks.fingerprint import fingerprint
from benchmarks.matrix_page import body, picture
from benchmarks.steps import fresh_step, is_current
from benchmarks.structure import structure_of
from edgekit.students import registry
from edgekit_runtime.bundle import open_bundle

ROOT = Path(__file__).parent.parent
FOLDER = ROOT / "build" / "matrix"
PICTURE = ROOT / "docs" / "results" / "matrix.svg"
LIMIT_S = {"train": 1200, "convert": 300, "stock": 150, "speed": 90, "twin": 300}
INTEGER = ("integer_rnn",)  # programs of integers: held against their twins
AT_ONCE = 2


def run(words: Sequence[str] = ()) -> str:
    parser = argparse.ArgumentParser(prog="python -m benchmarks matrix")
    parser.add_argument("rows", nargs="*", choices=[[], *registry.STUDENTS], metavar="STUDENT")
    parser.add_argument("--seeded", action="store_true")
    parser.add_argument("--fresh", action="store_true")
    asked = parser.parse_args(words)
    names = list(asked.rows or registry.STUDENTS)
    FOLDER.mkdir(parents=True, exist_ok=True)
    with concurrent.futures.ThreadPoolExecutor(AT_ONCE) as pool:
        for step, those in (("train", _untaught(names, asked.seeded)), ("convert", names), ("stock", names)):
            list(pool.map(lambda name, step=step: _step(step, name, asked), those))
    for name in names:
        _step("speed", name, asked)
        if name in INTEGER:
            _step("twin", name, asked)
    rows = [row for name in registry.STUDENTS if (row := read(name)) is not None]
    PICTURE.write_text(picture(rows))
    return body(rows, len(registry.STUDENTS))


def _untaught(names: Sequence[str], seeded: bool) -> list[str]:
    """Students whose weights are still to be trained: a process for each of the others would only load torch."""
    if seeded:
        return []
    from benchmarks.material import recipe_of

    absent = [name for name in names if not (FOLDER / f"{name}.material" / "eval.npz").is_file()]
    return [name for name in absent if recipe_of(registry.get(name)) is not None]


def _step(step: str, name: str, asked: argparse.Namespace) -> None:
    path = FOLDER / f"{name}.{step}.json"
    mark = fingerprint(step, registry.get(name), None if asked.seeded else FOLDER / f"{name}.material")
    if step == "convert" and (asked.fresh or not is_current(path, mark)):
        # A bundle of other code must not be timed where today's code fails.
        shutil.rmtree(FOLDER / f"{name}.edge", ignore_errors=True)
    words = ["benchmarks.rows", step, name, str(FOLDER), *([] if asked.seeded else ["trained"])]
    if step == "twin":  # its weights are a seed's
        words = ["benchmarks.twins", name, str(FOLDER)]
    fresh_step(path, mark, words, LIMIT_S[step], again=asked.fresh, said=f"{step}: ")


def _structure(name: str) -> dict[str, tuple[int, int]]:
    place = FOLDER / f"{name}.edge"
    return structure_of(open_bundle(place)) if (place / "manifest.json").is_file() else {}


def read(name: str) -> Row | None:
    """What the steps of a row left; None where none ran."""
    found: dict[str, dict[str, Any]] = {
        step: msgspec.json.decode(path.read_bytes())
        for step in LIMIT_S
        if (path := FOLDER / f"{name}.{step}.json").is_file()
    }
    if not found:
        return None
    if (FOLDER / f"{name}.material" / "eval.npz").is_file():
        found.pop("train", None)  # it failed once, and the weights are there now
    made, student = found.get("convert", {}), registry.get(name)
    try:
        cells = {kind: msgspec.convert(made["cells"][kind], Cell) for kind in FORMATS} if "cells" in made else {}
    except msgspec.ValidationError:  # of a row that was not asked for today
        made, cells = {"trouble": "convert: found by an older matrix, not run again"}, {}
        found["convert"] = made
    timed, twin = found.get("speed", {}).get("speed"), found.get("twin", {}).get("twin")
    return Row(
        name=name,
        row=student.row,
        trained=bool(made.get("trained")),
        text=all(tensor.dtype == "int64" for tensor in student.inputs),
        seconds=float(made.get("seconds", 0.0)),
        cells=cells,
        natural=student.split_points,
        held=msgspec.convert(made["held"], Held) if made.get("held") else None,
        stock=found.get("stock", {}).get("stock", {}),
        speed=msgspec.convert(timed, Speed) if timed else None,
        twin=msgspec.convert(twin, Twin) if twin else None,
        structure=_structure(name) if cells else {},
        trouble="; ".join(str(step["trouble"]) for step in found.values() if "trouble" in step),
    )
