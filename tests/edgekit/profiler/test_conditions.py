from __future__ import annotations

import re

import pytest

from edgekit.profiler.conditions import Seen, reasons


def test_a_quiet_machine_gives_no_reason():
    assert reasons(Seen(clocks_mhz=[2400, 2410], claimed_mhz=2400, temperature_c=50, load_before=0.2, cores=4)) == ()


def test_what_a_machine_does_not_tell_gives_no_reason():
    assert reasons(Seen()) == ()


@pytest.mark.parametrize(
    ("seen", "words"),
    [
        (Seen(throttled=True), "throttled"),
        (Seen(clocks_mhz=[1000, 1010], claimed_mhz=1500), "1010 MHz where 1500 are claimed"),
        (Seen(clocks_mhz=[1500, 1800], claimed_mhz=1800, governor="ondemand"), "moved between 1500 and 1800.*ondemand"),
        (Seen(temperature_c=86.0), "86 °C"),
        (Seen(load_before=5.0, cores=4), "load was 5.0 on 4 cores"),
        (Seen(switches_per_s=500.0), "interrupted 500 times"),
        (Seen(page_ins_per_s=50.0), "read back from disk"),
        (Seen(swapped=True), "swapped"),
    ],
)
def test_each_disturbance_is_named(seen: Seen, words: str):
    (found,) = reasons(seen)
    assert re.search(words, found)


def test_turbo_above_the_claimed_clock_is_no_disturbance():
    assert reasons(Seen(clocks_mhz=[3670, 3680], claimed_mhz=2600)) == ()


def test_a_steady_governor_is_not_blamed():
    (found,) = reasons(Seen(clocks_mhz=[1500, 1800], governor="performance"))
    assert "governor" not in found
