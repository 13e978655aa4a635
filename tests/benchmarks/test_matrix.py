"""How the matrix runs its steps: what is kept, what is made again, and that a page comes out whatever fails."""

from __future__ import annotations

import argparse
import json
import subprocess
from pathlib import Path
from typing import Any

import pytest

import edgekit
from benchmarks import matrix, twins
from benchmarks.structure import structure_of
from edgekit.students import integer_rnn

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


def test_a_program_of_integers_is_timed_beside_its_twin(steps: Steps) -> None:
    twin = {
        "size": {"onnx": 0.25},
        "median_ms": {"onnx.int8": 2.0, "onnx.fp32": 1.0},
        "gain": {"onnx": [0.5, 0.4, 0.6]},
    }

    def with_twin(command: list[str], **given: Any) -> subprocess.CompletedProcess[str]:
        if command[2] != "benchmarks.twins":
            return Steps.__call__(steps, command, **given)
        steps.ran.append("twin")
        (steps.folder / f"{command[3]}.twin.json").write_text(json.dumps({"twin": twin}))
        return subprocess.CompletedProcess(command, 0)

    subprocess.run = with_twin  # the fixture puts the real one back
    page = matrix.run(["integer_rnn", "vit", "--seeded"])
    assert steps.ran.count("twin") == 1
    assert "| integer_rnn | ONNX | 0.250x | 2.000 | 1.000 | 0.50x [0.40, 0.60] |" in page


def test_every_program_of_integers_has_a_twin() -> None:
    assert set(matrix.INTEGER) == set(twins.TWINS)


def test_a_twin_takes_what_its_student_takes_and_is_measured_against_it(tmp_path: Path) -> None:
    inputs = integer_rnn.example(1, 8, "tiny")
    axes = {"example": inputs, "split_points": ("none",), "formats": ("onnx",)}
    small = edgekit.convert(integer_rnn.build("tiny"), out=tmp_path / "small.edge", **axes)
    large = edgekit.convert(integer_rnn.twin("tiny"), out=tmp_path / "large.edge", precision="fp32", **axes)
    seen = twins.compare(small, large, inputs, seconds=0.2)
    assert seen.size == {"onnx": small.graph("onnx.int8").bytes / large.graph("onnx.fp32").bytes}
    assert set(seen.median_ms) == {"onnx.int8", "onnx.fp32"}
    assert 0 < seen.gain["onnx"][1] <= seen.gain["onnx"][2]
    constants = sum(value.numel() * value.element_size() for value in integer_rnn.build("tiny").buffers())
    rest, whole = structure_of(small)["onnx"]
    assert whole == small.graph("onnx.int8").bytes
    assert whole - rest == pytest.approx(constants, rel=0.05)  # and a few shapes
