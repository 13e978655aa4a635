"""The page of a comparison: what it says, and what a person sees of it in a real browser."""

from __future__ import annotations

import json
from pathlib import Path

import msgspec
import numpy as np
import pytest
from chromium import Browser
from test_browser import CONTRAST, OVERFLOW

from edgekit.profiler.comparison import Comparison, Turns, conclude
from edgekit.report import write_comparison
from edgekit.report.comparisons import title
from edgekit_runtime.errors import UsageError
from edgekit_runtime.measurement import Environment

pytest.importorskip("jinja2")


def found(ratio: float, scatter: float = 0.004) -> Comparison:
    generator = np.random.default_rng(7)
    rounds = []
    for _ in range(9):
        b = 0.84 * generator.lognormal(0, 0.01, 16)
        a = b * ratio * np.exp(generator.normal(0, scatter)) * generator.lognormal(0, 0.01, 16)
        rounds.append(Turns(list(a), list(b), 0.1, 1.0))
    labels = [f"{name}.edge:onnx.int8 on onnxruntime, 1 thread" for name in ("new", "old<b>")]
    made = conclude(*labels, rounds, 0.02, 14.0, alpha=0.018)
    machine = Environment(cpu="Some CPU, 4 cores, x86_64", load=0.7, swap=0)
    return msgspec.structs.replace(made, environment=machine)


@pytest.mark.parametrize(
    ("ratio", "scatter", "said"),
    [
        (1.1, 0.004, "A is slower than B"),
        (0.8, 0.004, "A is faster than B"),
        (1.0, 0.002, "Equal within 2.0%"),
        (1.0, 0.04, "No difference shown"),
        (1.0, 0.5, "Too noisy to tell"),
    ],
)
def test_the_title_is_the_verdict(ratio: float, scatter: float, said: str):
    assert title(found(ratio, scatter)) == said


def test_the_files_tell_the_same(tmp_path: Path):
    shown = found(1.1)
    page, text, data = write_comparison(shown, tmp_path / "out")
    assert msgspec.json.decode(data.read_bytes(), type=Comparison) == shown
    assert f"{shown.ratio:.3f}" in text.read_text()
    assert f"{shown.ratio:.3f}" in page.read_text()
    assert "old&lt;b&gt;" in page.read_text() and "old<b>" not in page.read_text()
    assert page.stat().st_size < 200_000


def test_a_folder_that_cannot_be_written_is_named(tmp_path: Path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UsageError, match="cannot be written"):
        write_comparison(found(1.0), tmp_path / "file")


def test_a_comparison_without_blocks_or_machine_says_so(tmp_path: Path):
    shown = found(1.1)
    bare = [msgspec.structs.replace(run, a_blocks_ms=(), b_blocks_ms=()) for run in shown.runs]
    page = write_comparison(msgspec.structs.replace(shown, runs=tuple(bare), environment=None), tmp_path)[0]
    assert page.read_text().count("The blocks were not kept") == 2


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
@pytest.mark.parametrize("width", [1280, 390])
def test_the_page_is_readable_and_quiet(browser: Browser, tmp_path: Path, width: int, dark: bool):
    page = browser.open(write_comparison(found(1.1), tmp_path)[0], width=width, dark=dark)
    assert page.errors == []
    assert page.requests == []
    assert page.value(OVERFLOW) <= 0
    assert page.value(CONTRAST) >= 4.5  # WCAG 2.1, 1.4.3


def test_the_verdict_stands_first_and_the_charts_are_there(browser: Browser, tmp_path: Path):
    page = browser.open(write_comparison(found(1.1), tmp_path)[0])
    assert page.value("document.querySelector('h1').textContent") == "A is slower than B"
    assert page.value("document.querySelector('main .badge').textContent") == "slower"
    labels = page.value("[...document.querySelectorAll('svg')].map((chart) => chart.getAttribute('aria-label'))")
    assert len(labels) == 3
    assert labels[0].startswith("Time of A over time of B: 1.")
    assert all(label.startswith("Distribution of 144 samples") for label in labels[1:])
    inside = """[...document.querySelectorAll('svg')].every((chart) => [...chart.querySelectorAll('rect, circle, text')]
        .every((part) => { const box = part.getBBox(); return box.x >= -1 && box.x + box.width <= 361; }))"""
    assert page.value(inside)


def test_the_rounds_sort_by_keyboard(browser: Browser, tmp_path: Path):
    page = browser.open(write_comparison(found(1.1), tmp_path)[0])
    page.value("document.querySelector('table.sortable').tHead.rows[0].cells[3].querySelector('button').focus()")
    page.press("Enter")
    column = "[...document.querySelector('table.sortable').tBodies[0].rows].map((row) => +row.cells[3].dataset.value)"
    seen = json.loads(page.value(f"JSON.stringify({column})"))
    assert seen == sorted(seen)
    assert len(seen) == 9
