from __future__ import annotations

import json
from pathlib import Path

import pytest

from edgekit.cli.app import run
from edgekit.cli.commands.compare import fraction
from edgekit.profiler import comparison
from edgekit.profiler.comparison import Turns, conclude
from edgekit_runtime.errors import UsageError

pytestmark = pytest.mark.alone


@pytest.fixture
def slower_by_ten_percent(monkeypatch):
    """The measuring is replaced (tests/edgekit/profiler does it for real): only the command is under test."""

    def compare(a: str, b: str, **options):
        made = [Turns(a=[1.1 + i / 1000] * 4, b=[1.0] * 4, foreign_seconds=0.0, seconds=1.0) for i in range(6)]
        return conclude(a, b, made, options["margin"], 1.0)

    monkeypatch.setattr(comparison, "compare", compare)


def test_a_real_comparison_prints_the_keys_of_the_contract(tiny: Path, capsys):
    assert run(["compare", f"{tiny}:onnx.int8", f"{tiny}:onnx.fp32", "--duration", "0.1", "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert {"verdict", "ratio", "interval_95", "runs"} <= set(document)
    assert document["interval_95"][0] <= document["ratio"] <= document["interval_95"][1]


def test_the_gate_sets_the_exit_code_and_json_stays_one_document(slower_by_ten_percent, capsys):
    assert run(["compare", "a", "b", "--fail-if-slower", "5%", "--json"]) == 4
    document = json.loads(capsys.readouterr().out)
    assert document["verdict"] == "slower"
    assert document["error"]["kind"] == "gate_failed"
    assert run(["compare", "a", "b", "--fail-if-slower", "0.2", "--json"]) == 0
    assert "error" not in json.loads(capsys.readouterr().out)


def test_a_person_sees_the_figures_and_then_the_refusal(slower_by_ten_percent, capsys):
    assert run(["compare", "a", "b", "--fail-if-slower", "5%"]) == 4
    printed = capsys.readouterr()
    assert "slower: A takes 1.1 times the time of B" in printed.out
    assert "at most 5.0% is accepted" in printed.err


def test_a_margin_that_holds_the_difference_shows_none(slower_by_ten_percent, capsys):
    assert run(["compare", "a", "b", "--margin", "15%", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["verdict"] == "no_difference_shown"


def test_percentages_and_fractions_are_read():
    assert fraction("--margin", "5%") == fraction("--margin", "0.05") == 0.05
    for text in ("x", "-1%", "nan", "inf", ""):
        with pytest.raises(UsageError):
            fraction("--margin", text)


def test_a_report_is_written_and_named(slower_by_ten_percent, tmp_path: Path, capsys):
    pytest.importorskip("jinja2")
    assert run(["compare", "a", "b", "--report", str(tmp_path / "page"), "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert Path(document["report"]) == tmp_path / "page" / "index.html"
    assert "A is slower than B" in Path(document["report"]).read_text()
