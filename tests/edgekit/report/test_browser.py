"""The pages in a real headless Chromium, driven over its DevTools pipe."""

from __future__ import annotations

from pathlib import Path

import pytest
from chromium import Browser, Page

from edgekit.report import write_report
from edgekit_runtime.bundle import Bundle

pytest.importorskip("jinja2")

OVERFLOW = "document.documentElement.scrollWidth - document.documentElement.clientWidth"
ORDER = """[...document.querySelector("table.sortable").tBodies[0].rows]
    .map((row) => row.cells[{column}].dataset.value).join(" ")"""
COLUMN = """[...document.querySelector("table.sortable").tHead.rows[0].cells]
    .findIndex((cell) => cell.textContent.includes("p50"))"""
# Smallest contrast of text against its ground among what a person reads: WCAG 2.1, relative luminance.
CONTRAST = """(() => {
  const light = (colour) => {
    const linear = (x) => x <= 0.03928 ? x / 12.92 : ((x + 0.055) / 1.055) ** 2.4;
    const [r, g, b] = colour.match(/[\\d.]+/g).map((x) => linear(x / 255));
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const ground = (node) => {
    for (; node; node = node.parentElement) {
      const colour = getComputedStyle(node).backgroundColor;
      if (!/, 0\\)$/.test(colour) && !/0\\.\\d+\\)$/.test(colour)) return colour;
    }
    return "rgb(255, 255, 255)";
  };
  let least = 99;
  const read = "p, li, td, th, small, dt, dd, .badge, summary, h1, h2, h3, a, svg text";
  for (const node of document.querySelectorAll(read)) {
    const style = getComputedStyle(node);
    const [a, b] = [light(node.closest("svg") ? style.fill : style.color), light(ground(node))].sort((x, y) => y - x);
    least = Math.min(least, (a + 0.05) / (b + 0.05));
  }
  return least;
})()"""


@pytest.fixture
def pages(bundle: Bundle, tmp_path: Path) -> list[Path]:
    return [path for path in write_report([bundle], tmp_path / "out") if path.suffix == ".html"]


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
@pytest.mark.parametrize("width", [1280, 390])
def test_every_page_is_readable_and_quiet(browser: Browser, pages: list[Path], width: int, dark: bool):
    for path in pages:
        page = browser.open(path, width=width, dark=dark)
        assert page.errors == []
        assert page.requests == []
        assert page.value(OVERFLOW) <= 0
        assert page.value(CONTRAST) >= 4.5  # WCAG 2.1, 1.4.3


def test_the_charts_are_there_and_say_what_they_show(browser: Browser, pages: list[Path]):
    device = next(path for path in pages if path.stem.startswith("local"))
    page = browser.open(device)
    labels = page.value("[...document.querySelectorAll('svg')].map((chart) => chart.getAttribute('aria-label'))")
    # Two trade-offs, one glance; of each of two graphs: distribution, time, operators, memory.
    assert len(labels) == 3 + 2 * 4
    assert all(
        page.value(
            "[...document.querySelectorAll('details[open] svg')].map((c) => c.getBoundingClientRect().height > 20)"
        )
    )
    for words in (
        "top1 against median latency",
        "top1 against size",
        "Distribution of 700 samples",
        "Operators by time",
        "Memory",
    ):
        assert any(words in label for label in labels)
    assert "onnx.fp32: 0.770, 0.917" in " ".join(labels)


def test_tables_sort_by_keyboard(browser: Browser, pages: list[Path]):
    page = browser.open(pages[0])
    column = page.value(COLUMN)
    assert column > 0
    page.value(
        f"document.querySelector('table.sortable').tHead.rows[0].cells[{column}].querySelector('button').focus()"
    )
    for order, said in (("0.34 0.77 3.4", "ascending"), ("3.4 0.77 0.34", "descending")):
        page.press("Enter")
        assert page.value(ORDER.replace("{column}", str(column))) == order
        assert page.value("document.querySelector('th[aria-sort]').getAttribute('aria-sort')") == said
    assert page.errors == []


def test_a_person_without_a_mouse_reaches_everything(browser: Browser, pages: list[Path]):
    page = browser.open(pages[0], width=390)
    page.press("Tab")
    assert page.value("document.activeElement.textContent") == "Skip to the figures"
    unnamed = """[...document.querySelectorAll("a, button, [tabindex], summary")].filter(
        (node) => !(node.getAttribute("aria-label") || node.textContent).trim()).length"""
    assert page.value(unnamed) == 0
    assert page.value("document.documentElement.lang") == "en"
    assert page.value("document.querySelectorAll('main').length") == 1
    assert page.value("[...document.querySelectorAll('th')].every((head) => head.scope === 'col')")


def test_a_link_to_a_measurement_opens_it(browser: Browser, pages: list[Path]):
    page: Page = browser.open(pages[0])
    target = page.value("[...document.querySelectorAll('a.id')].map((link) => link.getAttribute('href'))[0]")
    name, _, anchor = target.partition("#")
    device = browser.open(pages[0].parent / name)
    device.value(f"location.hash = '{anchor}'")
    assert device.value(f"document.getElementById('{anchor}').open")
