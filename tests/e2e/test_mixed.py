"""The gate on a student whose int8 form fails: operators go back until it passes, by name and with the reason."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

# One channel is a thousand times larger than the others and does not matter: a scale a tensor loses the others.
LOUD = """\
import torch
from torch import nn


class Loud(nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.plain = nn.Conv2d(1, 8, 3, padding=1)
        self.loud = nn.Conv2d(8, 8, 3, padding=1)
        self.quiet = nn.Conv2d(8, 8, 3, padding=1)
        self.deep = nn.Conv2d(8, 32, 3, padding=1)
        self.head = nn.Linear(32 * 16, 4)
        with torch.no_grad():
            self.loud.weight[0] *= 1000
            self.quiet.weight[:, 0] /= 1e6

    def forward(self, image):
        x = torch.relu(self.plain(image))
        x = torch.relu(self.quiet(self.loud(x)))
        x = torch.max_pool2d(torch.relu(self.deep(x)), 2)
        return {"scores": self.head(x.flatten(1))}


def build():
    return Loud()
"""


@pytest.fixture
def loud(work: Path) -> Path:
    (work / "loud.py").write_text(LOUD)
    rng = np.random.default_rng(0)
    np.savez(work / "many.npz", image=rng.standard_normal((64, 1, 8, 8), dtype=np.float32))
    return work


ARGUMENTS = ("loud.py:build", "--calibration", "many.npz", "--format", "onnx", "--quiet", "--json")


def test_the_operators_that_fail_the_gate_go_back_and_the_rest_stays_int8(edgekit: Any, loud: Path) -> None:
    done = edgekit("convert", *ARGUMENTS, "-o", "loud.edge")
    assert done.code == 0
    graphs = {g["id"]: g for g in done.document["manifest"]["graphs"] if g["role"] == "full"}
    int8 = graphs["onnx.int8"]
    assert int8["int8_weight_bytes_fraction"] > 0.95  # weights stay int8, the arithmetic went back
    assert 0.1 < int8["executed_int8_macs_fraction"] < 0.95
    recipe = json.loads((loud / "loud.edge" / int8["recipe"]).read_text())
    back = {op["op"]: op["reason"] for op in recipe["ops"] if "given back for quality" in op["reason"]}
    assert "quiet/Conv" in back and all("fails the gate" in reason for reason in back.values())
    (quality,) = done.document["manifest"]["quality"]
    assert quality["gate"] == "passed" and quality["drop"] <= 0.005


def test_the_same_costs_give_the_same_bundle_without_timing(edgekit: Any, loud: Path) -> None:
    first = edgekit("convert", *ARGUMENTS, "-o", "loud.edge", "--costs", "costs.json")
    assert first.code == 0 and (loud / "costs.json").is_file()
    table = (loud / "costs.json").read_bytes()
    assert table == (loud / "loud.edge" / "reports" / "costs.json").read_bytes()
    again = edgekit("convert", *ARGUMENTS, "-o", "loud.edge", "--force", "--costs", "costs.json")
    assert again.document["bundle_id"] == first.document["bundle_id"]
    assert (loud / "costs.json").read_bytes() == table


def test_a_cost_table_of_another_student_is_refused(edgekit: Any, loud: Path) -> None:
    (loud / "costs.json").write_text('{"machine": "m", "schema": "edgekit.costs/1", "versions": {}, "duels": {}}')
    done = edgekit("convert", *ARGUMENTS, "-o", "loud.edge", "--costs", "costs.json")
    assert done.code == 2 and not (loud / "loud.edge").exists()
    done.says("recorded for another student", "new name")


def test_targets_get_the_numeric_forms_their_instruction_sets_need(edgekit: Any, work: Path) -> None:
    targets = [word for name in ("pi5", "pi4", "x86-no-vnni", "nvidia-t4") for word in ("--target", name)]
    tiny = ("students.py:tiny", "--calibration", "calib.npz", "--format", "onnx", "--quiet", "--json", "-o", "t.edge")
    done = edgekit("convert", *tiny, "--max-drop", "0.2", *targets)
    assert done.code == 0
    graphs = {g["id"]: g["targets"] for g in done.document["manifest"]["graphs"] if g["role"] == "full"}
    assert graphs == {
        "onnx.fp32": [],
        "onnx.int8.s8s8": ["pi5", "pi4"],
        "onnx.int8.reduced_range": ["x86-no-vnni"],
        "onnx.fp16": ["nvidia-t4"],
    }
    (refusal,) = done.document["refused"]
    assert "nvidia-t4" in refusal["reason"] and "no int8 kernels" in refusal["reason"]


def test_an_unknown_target_is_wrong_usage(edgekit: Any) -> None:
    done = edgekit("convert", "students.py:tiny", "--calibration", "calib.npz", "-o", "t.edge", "--target", "pi9")
    assert done.code == 2
    done.says("pi9", "pi5")


def test_fp16_is_half_of_the_bytes_in_both_formats_and_answers_alike(edgekit: Any, work: Path) -> None:
    tiny = ("students.py:tiny", "--calibration", "calib.npz", "--quiet", "--json")
    done = edgekit("convert", *tiny, "--precision", "fp16", "-o", "half.edge")
    assert done.code == 0
    full = edgekit("convert", *tiny, "--precision", "fp32", "-o", "full.edge").document["manifest"]["graphs"]
    before = {graph["format"]: graph["bytes"] for graph in full if graph["role"] == "full"}
    made = [g for g in done.document["manifest"]["graphs"] if g["role"] == "full"]
    assert [graph["id"] for graph in made] == ["onnx.fp16", "tflite.fp16"]
    assert all(graph["bytes"] < before[graph["format"]] for graph in made)
    # Half precision keeps 11 bits: errors of a few thousandths of the range.
    assert all(parity["max_error_fraction"] < 0.01 for parity in done.document["manifest"]["parity"])
