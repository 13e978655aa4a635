"""The pages of `plan` and `simulate` as a person sees them in a real browser."""

from __future__ import annotations

from pathlib import Path

import pytest
from chromium import Browser
from test_browser import CONTRAST, OVERFLOW

from edgekit.planner import plan
from edgekit.planner.page import page as plan_page
from edgekit.report import plain
from edgekit.simulate import Setting, simulate
from edgekit.simulate.page import page as study_page
from edgekit.simulate.traces import constant
from edgekit_runtime.adaptive import ActionCost

ACTIONS = (
    ActionCost(id="local", kind="local", head_ms=60, head_sd_ms=2),
    ActionCost(id="offload", kind="offload", offload_fraction=1.0, bytes_up=15_000, bytes_down=300, tail_ms=3),
)


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    folder = tmp_path_factory.mktemp("pages")
    study = simulate(Setting(actions=ACTIONS, traces=(constant(20, 8),), requests=40))
    texts = {
        "plan.html": plan_page(plan(ACTIONS), "a plan", ("On the device runs onnx.int8.",), {"exit:0.01": "no risk"}),
        "study.html": study_page(study, "a day"),
    }
    for name, text in texts.items():
        (folder / name).write_text(text, encoding="utf-8")
    return [folder / name for name in texts]


def test_text_stays_text() -> None:
    made = plain.table("a <caption>", ("A & B", "n"), [("<i>", "1")], ("A & B",)) + plain.document("<t>", "")
    assert "<i>" not in made and "&lt;i&gt;" in made and "A &amp; B" in made and "<title>&lt;t&gt;</title>" in made


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
@pytest.mark.parametrize("width", [1280, 390])
def test_the_pages_are_readable_and_quiet(browser: Browser, pages: list[Path], width: int, dark: bool) -> None:
    for path in pages:
        page = browser.open(path, width=width, dark=dark)
        assert page.errors == []
        assert page.requests == []
        assert page.value(OVERFLOW) <= 0
        assert page.value(CONTRAST) >= 4.5
        # The letters of a picture as they are seen: a page as wide as a phone must not shrink them away.
        smallest = """Math.min(...[...document.querySelectorAll('svg text')].map((text) => {
            const box = text.ownerSVGElement;
            const scale = box.getBoundingClientRect().width / box.viewBox.baseVal.width;
            return parseFloat(getComputedStyle(text).fontSize) * scale;
        }))"""
        assert page.value(smallest) >= 9


def test_pictures_and_tables_are_reached_without_a_mouse(browser: Browser, pages: list[Path]) -> None:
    for path in pages:
        page = browser.open(path, width=390)
        scrolling = """[...document.querySelectorAll('main *')].filter((node) =>
            node.scrollWidth > node.clientWidth + 1 && getComputedStyle(node).overflowX === 'auto')"""
        assert page.value(f"{scrolling}.length") > 0
        assert page.value(f"{scrolling}.every((node) => node.tabIndex === 0 && node.getAttribute('aria-label'))")
        assert page.value("document.querySelectorAll('main').length") == 1
        assert page.value("[...document.querySelectorAll('th')].every((head) => head.scope === 'col')")
