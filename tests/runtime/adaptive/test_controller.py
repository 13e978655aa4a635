"""Hedges, races, pings, failures and a wrong profile."""

from __future__ import annotations

import msgspec
import numpy as np
import pytest

from edgekit_runtime.adaptive import ActionCost, Controller, Link, Outcome, Policy
from edgekit_runtime.adaptive.controller import Settings

LOCAL = ActionCost(id="local", kind="local", head_ms=50, head_sd_ms=2)
OFFLOAD = ActionCost(id="offload", kind="offload", offload_fraction=1.0, bytes_up=10_000, bytes_down=100, tail_ms=2)


def answered(controller: Controller, now_s: float, *, network_ms: float = 20.0, server_ms: float = 2.0) -> None:
    flight = controller.sent(now_s, "offload")
    controller.back(flight)
    controller.observe(
        now_s + network_ms / 1e3,
        Outcome("offload", network_ms=network_ms, bytes_up=10_000, bytes_down=100, queue_ms=0.0, server_ms=server_ms),
    )


def test_a_remote_action_has_a_hedge_and_a_local_one_has_none() -> None:
    controller = Controller((LOCAL, OFFLOAD), Policy())
    for number in range(20):
        answered(controller, number * 0.2)
    plan = controller.plan(4.0)
    assert plan.decision.action == "offload"
    assert plan.hedge_ms is not None and plan.decision.predicted_ms < plan.hedge_ms < 10 * plan.decision.predicted_ms
    for number in range(20):
        answered(controller, 4 + number * 0.2, network_ms=400)
    assert controller.plan(8.0).hedge_ms is None


def test_the_hedge_leaves_the_local_run_its_time_before_the_deadline() -> None:
    controller = Controller((LOCAL, OFFLOAD), Policy(deadline_ms=100))
    for number in range(20):
        answered(controller, number * 0.2, network_ms=40)
        controller.observe(number * 0.2, Outcome("local", device_ms=50.0))
    hedge_ms = controller.plan(4.0).hedge_ms
    assert hedge_ms is not None and 20 < hedge_ms < 100 - 50


def test_an_overdue_answer_makes_the_next_request_local() -> None:
    controller = Controller((LOCAL, OFFLOAD), Policy())
    for number in range(20):
        answered(controller, number * 0.2)
    controller.sent(4.0, "offload")
    assert controller.plan(4.02).decision.action == "offload"
    assert controller.plan(5.0).decision.action == "local"


def test_a_failed_server_is_left_alone_and_tried_again() -> None:
    controller = Controller((LOCAL, OFFLOAD), Policy(), link=Link(rtt_ms=5, uplink_mbps=100))
    for number in range(20):
        answered(controller, number * 0.2, network_ms=6)
    pauses = []
    now = 4.0
    for _ in range(8):
        controller.failed(now, controller.sent(now, "offload"))
        begin = now
        while controller.plan(now).decision.action == "local":
            now += 0.05
        pauses.append(now - begin)
    assert 0.3 < pauses[0] < 0.8
    assert max(pauses) < 30 * 1.25 + 0.1
    assert pauses[-1] > 10 * pauses[0]
    answered(controller, now, network_ms=6)
    assert controller.plan(now + 0.1).decision.action == "offload"


def test_the_pause_a_server_asks_for_is_kept() -> None:
    controller = Controller((LOCAL, OFFLOAD), Policy())
    controller.failed(0.0, controller.sent(0.0, "offload"), retry_after_s=10.0)
    assert controller.plan(7.0).decision.action == "local"


def test_races_are_rare_and_only_where_something_may_be_won() -> None:
    def raced(policy: Policy, mbps: float) -> int:
        controller, count = Controller((LOCAL, OFFLOAD), policy), 0
        for number in range(500):
            now = number * 0.2
            plan = controller.plan(now)
            if plan.race:
                count += 1
                answered(controller, now, network_ms=20 + 80 / mbps)
                controller.race_over(now, other_won=False)
            elif plan.decision.action == "offload":
                answered(controller, now, network_ms=20 + 80 / mbps)
        return count

    assert 3 <= raced(Policy(), 0.2) <= 50
    assert raced(Policy(privacy="local"), 0.2) == 0


