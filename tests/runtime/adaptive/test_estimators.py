"""What the estimators believe after real (here: simulated) requests."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgekit_runtime.adaptive.estimators import LinkEstimator, LoadEstimator

SIZES = (0, 500, 2_000, 20_000, 80_000)


def fed(rtt_ms: float, mbps: float, n: int, *, start_s: float = 0.0, into: LinkEstimator | None = None, seed: int = 0):
    rng = np.random.default_rng(seed)
    link = into or LinkEstimator()
    for number in range(n):
        size = SIZES[number % len(SIZES)]
        took = rtt_ms + size * 8e-3 / mbps
        link.see(start_s + number * 0.2, took * rng.normal(1, 0.05), size, 200 if size else 0)
    return link


@settings(max_examples=30)
@given(st.floats(2, 200), st.floats(0.5, 200))
def test_round_trip_and_bandwidth_are_told_apart_by_requests_of_mixed_sizes(rtt_ms, mbps) -> None:
    link = fed(rtt_ms, mbps, 60).read(12.0)
    for size in SIZES:
        believed = link.rtt_ms + size * 8e-3 / link.uplink_mbps
        # 5 % of noise a request; 20 % is what a choice can stand.
        assert believed == pytest.approx(rtt_ms + size * 8e-3 / mbps, rel=0.2)


def test_a_change_of_the_link_is_believed_within_three_requests() -> None:
    link = fed(20, 20, 40)
    fed(20, 1.0, 4, start_s=8.0, into=link)
    assert link.read(8.8).uplink_mbps == pytest.approx(1.0, rel=0.35)


def test_an_estimate_grows_less_sure_with_age_and_returns_to_its_long_run_level() -> None:
    link = fed(20, 20, 200)
    fed(20, 0.5, 4, start_s=40.0, into=link)
    fresh, stale = link.read(40.8), link.read(140.0)
    assert fresh.age_s == pytest.approx(0.2) and stale.age_s == pytest.approx(99.4)
    assert stale.uplink_spread > fresh.uplink_spread
    assert stale.uplink_mbps > 3 * fresh.uplink_mbps


def test_nothing_is_known_before_the_first_request() -> None:
    link = LinkEstimator().read(5.0)
    assert link.age_s is None
    assert link.uplink_spread > 1.0


def test_a_stall_is_not_taken_for_a_longer_way() -> None:
    link = fed(20, 20, 40)
    link.see(8.2, 5_000.0, 2_000, 200)
    assert link.read(8.3).rtt_ms < 40


def test_utilisation_shows_at_once_and_a_wrong_profile_is_corrected() -> None:
    load = LoadEstimator()
    for number in range(20):
        load.see_local_run(number * 0.2, 2.0)
    assert load.read(4.0).device_slowdown == pytest.approx(2.0, rel=0.05)
    load.see_device(0.5)
    assert load.read(4.0).device_slowdown == pytest.approx(4.0, rel=0.05)


def test_queue_and_service_of_the_server_are_kept_apart() -> None:
    load = LoadEstimator()
    for number in range(10):
        load.see_reply(number * 0.2, queue_ms=30.0, ratio=3.0)
    seen = load.read(2.0)
    assert seen.queue_ms == pytest.approx(30, rel=0.1)
    assert seen.server_slowdown == pytest.approx(3, rel=0.1)


def test_one_slow_empty_request_is_doubted_and_two_are_a_longer_way() -> None:
    link = fed(20, 20, 40)
    link.see(8.2, 900.0, 0, 0)
    assert link.doubts and link.read(8.3).rtt_ms < 40
    link.see(8.4, 20.0, 0, 0)
    assert not link.doubts and link.read(8.5).rtt_ms < 40
    link.see(8.6, 120.0, 0, 0)
    link.see(8.8, 120.0, 0, 0)
    assert not link.doubts and link.read(8.9).rtt_ms > 80


def test_the_first_empty_request_makes_the_connection_and_is_doubted() -> None:
    link = LinkEstimator()
    link.see(0.0, 6.5, 0, 0)
    assert link.doubts and link.read(0.1).rtt_ms < 10  # better than nothing
    link.see(0.1, 0.8, 0, 0)
    assert not link.doubts
    assert link.read(0.2).rtt_ms == pytest.approx(0.8, rel=0.2) and link.usual_rtt_ms == pytest.approx(0.8, rel=0.2)


@pytest.mark.parametrize("gain", [1.0, 0.6])
def test_a_batch_is_no_slow_device(gain: float) -> None:
    """Sixteen samples in one run take up to sixteen times as long; that says nothing of the load."""
    load = LoadEstimator()
    for number in range(40):
        load.see_local_run(number * 0.2, 16 * gain if number % 2 else 1.0, samples=16 if number % 2 else 1)
    now = 8.0
    assert load.read(now).device_slowdown == pytest.approx(1.0, rel=0.1)
    assert load.read(now, 16).device_work == pytest.approx(16 * gain, rel=0.15)
    assert load.read(now).device_work == 1.0


def test_a_device_that_only_sees_batches_is_not_taken_for_a_slow_one() -> None:
    load = LoadEstimator()
    for number in range(40):
        load.see_local_run(number * 0.2, 32.0, samples=32)
        load.see_reply(number * 0.2, 0.0, 32.0, samples=32)
    assert load.read(8.0).device_slowdown == pytest.approx(1.0, rel=0.1)
    assert load.read(8.0).server_slowdown == pytest.approx(1.0, rel=0.1)
    whole = load.read(8.0, 32)
    assert whole.device_slowdown * whole.device_work == pytest.approx(32.0, rel=0.1)


def test_a_burden_shows_in_batches_too() -> None:
    load = LoadEstimator()
    for number in range(40):
        load.see_local_run(number * 0.2, 8 * 0.7, samples=8)
        load.see_local_run(number * 0.2 + 0.1, 1.0)
    work = load.read(8.0, 8).device_work
    for number in range(3):
        load.see_local_run(8.0 + number * 0.2, 4 * 8 * 0.7, samples=8)
    assert load.read(8.6).device_slowdown > 2.5
    assert load.read(8.6, 8).device_work == pytest.approx(work, rel=0.25)
