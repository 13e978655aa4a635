"""How the matrix runs its steps: what is kept, what is made again, and that a page comes out whatever fails."""

from __future__ import annotations

import argparse
import json
import subprocess
from pathlib import Path
from typing import Any

import pytest

from benchmarks import matrix

ASKED = argparse.Namespace(rows=[], seeded=True, fresh=False)
CELLS = {kind: {"refused": "no such operator"} for kind in ("onnx", "tflite")}


class Steps:
    """Stands in for the processes: writes what each step would leave, or fails as told."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.ran, self.fails = folder, [], {}  # type: ignore[var-annotated]

    def __call__(self, command: list[str], **given: Any) -> subprocess.CompletedProcess[str]:
        step, name = command[3:5]
        self.ran.append(step)
        why = self.fails.get(step)
        if why == "slow":
            raise subprocess.TimeoutExpired(command, given["timeout"])
        if why:
            given["stdout"].write(f"Traceback\n{why}\n")
            return subprocess.CompletedProcess(command, 1)
        found = {"convert": {"seconds": 1.0, "cells": CELLS}, "stock": {"stock": {}, "files": {}}}.get(step, {})
        (self.folder / f"{name}.{step}.json").write_text(json.dumps(found))
        return subprocess.CompletedProcess(command, 0)


@pytest.fixture
def steps(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Steps:
    monkeypatch.setattr(matrix, "FOLDER", tmp_path)
    monkeypatch.setattr(matrix, "PICTURE", tmp_path / "matrix.svg")
    made = Steps(tmp_path)
    monkeypatch.setattr(subprocess, "run", made)
    return made


def test_what_was_found_is_kept_until_code_or_weights_change(steps: Steps, monkeypatch: pytest.MonkeyPatch) -> None:
    matrix.run(["vit", "--seeded"])
    assert steps.ran == ["convert", "stock", "speed"]
    matrix.run(["vit", "--seeded"])
    assert len(steps.ran) == 3
    marks = {"convert": "same", "stock": "other", "speed": "other"}
    kept = matrix.fingerprint
    monkeypatch.setattr(
        matrix, "fingerprint", lambda step, *rest: kept(step, *rest) + ("" if marks[step] == "same" else "x")
    )
    matrix.run(["vit", "--seeded"])
    assert steps.ran[3:] == ["stock", "speed"]
    matrix.run(["vit", "--seeded", "--fresh"])
    assert steps.ran[5:] == ["convert", "stock", "speed"]


def test_a_step_that_fails_costs_its_own_columns_and_is_made_again(steps: Steps) -> None:
    steps.fails = {"convert": "RuntimeError: no", "speed": "slow"}
    (steps.folder / "vit.edge").mkdir()
    page = matrix.run(["vit", "--seeded"])
    assert "| vit | ONNX | failed | convert: RuntimeError: no; speed: no result within 90 s |" in page
    assert (steps.folder / "matrix.svg").is_file()
    assert not (steps.folder / "vit.edge").exists()  # of other code: it must not be timed for today's
    steps.fails = {}
    page = matrix.run(["vit", "--seeded"])
    assert steps.ran == ["convert", "stock", "speed", "convert", "speed"]
    assert "RuntimeError" not in page
    assert "0 work, 2 refused, 0 failed" in page


def test_what_a_stopped_step_had_found_stays(steps: Steps) -> None:
    path = steps.folder / "vit.stock.json"
    steps.fails = {"stock": "slow"}

    def partly(command: list[str], **given: Any) -> subprocess.CompletedProcess[str]:
        if command[3] == "stock":
            path.write_text(json.dumps({"stock": {"ORT quantize_dynamic": "37 dB"}, "files": {}}))
        return Steps.__call__(steps, command, **given)

    subprocess.run = partly  # the fixture puts the real one back
    page = matrix.run(["vit", "--seeded"])
    assert "| vit | 37 dB | - | - | - |" in page
    assert "stock: no result within 150 s" in page


def test_a_row_of_an_older_matrix_does_not_cost_the_page(steps: Steps) -> None:
    old = {kind: {"quality": {"metric": "top1"}} for kind in ("onnx", "tflite")}
    (steps.folder / "gcn.convert.json").write_text(json.dumps({"seconds": 1.0, "cells": old}))
    page = matrix.run(["vit", "--seeded"])
    assert "| gcn | TFLite | failed | convert: found by an older matrix, not run again |" in page
