"""Codecs and copies are timed here and scaled to the device asked for."""

from __future__ import annotations

import msgspec
import pytest

from edgekit.devices import load
from edgekit.planner import byte_work

HERE = load("x86-vnni")


def test_the_slower_of_clock_and_memory_rules() -> None:
    pi4, pi5 = load("pi4"), load("pi5")
    memory = msgspec.structs.replace(HERE.bandwidth[-1], gb_per_s=msgspec.structs.replace(pi5.bandwidth[-1].gb_per_s))
    here = msgspec.structs.replace(HERE, bandwidth=(memory,))  # with the memory of a Pi 5
    assert byte_work.slower(here, pi4) == pytest.approx(memory.gb_per_s.value / 4.6)  # memory
    assert byte_work.slower(here, pi5) == pytest.approx(3700 / 2400)  # clock: its memory is as quick
    blind = msgspec.structs.replace(pi4, bandwidth=())
    assert byte_work.slower(here, blind) == pytest.approx(3700 / 1800)


def test_slower_boards_take_longer_and_this_machine_as_long_as_it_does() -> None:
    names = ("x86-vnni", "pi5", "pi4", "pi-zero-2-w")
    ratios = [byte_work.slower(HERE, load(name)) for name in names]
    copies = [byte_work.serialise_ms(load(name), 1_000_000) for name in names]
    assert ratios[0] == 1.0 and ratios == sorted(ratios) and copies == sorted(copies)
    assert byte_work.slower_than_here(load("local")) == 1.0


def test_the_processor_beside_a_card_is_not_told_by_the_card() -> None:
    assert byte_work.slower(HERE, load("nvidia-t4")) == 1.0


def test_a_machine_whose_memory_was_not_measured_is_taken_for_one_of_its_kind() -> None:
    pi4 = load("pi4")
    assert byte_work.yardstick(pi4) is pi4
    arm = msgspec.structs.replace(pi4, name="local-x", bandwidth=())
    assert byte_work.yardstick(arm).name == "pi5"
    assert byte_work.yardstick(msgspec.structs.replace(arm, architecture="x86_64")).name == "x86-vnni"


def test_copies_are_linear_in_the_bytes() -> None:
    one = byte_work.serialise_ms(HERE, 1000)
    assert byte_work.serialise_ms(HERE, 5000) == pytest.approx(5 * one) and one > 0