def test_nothing_is_pinged_when_nothing_may_leave() -> None:
    assert not Controller((LOCAL, OFFLOAD), Policy(privacy="local")).plan(0.0).ping
    controller = Controller((LOCAL, OFFLOAD), Policy())
    assert controller.plan(0.0).ping
    assert not controller.plan(1.0).ping
    assert controller.plan(6.0).ping
    controller.ponged(6.0, 9.0)
    assert controller.plan(6.1).ping  # the first made the connection
    controller.ponged(6.1, 1.0)
    assert not controller.plan(6.2).ping


@pytest.mark.parametrize("factor", [0.5, 2.0])
def test_a_profile_that_is_wrong_by_two_is_corrected_within_fifty_requests(factor) -> None:
    controller = Controller((LOCAL, OFFLOAD), Policy())
    rng = np.random.default_rng(0)
    for number in range(50):
        controller.observe(number * 0.2, Outcome("local", device_ms=50 * factor * rng.normal(1, 0.05)))
    local = {row.action: row for row in controller.plan(10.0).decision.alternatives}["local"]
    assert local.predicted_ms == pytest.approx(50 * factor, rel=0.1)


def test_a_slow_first_send_does_not_pass_for_a_slow_device() -> None:
    sent = msgspec.structs.replace(OFFLOAD, encode_ms=0.5)
    controller = Controller((LOCAL, sent), Policy())
    controller.observe(0.0, Outcome("offload", device_ms=40.0, network_ms=30.0, bytes_up=15_000, bytes_down=600))
    assert controller.load.read(0.0).device_slowdown == 1.0


def test_the_twin_without_load_sees_none() -> None:
    controller = Controller((LOCAL, OFFLOAD), Policy(), settings=Settings(see_load=False))
    controller.load.see_device(0.9)
    load = controller.plan(0.0).decision.estimates["load"]
    assert load.device_slowdown == 1.0


def test_hedges_that_were_for_nothing_teach_patience_and_an_outage_does_not() -> None:
    controller = Controller((LOCAL, OFFLOAD), Policy())
    for number in range(20):
        answered(controller, number * 0.2)
    before = controller.plan(4.0).hedge_ms
    controller.answered(hedged=True)
    after = controller.plan(4.0).hedge_ms
    assert before is not None and after is not None and after > 1.3 * before
    for _ in range(50):
        controller.answered(hedged=True)
    most = controller.plan(4.0).hedge_ms
    assert most is not None and most <= 3.01 * before  # the net never goes away
    for _ in range(2000):
        controller.answered(hedged=False)
    assert controller.plan(4.0).hedge_ms == pytest.approx(before)


def test_batches_between_single_samples_do_not_change_the_choice_for_those() -> None:
    """Before, a session that was asked for 16 samples at once sent the next single one to a server 20 ms away."""
    quick = msgspec.structs.replace(LOCAL, head_ms=5.0, head_sd_ms=0.2)
    controller = Controller((quick, OFFLOAD), Policy(), link=Link(rtt_ms=20, uplink_mbps=50, downlink_mbps=50))
    for number in range(10):
        controller.observe(number * 0.2, Outcome("local", device_ms=5.0 * 16 * 0.7, samples=16))
        assert controller.plan(number * 0.2).decision.action == "local"
    load = controller.plan(2.0).decision.load
    assert load.device_slowdown == pytest.approx(1.0, rel=0.2) and load.samples == 1


