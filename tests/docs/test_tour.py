"""docs/tour.md is true: every block runs, in order, in one empty folder."""

from __future__ import annotations

import re
import shlex
import sys
from pathlib import Path

import pytest

TOUR = Path(__file__).parents[2] / "docs" / "tour.md"
BLOCK = re.compile(r"^```(?P<language>python|console)\n(?P<text>.*?)^```$", re.MULTILINE | re.DOTALL)


def blocks() -> list[tuple[int, str, str]]:
    """(line of the page, language, text) of every block that is run."""
    page = TOUR.read_text(encoding="utf-8")
    return [(page[: m.start()].count("\n") + 2, m["language"], m["text"]) for m in BLOCK.finditer(page)]


def test_every_block_of_the_page_has_a_language_that_is_run() -> None:
    fences = re.findall(r"^```(\w*)$", TOUR.read_text(encoding="utf-8"), re.MULTILINE)
    assert set(fences) == {"python", "console", ""}
    assert len(fences) == 2 * len(blocks())
    assert all(line.startswith("$ edgekit ") for _, kind, text in blocks() if kind == "console" for line in lines(text))


def lines(text: str) -> list[str]:
    return [line for line in text.splitlines() if line.strip()]


@pytest.mark.slow
def test_the_tour_runs_from_the_first_block_to_the_last(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from edgekit.cli.app import run

    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, "student", raising=False)
    namespace: dict[str, object] = {"__name__": "tour"}
    for number, language, text in blocks():
        if language == "python":
            # Blank lines in front give tracebacks the line of the page.
            exec(compile("\n" * (number - 1) + text, str(TOUR), "exec"), namespace)
            continue
        for line in lines(text):
            assert run(shlex.split(line)[2:]) == 0, f"{TOUR.name}:{number}: {line}"
    monkeypatch.delitem(sys.modules, "student", raising=False)
