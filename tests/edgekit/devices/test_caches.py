"""Cache sizes from the files of the Linux kernel."""

from __future__ import annotations

from pathlib import Path

import pytest

from edgekit.devices import caches, store
from edgekit_runtime.machine import this_machine


def index(folder: Path, number: int, level: str, kind: str, size: str) -> None:
    at = folder / f"index{number}"
    at.mkdir()
    for name, text in (("level", level), ("type", kind), ("size", size)):
        (at / name).write_text(text + "\n")


def test_levels_that_hold_data_are_read_in_bytes(tmp_path: Path) -> None:
    index(tmp_path, 0, "1", "Data", "32K")
    index(tmp_path, 1, "1", "Instruction", "64K")
    index(tmp_path, 2, "2", "Unified", "1024K")
    index(tmp_path, 3, "3", "Unified", "32M")
    assert caches.read(tmp_path) == {1: 32 << 10, 2: 1 << 20, 3: 32 << 20}


@pytest.mark.parametrize("size", ["", "K", "-1K", "0K", "many"])
def test_what_cannot_be_read_is_left_out(tmp_path: Path, size: str) -> None:
    index(tmp_path, 0, "1", "Data", size)
    (tmp_path / "index1").mkdir()
    assert caches.read(tmp_path) == {}
    assert caches.read(tmp_path / "absent") == {}


def test_the_profile_of_this_machine_tells_its_caches_where_the_system_does() -> None:
    hardware = store.describe(this_machine()).hardware
    told = {1: hardware.l1_bytes, 2: hardware.l2_bytes, 3: hardware.l3_bytes}
    assert {level: figure.value for level, figure in told.items() if figure} == caches.read()
