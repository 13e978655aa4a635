"""Tables and progress as a terminal of 80 columns shows them."""

from __future__ import annotations

import io
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import msgspec
import pytest
from rich.console import Console

from edgekit.cli.bundle_tables import graph_table, operating_table, split_table, watch_lines, watches
from edgekit.cli.commands.demo import _table
from edgekit.cli.output import Output
from edgekit_runtime import open_bundle
from edgekit_runtime.manifest import First, Manifest, OperatingPoint, Quality
from edgekit_runtime.testing import make_bundle


def shown(table: object) -> list[str]:
    console = Console(file=io.StringIO(), width=80)
    console.print(table)
    return console.file.getvalue().splitlines()  # type: ignore[attr-defined]  # a StringIO


@pytest.mark.parametrize("verdict", ["sound", "invalid"])
def test_every_row_of_the_demo_is_one_line(verdict: str) -> None:
    latency = SimpleNamespace(p50=12.19, interval_95=(12.0, 12.37))
    measured = SimpleNamespace(latency_ms=latency, verdict=SimpleNamespace(kind=verdict))
    accuracy = SimpleNamespace(value=1.0, reference=1.0, drop=-0.101, interval_95=(-0.102, -0.1))
    names = ("onnx.int8", "ORT quantize_dynamic", "litert-torch + AEQ")
    lines = [
        SimpleNamespace(graph=name, bytes=1_000_000, measured=measured, accuracy=accuracy, note="") for name in names
    ]
    rows = shown(_table(SimpleNamespace(lines=lines)))
    assert len(rows) == 1 + len(names) and all(len(row) <= 80 for row in rows)
    assert "12.2 [12.0, 12.4]" in rows[1] and ("!" in rows[1]) == (verdict == "invalid")


def test_every_row_of_a_bundles_graphs_is_one_line(tmp_path: Path) -> None:
    def judged(found: Manifest) -> Manifest:
        graph = msgspec.structs.replace(
            found.graphs[0],
            id="tflite.int8",
            precision="int8",
            bytes=1_034_000,
            int8_weight_bytes_fraction=1.0,
            executed_int8_macs_fraction=1.0,
        )
        row = Quality(
            graph=graph.id,
            metric="agreement with fp32",
            slice="all",
            higher_is_better=True,
            reference=1.0,
            value=0.98881,
            drop=0.01119,
            interval_95=(-0.00001, 0.0224),
            n=500,
            labels=False,
            gate="passed",
            reason="",
        )
        return msgspec.structs.replace(found, graphs=(graph,), quality=(row,))

    with open_bundle(make_bundle(tmp_path / "tiny.edge", graphs={"onnx.fp32": b"-"})) as bundle:
        rows = shown(graph_table(judged(bundle.manifest)))
    assert len(rows) == 3 and all(len(row) <= 80 for row in rows)  # a head of two lines
    assert "agreement 0.9888, +0.0112 [-0.0000, +0.0224]" in rows[2]


@pytest.mark.parametrize("more", [[], ["--json"]])
def test_a_reader_that_goes_away_ends_a_command_without_a_word(tmp_path: Path, more: list[str]) -> None:
    made = make_bundle(tmp_path / "tiny.edge")
    command = [sys.executable, "-m", "edgekit", "inspect", str(made), *more]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert process.stdout is not None and process.stderr is not None
    process.stdout.close()  # as head does, but before a word: a pipe holds 64 KiB
    assert process.stderr.read() == b""
    process.stderr.close()
    assert process.wait(60) == 141


def test_no_two_steps_have_one_number_where_there_are_more_than_planned(capsys: pytest.CaptureFixture[str]) -> None:
    with Output().steps("work", 2) as steps:
        for label in "abcd":
            steps.advance(label)
    assert capsys.readouterr().err.split() == ["[1/2]", "a", "[2/2]", "b", "[3/3]", "c", "[4/4]", "d"]


def test_each_operating_point_says_whether_a_drift_alarm_watches_it_and_how_often(tmp_path: Path, capsys) -> None:
    from edgekit.cli.app import run

    point = OperatingPoint(
        id="exits", graph_chain=("onnx.fp32",), thresholds=(0.9,), risk=0.01, confidence_level=0.95, n=500,
        empirical_risk=0.004, exit_fractions=(0.4, 0.35, 0.25), of="onnx.fp32",
    )  # fmt: skip
    first = First(name="small", bundle_id="0" * 64, graph="onnx.int8", sha256="b", output="y", shared=False)
    points = (
        point,
        msgspec.structs.replace(point, id="labelled", labels=True, first=first),
        msgspec.structs.replace(point, id="stream", steps="last"),
    )
    made = make_bundle(
        tmp_path / "t.edge", change=lambda found: msgspec.structs.replace(found, operating_points=points)
    )
    with open_bundle(made) as bundle:
        rows = {str(row["operating_point"]): row for row in watches(bundle.manifest)}
        lines = shown(operating_table(bundle.manifest))
        told = list(watch_lines(bundle.manifest))
    assert {name: row["watched"] for name, row in rows.items()} == {"exits": True, "labelled": False, "stream": False}
    assert rows["exits"]["check_fraction"] == 0.02
    assert rows["exits"]["checked_requests_fraction"] == pytest.approx(0.015)  # of the 75 % that leave early
    assert rows["labelled"]["checked_requests_fraction"] == 0.0 and "labels" in str(rows["labelled"]["reason"])
    assert all(len(line) <= 80 for line in lines) and "watches" in "".join(lines)
    assert len(told) == 3 and "1 early answer in 50" in told[0]
    assert run(["inspect", str(made), "--json"]) == 0
    assert [row["watched"] for row in msgspec.json.decode(capsys.readouterr().out)["drift_alarms"]] == [
        True,
        False,
        False,
    ]


def test_what_crosses_is_shown_in_one_piece_whatever_its_axis_is_called() -> None:
    crossing = tuple(SimpleNamespace(dtype="float32", shape=("batch", 16, 32, 32)) for _ in range(2))
    point = SimpleNamespace(
        of="onnx.fp32", place="stages.1.0.Relu", id="p", tensors=crossing, bytes=16384, macs_before=1, macs_after=1
    )
    point.tail_inputs = ("mask",)
    exits = (SimpleNamespace(of="onnx.fp32", after="p", output="exit_0"),)
    rows = shown(split_table(SimpleNamespace(split_points=(point,), exits=exits), "onnx.fp32"))  # type: ignore[arg-type]
    assert sum("float32[batch,16,32,32]" in row for row in rows) == 2 and all(len(row) <= 80 for row in rows)


def test_the_demo_tells_how_a_new_shell_finds_edgekit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from edgekit.cli.commands.demo import _activation

    monkeypatch.chdir(tmp_path)
    there = tmp_path / ".venv" / "bin"
    there.mkdir(parents=True)
    assert _activation(tmp_path / ".venv", "/usr/bin") == "", "no environment that can be activated"
    (there / "activate").write_text("")
    assert _activation(tmp_path / ".venv", "/usr/bin") == ". .venv/bin/activate"
    assert _activation(tmp_path / ".venv", f"/usr/bin:{there}") == ""