def test_a_request_of_many_samples_is_reckoned_with_all_of_them() -> None:
    link = Link(rtt_ms=20, uplink_mbps=100, downlink_mbps=100)
    controller = Controller((LOCAL, OFFLOAD), Policy(), link=link)
    one, many = controller.plan(0.0, 1).decision, controller.plan(0.0, 8).decision
    local = [next(row for row in each.alternatives if row.action == "local") for each in (one, many)]
    sent = [next(row for row in each.alternatives if row.action == "offload") for each in (one, many)]
    assert local[1].terms_ms["device"] == pytest.approx(8 * local[0].terms_ms["device"])
    assert sent[1].terms_ms["uplink"] == pytest.approx(8 * sent[0].terms_ms["uplink"])
    assert sent[1].terms_ms["round_trip"] == pytest.approx(sent[0].terms_ms["round_trip"])
    assert (sent[0].bytes_up, sent[1].bytes_up) == (10_000, 80_000)
    radio_mj = 8 * (10_000 * 76.7 + 100 * 15.0) * 1e-6  # `Power`: nJ a bit, up and down
    waiting_mj = 2.0 * (sent[1].predicted_ms - sent[0].predicted_ms)
    assert sent[1].energy_mj - sent[0].energy_mj == pytest.approx(7 * radio_mj + waiting_mj)
    assert "8 samples" in many.explain() and "samples" not in one.explain()


def test_the_limit_on_bytes_is_of_the_whole_request() -> None:
    slow = msgspec.structs.replace(LOCAL, head_ms=500.0)
    link = Link(rtt_ms=20, uplink_mbps=100, downlink_mbps=100)
    controller = Controller((slow, OFFLOAD), Policy(max_bytes=20_000), link=link)
    assert controller.plan(0.0, 2).decision.action == "offload"
    refused = controller.plan(0.0, 3).decision
    assert refused.action == "local" and "sends 30000 bytes, 20000 are allowed" in refused.explain()
    assert not controller.plan(9.0, 3).race


def test_the_first_offload_runs_beside_the_local_run_where_that_is_not_long() -> None:
    fast = Controller((LOCAL, OFFLOAD), Policy(), link=Link(rtt_ms=5, uplink_mbps=4))
    plan = fast.plan(0.0)
    assert plan.decision.action == "offload" and plan.hedge_ms == 0.0
    answered(fast, 0.0)
    later = fast.plan(0.2).hedge_ms
    assert later is not None and later > 0
    slow = msgspec.structs.replace(LOCAL, head_ms=500.0)
    patient = Controller((slow, OFFLOAD), Policy(), link=Link(rtt_ms=5, uplink_mbps=20)).plan(0.0)
    assert patient.hedge_ms is not None and patient.hedge_ms > patient.decision.predicted_ms


def _burdened(every_s: float, policy: Policy | None = None) -> Controller:
    """Twenty requests so far apart; one run on the device is under way."""
    controller = Controller((LOCAL, OFFLOAD), policy or Policy())
    for number in range(20):
        controller.plan(number * every_s)
        answered(controller, number * every_s, network_ms=115)
        controller.observe(number * every_s, Outcome("local", device_ms=50.0))
    controller.running(20 * every_s, "local")
    return controller


def test_who_joins_a_queue_that_does_not_drain_pays_for_those_behind() -> None:
    full, idle = _burdened(0.05).plan(1.0).decision, _burdened(0.5).plan(10.0).decision
    assert 0.5 < full.load.device_wait_ms / 50 < 2 and full.load.device_price > 1
    assert (
        full.action == "offload"
    )  # 115 ms on the network; a run takes 100 with its wait, and holds up all that follow
    assert idle.load.device_wait_ms > 0 and idle.load.device_price == 0
    assert idle.action == "local"
    assert "for those who wait behind" in full.explain() and "wait behind" not in idle.explain()


def test_a_full_device_keeps_the_pauses_between_races_when_an_answer_is_overdue() -> None:
    for every_s, anew in ((0.05, False), (0.5, True)):
        controller = _burdened(every_s)
        for _ in range(6):
            controller.race_over(20 * every_s, other_won=False)
        before = controller._races.pause_s
        controller.gave_up(20 * every_s + 5.0, controller.sent(20 * every_s, "offload"))
        assert (controller._races.pause_s < before) is anew


