"""What is tried beside the chosen action."""

from __future__ import annotations

import itertools
import math

import pytest

from edgekit_runtime.adaptive import ActionCost, ActionSet, Link, Load, Policy, choose, trials

# A picture on a slow core: quick to send raw, or small.
LOCAL = ActionCost(id="local", kind="local", head_ms=340)
RAW = ActionCost(
    id="raw", kind="offload", offload_fraction=1.0, encode_ms=1.4, bytes_up=200_000, bytes_down=4_000, tail_ms=3
)
JPEG = ActionCost(
    id="jpeg", kind="offload", offload_fraction=1.0, encode_ms=6.0, bytes_up=27_000, bytes_down=4_000, tail_ms=4
)
ACTIONS = ActionSet((LOCAL, RAW, JPEG))


def _raced(mbps: float) -> str | None:
    link = Link(rtt_ms=25, uplink_mbps=mbps, downlink_mbps=10, uplink_spread=0.9, age_s=10.0)
    decision = choose(ACTIONS, link, Load(device_slowdown=2.5, device_wait_ms=100), Policy())
    assert decision.action == "local"
    load = trials.brighter_load(decision.load, math.inf, math.inf)
    place = trials.rival(decision, trials.brighter(link, True, 25.0), load, 0.1)
    return None if place is None else ACTIONS.actions[place].id


def test_a_race_is_run_by_what_may_end_before_it_is_given_up() -> None:
    """200,000 bytes take 15 s where 0.16 Mbit/s are believed; a race of a request of 0.95 s is given up after 9.5 s."""
    assert _raced(0.16) == "jpeg"
    assert _raced(0.3) == "raw"


def test_what_cannot_end_in_time_is_still_tried_where_there_is_nothing_else() -> None:
    assert _raced(0.01) is not None


SMALL = ActionCost(id="small", kind="offload", offload_fraction=1.0, encode_ms=8, bytes_up=1_000, tail_ms=2)
WHOLE = ActionCost(id="whole", kind="offload", offload_fraction=1.0, encode_ms=0.1, bytes_up=10_000, tail_ms=2)
HUGE = ActionCost(id="huge", kind="offload", offload_fraction=1.0, encode_ms=0.05, bytes_up=17_000, tail_ms=2)
HEAD = ActionCost(
    id="head", kind="split", split_point="p", depth=0, head_ms=9, offload_fraction=1.0, bytes_up=9_000, tail_ms=0
)


def _probed(*others: ActionCost, gap_s: float = 0.2, samples: int = 1) -> str | None:
    actions = ActionSet((LOCAL, SMALL, *others))
    decision = choose(actions, Link(rtt_ms=20, uplink_mbps=4), Load(samples=samples), Policy())
    assert decision.action == "small"
    place = trials.larger(decision, gap_s)
    return None if place is None else actions.actions[place].id


def test_a_probe_sends_more_but_not_many_times_more_and_takes_no_more_of_the_device() -> None:
    assert _probed(WHOLE) == "whole"
    assert _probed(HUGE) is None
    assert _probed(WHOLE, HUGE) == "whole"
    assert _probed(HEAD) is None


@pytest.mark.parametrize("gap_s", [0.05, math.inf])
def test_there_is_no_probe_between_quick_requests_and_at_the_first(gap_s) -> None:
    """10,000 bytes hold 4 Mbit/s for 20 ms, a fifth of 100 ms."""
    assert _probed(WHOLE, gap_s=gap_s) is None
    assert _probed(WHOLE, gap_s=0.11) == "whole"


def test_a_probe_has_to_be_quicker_over_a_much_wider_uplink() -> None:
    slow = ActionCost(id="slow", kind="offload", offload_fraction=1.0, encode_ms=7.9, bytes_up=10_000, tail_ms=2)
    assert _probed(slow) is None


def test_trials_pause_longer_while_they_show_nothing_new() -> None:
    budget, now, begun = trials.Budget(1.0, 3.0), 0.0, []
    while now < 30:
        budget.count()
        if budget.open_at(now):
            budget.take(now)
            begun.append(now)
            budget.over(now, other_won=False)
        now += 0.1
    gaps = [later - earlier for earlier, later in itertools.pairwise(begun)]
    assert gaps[0] < 0.6 and gaps[-1] == pytest.approx(3.0, abs=0.11) and sorted(gaps) == pytest.approx(gaps, abs=0.11)
    assert not trials.Budget(0.0, 3.0).open_at(0.0)
