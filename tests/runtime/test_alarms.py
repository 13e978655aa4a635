"""Alarms ring at their time, in order, and not when they were switched off."""

from __future__ import annotations

import threading
import time

import pytest

from edgekit_runtime.remote.alarms import Alarms

pytestmark = pytest.mark.alone


def test_alarms_ring_in_the_order_of_their_times_and_not_before() -> None:
    alarms, rang, done = Alarms(), [], threading.Event()
    start = time.perf_counter()

    def ring(name: str) -> None:
        rang.append((name, time.perf_counter() - start))
        if len(rang) == 3:
            done.set()

    for name, due in (("late", 0.15), ("now", -1.0), ("soon", 0.05)):  # the last one is earlier than the thread's sleep
        alarms.at(start + due, lambda name=name: ring(name))
    assert done.wait(10)
    assert [name for name, _ in rang] == ["now", "soon", "late"]
    assert rang[1][1] >= 0.05 and rang[2][1] >= 0.15
    alarms.close()


def test_what_was_switched_off_does_not_ring_and_holds_nothing() -> None:
    alarms, rang, done = Alarms(), [], threading.Event()
    now = time.perf_counter()
    offs = [alarms.at(now + 0.02, lambda: rang.append(1)) for _ in range(100)]
    for alarm in offs:
        alarm.off()
        assert alarm._call is None
    alarms.at(now + 0.04, done.set)
    assert done.wait(10) and rang == []
    alarms.close()


def test_after_closing_nothing_rings() -> None:
    alarms, rang = Alarms(), []
    alarms.at(time.perf_counter() + 0.05, lambda: rang.append(1))
    alarms.close()
    alarms.at(time.perf_counter(), lambda: rang.append(2))
    time.sleep(0.1)
    assert rang == []
