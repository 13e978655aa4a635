"""The page of cuts: what is kept, what is made again, and what the page says."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest

from benchmarks import cuts, steps

ROW = {"graph": "onnx.int8", "places": 5, "cut": 3, "differ": {}, "share": 0.5, "whole": ""}


@pytest.fixture
def ran(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[list[str]]:
    """The commands that ran; each leaves a row."""
    commands: list[list[str]] = []

    def run(command: list[str], **given: Any) -> subprocess.CompletedProcess[str]:
        commands.append(command)
        step, name, folder = command[3:6]
        if name == "vit":
            given["stdout"].write("Traceback\nRuntimeError: no such weights\n")
            return subprocess.CompletedProcess(command, 1)
        steps.leave(Path(folder) / f"{name}.{step}.json", {"rows": [ROW], "refused": []})
        return subprocess.CompletedProcess(command, 0)

    monkeypatch.setattr(cuts, "FOLDER", tmp_path)
    monkeypatch.setattr(subprocess, "run", run)
    return commands


def test_a_second_run_makes_only_what_failed(ran: list[list[str]]) -> None:
    page = cuts.run(["text_cnn", "vit", "--places"])
    assert sorted(command[4] for command in ran) == ["text_cnn", "vit"]
    assert "| vit | - | - | - | - | - | RuntimeError: no such weights |" in page
    cuts.run(["text_cnn", "vit", "--places"])
    assert [command[4] for command in ran[2:]] == ["vit"]
    cuts.run(["text_cnn", "--places", "--fresh"])
    assert ran[-1][4] == "text_cnn"


def test_other_code_makes_a_student_again(ran: list[list[str]], monkeypatch: pytest.MonkeyPatch) -> None:
    cuts.run(["text_cnn", "--places"])
    monkeypatch.setattr(cuts, "fingerprint", lambda *of: "other")
    cuts.run(["text_cnn", "--places"])
    assert len(ran) == 2


def test_the_page_counts_and_gives_reasons() -> None:
    differs = {**ROW, "graph": "tflite.fp32", "cut": 2, "differ": {"back.1": "output differs by 1.9"}}
    whole = {**ROW, "graph": "tflite.int8", "places": 0, "cut": 0, "share": 0.0, "whole": "stays whole: because"}
    page = cuts.page({"cmow": {"rows": [ROW, differs, whole], "refused": ["onnx fp32: no"]}}, {})
    assert "onnx: 1 graphs, 5 places, 3 cut and equal to the whole bit by bit, 0 given up" in page
    assert "tflite: 2 graphs, 5 places, 2 cut" in page and "1 given up because bits differ; 1 stay whole: " in page
    assert "back.1: output differs by 1.9" in page and "onnx fp32: no" in page
    assert "text_cnn" in page.partition("Not run: ")[2]


def test_chains_of_the_students_asked_for_are_timed(ran: list[list[str]], tmp_path: Path) -> None:
    found = {"name": "ResNet20", "segments": 13, "whole_ms": 1.0, "joined_ms": 1.2, "ratio": [1.2, 1.1, 1.3]}
    (tmp_path / "resnet20.chain.json").write_text(json.dumps({**found, "one_by_one": 1.5}))
    page = cuts.run(["text_cnn"])
    assert not [command for command in ran if command[3] == "chain"]
    assert "| ResNet20 | 13 | 1.000 | 1.200 | 1.200 [1.100, 1.300] | 1.50x | ≤ 1.05x | **missed** |" in page