def test_the_price_grows_with_the_queue_and_keeps_out_of_deadlines() -> None:
    controller = _burdened(0.05)
    early, late = controller._price(controller.load.read(1.0), 5.0), controller._price(controller.load.read(1.0), 25.0)
    assert 0 < early < late
    assert _burdened(0.05, Policy(deadline_ms=100)).plan(1.0).decision.load.device_price == 0
    assert _burdened(0.05, Policy(objective="energy")).plan(1.0).decision.load.device_price == 0


SMALL = ActionCost(
    id="small", kind="offload", offload_fraction=1.0, encode_ms=8, bytes_up=1_000, bytes_down=100, tail_ms=2
)
SLOW = msgspec.structs.replace(LOCAL, head_ms=500.0)


def _days(controller: Controller, mbps: float, requests: int = 100, every_s: float = 0.2) -> tuple[list[str], int]:
    """Requests over a link of 20 ms that never changes: the actions chosen, and how many probes went out."""
    chosen, probes = [], 0
    for number in range(requests):
        now = number * every_s
        plan = controller.plan(now)
        chosen.append(plan.decision.action)
        for name in filter(None, (plan.decision.action, plan.probe)):
            row = controller.actions[name]
            if row.leaves:
                ms = 20 + row.bytes_up * 8e-3 / mbps
                controller.back(controller.sent(now, name))
                controller.observe(
                    now + ms / 1e3,
                    Outcome(name, network_ms=ms, bytes_up=row.bytes_up, bytes_down=100, queue_ms=0.0, server_ms=2.0),
                )
        probes += bool(plan.probe)
    return chosen, probes


def test_a_wide_uplink_that_small_requests_do_not_show_is_found_by_probes() -> None:
    blind, _ = _days(Controller((SLOW, SMALL, OFFLOAD), Policy(), settings=Settings(probe_fraction=0.0)), 200)
    found, probes = _days(Controller((SLOW, SMALL, OFFLOAD), Policy()), 200)
    assert blind.count("offload") == 0
    assert found[-50:].count("offload") == 50
    assert 1 <= probes <= 10


def test_probes_over_a_narrow_uplink_are_rare_and_change_nothing() -> None:
    chosen, probes = _days(Controller((SLOW, SMALL, OFFLOAD), Policy()), 4, requests=300)
    assert set(chosen) == {"small"} and 1 <= probes <= 60 / 3 + 6


@pytest.mark.parametrize("policy", [Policy(objective="energy"), Policy(max_bytes=50_000), Policy(without=("offload",))])
def test_nothing_is_probed_where_bytes_count_or_the_larger_form_is_closed(policy) -> None:
    assert _days(Controller((SLOW, SMALL, OFFLOAD), policy), 200)[1] == 0


def test_a_probe_never_holds_the_uplink_for_long() -> None:
    """10,000 bytes take 16 ms of the 5 Mbit/s that are believed at first: 10 ms between requests are no room."""
    assert _days(Controller((SLOW, SMALL, OFFLOAD), Policy()), 5, every_s=0.01)[1] == 0


def _after(silence_s: float, requests: int) -> float | None:
    """The hedge of an offload after a silence in which so many requests came."""
    controller = Controller((LOCAL, OFFLOAD), Policy())
    for number in range(20):
        answered(controller, number * 0.2)
    for number in range(requests):
        controller.plan(4.0 + silence_s * number / requests)
    plan = controller.plan(4.0 + silence_s)
    assert plan.decision.action == "offload"
    return plan.hedge_ms


def test_the_offload_after_a_long_silence_runs_beside_the_local_run() -> None:
    assert _after(6.0, requests=20) == 0.0
    assert _after(1.0, requests=20) != 0.0
    assert _after(6.0, requests=0) != 0.0  # requests that are rare are no silence
