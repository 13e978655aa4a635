"""What is learned of the bytes that messages really take, and what prices make of it."""

from __future__ import annotations

import math
import random

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgekit_runtime.adaptive import ActionCost, ActionSet, Link, Load, Policy, choose
from edgekit_runtime.adaptive import costs as cost_model
from edgekit_runtime.adaptive.shares import Running, Shares, learned
from edgekit_runtime.adaptive.state import Share
from edgekit_runtime.errors import UsageError
from tests.runtime.adaptive.strategies import actions, links, loads

LOCAL = ActionCost(id="local", kind="local", head_ms=50, head_sd_ms=2)
PACKED = ActionCost(id="offload:zstd", kind="offload", offload_fraction=1.0, bytes_up=10_000, bytes_down=400, tail_ms=2)
PLAIN = ActionCost(id="offload", kind="offload", offload_fraction=1.0, bytes_up=12_000, bytes_down=400, tail_ms=2)
ALL = ActionSet((LOCAL, PACKED, PLAIN))

some_share = st.floats(0.001, 20)
spreads = st.floats(0, 2)


def after(shares) -> Running:
    known = Running()
    for share in shares:
        known = learned(known, share)
    return known


@given(some_share)
def test_the_share_of_requests_that_are_alike_is_learned(share) -> None:
    known = after([share] * 60)
    assert math.exp(known.log) == pytest.approx(share, rel=0.02)
    assert math.sqrt(known.variance) < 0.3


@given(some_share)
def test_one_request_outweighs_what_was_declared(share) -> None:
    assert abs(after([share]).log - math.log(share)) <= 0.5 * abs(math.log(share)) + 1e-12


@given(st.lists(some_share, min_size=1, max_size=11), st.randoms(use_true_random=False))
def test_the_order_of_requests_does_not_matter_while_nothing_was_forgotten(shares, rng: random.Random) -> None:
    mixed = list(shares)
    rng.shuffle(mixed)
    one, other = after(shares), after(mixed)
    assert one.log == pytest.approx(other.log, abs=1e-9)
    assert one.variance == pytest.approx(other.variance, abs=1e-9)


@given(st.lists(some_share, max_size=60))
def test_a_share_lies_between_what_was_declared_and_what_was_sent(shares) -> None:
    known = after(shares)
    assert math.log(min([1.0, *shares])) - 1e-9 <= known.log <= math.log(max([1.0, *shares])) + 1e-9
    assert known.variance >= 0


@given(st.lists(some_share, min_size=30, max_size=60))
def test_expected_bytes_are_no_fewer_than_were_ever_sent_and_at_most_twice_the_most(shares) -> None:
    """A spread counts at most as one, so that the mean is at most exp(0.5) times the median."""
    known = after(shares)
    mean, _ = cost_model.mean_and_variance(math.exp(known.log), math.sqrt(known.variance))
    assert min([1.0, *shares]) * (1 - 1e-9) <= mean <= 2 * max([1.0, *shares])


def test_what_was_long_ago_is_forgotten() -> None:
    assert math.exp(after([0.02] * 100 + [0.8] * 60).log) == pytest.approx(0.8, rel=0.03)


def test_one_odd_request_among_many_hardly_counts() -> None:
    assert math.exp(after([0.05] * 100 + [1.0]).log) < 0.07


def test_nothing_is_told_where_messages_are_as_declared() -> None:
    shares = Shares(ALL)
    for _ in range(50):
        shares.sent("offload:zstd", 1, 10_000)
        shares.received("offload:zstd", 1, 400)
        shares.sent("offload", 2, 2 * 12_100)  # within what prices may be wrong by
        shares.sent("local", 1, 5)  # never sends; nothing to compare with
    assert shares.told == ()


def test_what_is_told_is_told_once_and_by_the_sample() -> None:
    shares = Shares(ALL)
    for _ in range(60):
        shares.sent("offload:zstd", 4, 4 * 500)
    (told,) = shares.told
    assert told.action == "offload:zstd" and told.down == 1.0
    assert told.up == pytest.approx(0.05, rel=0.1)
    shares.sent("offload:zstd", 1, 500)
    assert shares.told[0] is told
    for _ in range(30):
        shares.sent("offload:zstd", 1, 9_000)
    assert shares.told[0].up > 0.5
    assert all(action in {"offload:zstd"} for action in (share.action for share in shares.told))


def test_prices_are_made_of_the_bytes_that_are_sent() -> None:
    link = Link(rtt_ms=10, uplink_mbps=2, downlink_mbps=1e6)
    assert choose(ALL, link, Load(), Policy()).action == "local"  # 40 ms for 10 KB
    load = Load(shares=(Share(action="offload:zstd", up=0.05),))
    found = choose(ALL, link, load, Policy())
    assert found.action == "offload:zstd"
    assert found.predicted_ms == pytest.approx(10 + 0.05 * 10_000 * 8e-3 / 2 + 2)
    assert found.alternatives[0].bytes_up == 500
    radio = ALL.energy[1, -1]
    assert found.actions.energy[1, -1] < 0.2 * radio and found.actions.energy[2, -1] == ALL.energy[2, -1]


