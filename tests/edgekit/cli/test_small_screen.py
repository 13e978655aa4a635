"""What `edgekit run` says of a student with dozens of actions fits a terminal of 24 lines."""

from __future__ import annotations

import io
from collections import deque
from types import SimpleNamespace

import numpy as np
from rich.console import Console

from edgekit.cli.commands.run import _render
from edgekit.cli.live import view
from edgekit.cli.policies import render_left_out
from edgekit_runtime.adaptive import Link, Load

LEFT_OUT = {
    f"split:layer{n}:int8-row": f"may lose 0.0{n} of accuracy, and the policy names no max_risk" for n in range(30)
}
LEFT_OUT |= {f"split:place{n}:int8-row": "what it costs in accuracy was not measured at this place" for n in range(9)}
REASONS = ["local: it is expected to be the fastest of 28 that the policy allows"]
REASONS += [f"split:layer{n}: {n}.0 ms slower, mostly by its round trip (+63.9 ms)" for n in range(27)]


def _screen() -> Console:
    return Console(file=io.StringIO(), width=80)


def _lines(console: Console) -> list[str]:
    return console.file.getvalue().splitlines()


def test_reasons_that_differ_in_figures_only_are_one_line_and_others_their_own() -> None:
    console = _screen()
    render_left_out(console, LEFT_OUT)
    text = " ".join(console.file.getvalue().split())
    assert "left out: split:layer0:int8-row and 29 more like it (--json): may lose 0.00 of accuracy" in text
    assert "split:place2:int8-row and 6 more like it (--json): what it costs" in text
    assert len(_lines(console)) <= 8


def test_a_few_reasons_that_differ_have_a_line_each_where_there_is_room() -> None:
    console = _screen()
    render_left_out(
        console, {f"variant:{n}": f"another graph than the one that runs ({n} ms on pi4)" for n in range(3)}
    )
    assert [line[:19] for line in _lines(console)] == [f"left out: variant:{n}" for n in range(3)]


def test_a_request_with_dozens_of_actions_is_told_in_half_a_screen_and_quietly_in_two_lines() -> None:
    answers = {"output": np.zeros((1, 2), np.float32)}
    decision = {"action": "local", "total_ms": 1.5, "reasons": REASONS}
    console = _screen()
    _render(console, answers, decision, None, LEFT_OUT)
    assert len(_lines(console)) <= 14
    assert "24 more actions" in console.file.getvalue() and "and 29 more" in console.file.getvalue()
    console = _screen()
    _render(console, answers, decision, None, LEFT_OUT, brief=True)  # below the view of --watch
    assert len(_lines(console)) <= 6 and "39 are not offered" in console.file.getvalue()
    console = _screen()
    _render(console, answers, decision, None, None)
    assert _lines(console) == ["output float32[1, 2] [[0. 0.]]", "local, 1.500 ms"]


def test_the_live_view_names_the_commonest_choices_and_cuts_long_words_short() -> None:
    def result(number: int) -> SimpleNamespace:
        action = f"split:layer{number % 30}.0.Relu:bitshuffle-zstd" if number > 50 else "local"
        decision = SimpleNamespace(action=action, predicted_ms=1.0, link=Link(), load=Load())
        fallback = "the server gave no answer [unavailable] " + "x" * 400 if number % 3 == 0 else ""
        return SimpleNamespace(decision=decision, timing=SimpleNamespace(total_ms=2.0, fallback=fallback))

    console = _screen()
    console.print(view(deque(map(result, range(200))), 200))
    text = console.file.getvalue()
    assert len(_lines(console)) <= 18
    assert "local 51" in text and "27 others" in " ".join(text.split()) and "[unavailable]" in text
