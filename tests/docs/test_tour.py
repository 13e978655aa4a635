"""README.md and docs/tour.md are true: every block of each runs, in order, in one empty folder."""

from __future__ import annotations

import re
import shlex
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGES = (ROOT / "README.md", ROOT / "docs" / "tour.md")
BLOCK = re.compile(r"^```(?P<language>python|console)\n(?P<text>.*?)^```$", re.MULTILINE | re.DOTALL)


def blocks(path: Path) -> list[tuple[int, str, str]]:
    """(line of the page, language, text) of every block that is run."""
    page = path.read_text(encoding="utf-8")
    return [(page[: m.start()].count("\n") + 2, m["language"], m["text"]) for m in BLOCK.finditer(page)]


@pytest.mark.parametrize("page", PAGES, ids=lambda path: path.name)
def test_every_block_of_the_page_has_a_language_that_is_run(page: Path) -> None:
    fences = re.findall(r"^```(\w*)$", page.read_text(encoding="utf-8"), re.MULTILINE)
    assert set(fences) == {"python", "console", ""}
    found = blocks(page)
    assert len(fences) == 2 * len(found)
    assert all(line.startswith("$ edgekit ") for _, kind, text in found if kind == "console" for line in lines(text))


def lines(text: str) -> list[str]:
    return [line for line in text.splitlines() if line.strip()]


@pytest.mark.slow
@pytest.mark.parametrize("page", PAGES, ids=lambda path: path.name)
def test_the_page_runs_from_its_first_block_to_the_last(
    page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from edgekit.cli.app import run

    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, "student", raising=False)
    namespace: dict[str, object] = {"__name__": "tour"}
    for number, language, text in blocks(page):
        if language == "python":
            # Blank lines in front give tracebacks the line of the page.
            exec(compile("\n" * (number - 1) + text, str(page), "exec"), namespace)
            continue
        for line in lines(text):
            assert run(shlex.split(line)[2:]) == 0, f"{page.name}:{number}: {line}"
    monkeypatch.delitem(sys.modules, "student", raising=False)
