"""What others take of this device, seen from a process that may use some cores only."""

from __future__ import annotations

import os
from collections import namedtuple

import psutil
import pytest

from edgekit_runtime.remote import probe
from edgekit_runtime.remote.probe import SystemProbe

Times = namedtuple("Times", "user system idle iowait guest guest_nice")
ALL = 4


class Fake:
    """A machine with four cores whose counters are set by hand; `allowed` is the affinity of the process."""

    def __init__(self, allowed: list[int]) -> None:
        self.allowed, self.user, self.own, self.now = allowed, [0.0] * ALL, 0.0, 0.0

    def cpu_affinity(self) -> list[int]:
        return self.allowed

    def of(self, percpu: bool = False):
        each = [Times(user, 0.0, 0.0, 0.0, 0.0, 0.0) for user in self.user]
        return each if percpu else Times(sum(self.user), 0.0, 0.0, 0.0, 0.0, 0.0)

    def cpu_times(self):
        return namedtuple("Own", "user system")(self.own, 0.0)

    def pass_second(self, busy: list[float], own: float = 0.0) -> None:
        self.now += 1.0
        self.user = [user + more for user, more in zip(self.user, busy, strict=True)]
        self.own += own


@pytest.fixture
def machine(monkeypatch):
    def make(allowed: list[int]) -> Fake:
        fake = Fake(allowed)
        monkeypatch.setattr(psutil, "Process", lambda: fake)
        monkeypatch.setattr(psutil, "cpu_times", fake.of)
        monkeypatch.setattr(psutil, "cpu_count", lambda: ALL)
        monkeypatch.setattr(os, "cpu_count", lambda: ALL)
        monkeypatch.setattr(probe.time, "monotonic", lambda: fake.now)
        return fake

    return make


def test_a_process_on_one_core_feels_who_else_is_there_though_three_are_free(machine):
    fake = machine([2])
    seen = SystemProbe(threads=1)
    fake.pass_second([0.0, 0.0, 0.8, 0.0], own=0.2)
    assert seen.read()[0] == pytest.approx(0.6)


def test_work_on_cores_it_may_not_use_does_not_slow_it(machine):
    fake = machine([2, 3])
    seen = SystemProbe(threads=1)
    fake.pass_second([1.0, 1.0, 0.3, 0.2])
    assert seen.read()[0] == 0.0


def test_with_all_cores_open_the_free_ones_count(machine):
    fake = machine([0, 1, 2, 3])
    seen = SystemProbe(threads=2)
    fake.pass_second([1.0, 0.5, 0.5, 1.0])
    assert seen.read()[0] == pytest.approx(0.5)


def test_more_threads_than_allowed_cores_are_no_more_cores(machine):
    fake = machine([1])
    seen = SystemProbe(threads=4)
    fake.pass_second([0.0, 0.5, 0.0, 0.0])
    assert seen.read()[0] == pytest.approx(0.5)
