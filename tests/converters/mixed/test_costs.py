from __future__ import annotations

from pathlib import Path

import pytest

from edgekit_converters.mixed.costs import Costs, Duel, dump
from edgekit_runtime.errors import Refused, UsageError

ONE = Duel(before_ms=1.0, after_ms=0.5, ratio=2.0, interval_95=(1.9, 2.1))


def never() -> Duel:
    raise AssertionError("timed again")


def test_a_recorded_table_answers_without_timing(tmp_path: Path) -> None:
    first = Costs.of(None)
    assert first.duel("a / b", lambda: ONE) == ONE
    path = tmp_path / "costs.json"
    path.write_bytes(dump(first.table()))
    again = Costs.of(path)
    assert again.duel("a / b", never) == ONE
    assert dump(again.table()) == path.read_bytes()


def test_a_table_of_another_student_is_refused_with_what_it_lacks(tmp_path: Path) -> None:
    path = tmp_path / "costs.json"
    path.write_bytes(dump(Costs.of(None).table()))
    with pytest.raises(UsageError, match="lacks a / b") as caught:
        Costs.of(path).duel("a / b", never)
    assert "new name" in caught.value.remedy


def test_what_is_no_table_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "costs.json"
    path.write_text('{"schema": "edgekit.costs/1", "machine": 3}')
    with pytest.raises(Refused, match="no cost table"):
        Costs.of(path)


def test_a_file_that_does_not_exist_yet_means_timing(tmp_path: Path) -> None:
    assert Costs.of(tmp_path / "new.json").duel("a / b", lambda: ONE) == ONE
