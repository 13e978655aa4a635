"""Tables and progress as a terminal of 80 columns shows them."""

from __future__ import annotations

import io
from types import SimpleNamespace

import pytest
from rich.console import Console

from edgekit.cli.commands.demo import _table
from edgekit.cli.output import Output


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


def test_no_two_steps_have_one_number_where_there_are_more_than_planned(capsys: pytest.CaptureFixture[str]) -> None:
    with Output().steps("work", 2) as steps:
        for label in "abcd":
            steps.advance(label)
    assert capsys.readouterr().err.split() == ["[1/2]", "a", "[2/2]", "b", "[3/3]", "c", "[4/4]", "d"]