@given(actions(), links, loads, st.floats(0.01, 1), spreads)
def test_fewer_bytes_never_make_the_predicted_time_longer(rows, link, load, factor, spread) -> None:
    ids = [row.id for row in rows if row.leaves and row.bytes_up]

    def at(share: float) -> float:
        told = tuple(Share(action=name, up=share, up_spread=spread) for name in ids)
        return choose(rows, link, Load(**{**_fields(load), "shares": told}), Policy()).predicted_ms

    one_byte_ms = 8e-3 / link.uplink_mbps * 2  # bytes are whole numbers
    assert at(factor) <= at(1.0) * (1 + 1e-9) + one_byte_ms


@given(actions(), links, loads, some_share, spreads, some_share, spreads)
def test_with_shares_too_the_figures_of_one_action_are_those_of_all(rows, link, load, up, up_sd, down, down_sd) -> None:
    told = tuple(Share(action=row.id, up=up, up_spread=up_sd, down=down, down_spread=down_sd) for row in rows[1::2])
    sending = ActionSet(rows).sending(told)
    theta, theta_variance = cost_model.state(link, load)
    times, spread2 = sending.terms @ theta, cost_model.variance(sending, theta, theta_variance)
    levels = cost_model.levels(link, load)
    for place in range(len(rows)):
        assert cost_model.mean_of(sending.rows[place], levels[0]) == pytest.approx(times[place], rel=1e-9)
        one = cost_model.variance_of(sending, place, *levels)
        assert one == pytest.approx(spread2[place], rel=1e-9, abs=1e-9)


def test_the_variance_is_that_of_bytes_and_bandwidth_drawn_apart() -> None:
    link, share = (
        Link(rtt_ms=0.0, uplink_mbps=4, uplink_spread=0.4),
        Share(action="offload:zstd", up=0.2, up_spread=0.5),
    )
    found = choose(ALL, link, Load(shares=(share,)), Policy(without=("offload", "local")))
    rng = np.random.default_rng(0)
    drawn = 0.2 * 10_000 * 8e-3 / 4 * rng.lognormal(0, 0.4, 400_000) * rng.lognormal(0, 0.5, 400_000)
    down_ms = 400 * 8e-3 / link.downlink_mbps
    mean, spread2 = found.moments(1)
    # 400,000 draws: the standard error of the mean is 0.1 %, of the variance about 1 %.
    assert mean == pytest.approx(drawn.mean() + down_ms + 2, rel=0.01)
    assert spread2 == pytest.approx(drawn.var(), rel=0.06)


def test_a_limit_on_bytes_is_kept_by_what_was_declared_and_by_what_was_sent() -> None:
    link = Link(rtt_ms=1, uplink_mbps=1000, downlink_mbps=1000)
    fewer, more = (Load(shares=(Share(action="offload:zstd", up=up),)) for up in (0.1, 1.5))
    assert choose(ALL, link, fewer, Policy(max_bytes=9_000)).action == "local"  # never more on a guess
    assert choose(ALL, link, Load(), Policy(max_bytes=11_000)).action == "offload:zstd"
    found = choose(ALL, link, more, Policy(max_bytes=11_000))
    assert found.action == "local" and "sends 15000 bytes, 11000 are allowed" in found.explain()


def test_a_decision_tells_the_share_where_it_differs() -> None:
    shares = (Share(action="offload:zstd", up=0.07, up_spread=0.2), Share(action="offload", up=1.03))
    found = choose(ALL, Link(), Load(shares=shares), Policy())
    assert "offload:zstd was seen to take x0.07 of its declared bytes up (give or take 22%)" in found.explain()
    assert (
        "offload was seen" not in found.explain() and "was seen" not in choose(ALL, Link(), Load(), Policy()).explain()
    )
    assert found.document()["estimates"]["load"]["shares"][0]["up"] == 0.07


def test_a_set_with_shares_goes_back_to_what_was_declared() -> None:
    told = (Share(action="offload", up=0.5),)
    sending = ALL.sending(told)
    assert sending.sending(told) is sending is ALL.sending(told)
    assert sending.sending(()) is ALL
    assert sending["offload"].bytes_up == 6_000 and ALL["offload"].bytes_up == 12_000
    with pytest.raises(UsageError, match="no action 'gone'"):
        ALL.sending((Share(action="gone"),))


def _fields(load: Load) -> dict[str, object]:
    return {name: getattr(load, name) for name in load.__struct_fields__}
