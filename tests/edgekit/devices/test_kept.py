"""A calibration that was interrupted goes on where it was."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from edgekit.devices.bench import Kept


def test_times_are_taken_again_until_the_file_is_gone(tmp_path: Path) -> None:
    path, calls = tmp_path / "deep" / "kept", []

    def run() -> float:
        calls.append(1)
        return 0.1 * len(calls)

    first = Kept(path, "engine 1 plan")
    assert (first.take("0 1", run), first.take("0 2", run)) == (0.1, 0.2)
    again = Kept(path, "engine 1 plan")
    assert (again.take("0 1", run), again.take("0 2", run), again.take("1 1", run)) == (0.1, 0.2, pytest.approx(0.3))
    assert len(calls) == 3


def test_another_plan_or_an_old_file_begins_anew(tmp_path: Path) -> None:
    path = tmp_path / "kept"
    Kept(path, "one").take("0 1", lambda: 1.0)
    assert Kept(path, "other").take("0 1", lambda: 2.0) == 2.0
    before = time.time() - 7200
    os.utime(path, (before, before))
    assert Kept(path, "other").take("0 1", lambda: 3.0) == 3.0


def test_a_line_that_was_cut_off_is_measured_again(tmp_path: Path) -> None:
    path = tmp_path / "kept"
    Kept(path, "plan").take("0 1", lambda: 1.0)
    with path.open("a") as file:
        file.write("0 2 12.")
    again = Kept(path, "plan")
    assert (again.take("0 1", lambda: 9.0), again.take("0 2", lambda: 2.0)) == (1.0, 2.0)
    assert Kept(path, "plan").take("0 2", lambda: 9.0) == 2.0


def test_without_a_file_nothing_is_kept() -> None:
    assert Kept(None, "plan").take("0 1", lambda: 4.0) == 4.0
