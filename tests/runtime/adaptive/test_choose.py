"""The laws of a choice."""

from __future__ import annotations

import math

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgekit_runtime.adaptive import ActionCost, ActionSet, Link, Load, Policy, choose
from edgekit_runtime.adaptive import costs as cost_model
from edgekit_runtime.adaptive.state import parse_policy
from edgekit_runtime.errors import UsageError
from tests.runtime.adaptive.strategies import actions, links, loads, policies

LOCAL = ActionCost(id="local", kind="local", head_ms=50, head_sd_ms=2)
OFFLOAD = ActionCost(id="offload", kind="offload", offload_fraction=1.0, bytes_up=10_000, bytes_down=100, tail_ms=2)
SPLIT = ActionCost(
    id="split", kind="split", head_ms=10, offload_fraction=1.0, bytes_up=5_000, tail_ms=2, split_point="p", depth=3
)


@given(actions(), links, loads, st.sampled_from(("latency", "energy", "server_cost")))
def test_the_chosen_action_is_never_worse_than_all_local(rows, link, load, objective) -> None:
    found = choose(rows, link, load, Policy(objective=objective))
    rows_by_name = {row.action: row for row in found.alternatives}
    chosen, local = rows_by_name[found.action], rows_by_name["local"]
    if objective == "latency":
        assert chosen.predicted_ms <= local.predicted_ms * (1 + 1e-9)
    elif objective == "energy":
        assert chosen.energy_mj <= local.energy_mj * (1 + 1e-9)
    else:
        assert found.action == "local" or found.actions[found.action].server_macs == 0


@given(actions(), links, loads, st.floats(1, 100))
def test_more_bandwidth_never_makes_the_predicted_time_longer(rows, link, load, factor) -> None:
    better = msgspec.structs.replace(
        link, uplink_mbps=link.uplink_mbps * factor, downlink_mbps=link.downlink_mbps * factor
    )
    before, after = (choose(rows, seen, load, Policy()).predicted_ms for seen in (link, better))
    assert after <= before * (1 + 1e-9)


@given(actions(), links, loads, st.floats(1, 10))
def test_a_slower_server_never_makes_more_requests_leave(rows, link, load, factor) -> None:
    slower = msgspec.structs.replace(load, server_slowdown=load.server_slowdown * factor)
    before, after = (choose(rows, link, seen, Policy()) for seen in (load, slower))
    assert after.predicted_ms >= before.predicted_ms * (1 - 1e-9)
    if before.kind == "local":
        assert after.kind == "local"


@given(actions(), links, loads, policies)
def test_what_the_policy_forbids_is_never_chosen(rows, link, load, policy) -> None:
    found = choose(rows, link, load, policy)
    chosen = found.actions[found.action]
    if chosen.leaves:
        assert policy.privacy != "local"
        assert not isinstance(policy.privacy, int) or chosen.depth >= policy.privacy
        assert policy.max_bytes is None or chosen.bytes_up <= policy.max_bytes
    if policy.max_risk is not None and found.place != found.actions.fallback:
        assert chosen.accuracy_drop is not None and chosen.accuracy_drop <= policy.max_risk


@given(actions(), links, loads, policies)
def test_every_decision_explains_each_alternative(rows, link, load, policy) -> None:
    found = choose(rows, link, load, policy)
    alternatives = found.alternatives
    assert sorted(row.action for row in alternatives) == sorted(row.id for row in rows)
    assert alternatives[0].verdict == "chosen" and alternatives[0].action == found.action
    assert all(row.why and row.verdict in ("lost", "late", "forbidden") for row in alternatives[1:])
    assert all(row.action in found.explain() for row in alternatives)
    low, high = found.interval_ms
    assert low <= high
    assert math.isclose(sum(alternatives[0].terms_ms.values()), found.predicted_ms, rel_tol=1e-9, abs_tol=1e-9)


@given(actions(), links, loads, policies)
def test_the_same_arguments_give_the_same_choice(rows, link, load, policy) -> None:
    assert choose(rows, link, load, policy).action == choose(ActionSet(rows), link, load, policy).action


@given(actions(), links, loads)
def test_the_figures_of_one_action_are_those_of_all(rows, link, load) -> None:
    compiled = ActionSet(rows)
    theta, theta_variance = cost_model.state(link, load)
    times, spread2 = compiled.terms @ theta, cost_model.variance(compiled, theta, theta_variance)
    margins = cost_model.margin(times, spread2, 100.0)
    for place in range(len(rows)):
        one = cost_model.variance_of(compiled, place, theta, theta_variance)
        assert one == pytest.approx(spread2[place], rel=1e-9, abs=1e-9)
        assert cost_model.margin_of(times[place], one, 100.0) == pytest.approx(margins[place], rel=1e-6, abs=1e-6)


def test_a_deadline_prefers_the_sure_action_to_the_faster_mean() -> None:
    shaky = Link(rtt_ms=20, uplink_mbps=5, uplink_spread=0.9)
    assert choose((LOCAL, OFFLOAD), shaky, Load(), Policy()).action == "offload"
    sure = choose((LOCAL, OFFLOAD), shaky, Load(), Policy(deadline_ms=60, miss_probability=0.01))
    assert sure.action == "local"
    assert sure.alternatives[1].verdict == "late"


def test_where_nothing_keeps_the_deadline_the_least_likely_miss_wins() -> None:
    found = choose((LOCAL, OFFLOAD), Link(rtt_ms=20, uplink_mbps=8), Load(), Policy(deadline_ms=5))
    assert found.action == "offload"
    assert "misses least" in found.explain()


def test_nothing_leaves_over_a_dead_link() -> None:
    assert choose((LOCAL, OFFLOAD, SPLIT), Link(uplink_mbps=0.0), Load(device_slowdown=20), Policy()).action == "local"


def test_a_dead_link_is_told_in_words_and_not_as_an_hour() -> None:
    rest = msgspec.structs.replace(SPLIT, id="exit:0.01:split:p", kind="exit", offload_fraction=0.2)
    found = choose((LOCAL, OFFLOAD, rest), Link(uplink_mbps=0.0, downlink_mbps=0.0), Load(), Policy())
    told = found.explain()
    assert found.action == "local" and told.count("nothing gets through to the server") == 3  # the link and two actions
    assert "lost: offload (never)" in told and "lost: exit:0.01:split:p (never)" in told
    assert "3600" not in told and "Mbit/s" not in told and "ms slower" not in " ".join(found.reasons)


def test_privacy_by_split_point_lets_deeper_tensors_out() -> None:
    link = Link(rtt_ms=5, uplink_mbps=100)
    assert choose((LOCAL, OFFLOAD, SPLIT), link, Load(), Policy(privacy="p")).action == "split"
    with pytest.raises(UsageError, match="'q'"):
        choose((LOCAL, OFFLOAD, SPLIT), link, Load(), Policy(privacy="q"))


def test_a_low_battery_makes_energy_the_objective() -> None:
    policy = Policy(objective="accuracy", min_battery=0.3)
    cheap = ActionCost(id="small", kind="variant", head_ms=5, accuracy_drop=0.01)
    assert choose((LOCAL, cheap), Link(), Load(battery_fraction=0.9), policy).action == "local"
    assert choose((LOCAL, cheap), Link(), Load(battery_fraction=0.1), policy).action == "small"


def test_an_exit_chain_that_sends_the_rest_costs_its_share() -> None:
    chain = ActionCost(
        id="chain", kind="exit", head_ms=10, offload_fraction=0.25, bytes_up=10_000, tail_ms=8, split_point="p", depth=0
    )
    found = choose((LOCAL, chain), Link(rtt_ms=20, uplink_mbps=8), Load(), Policy())
    assert found.predicted_ms == pytest.approx(10 + 0.25 * (20 + 10 + 8))


def test_a_miss_has_the_probability_of_the_lognormal_with_these_moments() -> None:
    mean, deadline = 40.0, 60.0
    margin = cost_model.margin(np.array([mean]), np.array([15.0**2]), deadline)[0]
    rng = np.random.default_rng(0)
    spread2 = math.log1p(15.0**2 / mean**2)
    drawn = rng.lognormal(math.log(mean) - spread2 / 2, math.sqrt(spread2), 400_000)
    # 400,000 draws: three standard errors are 0.0013 at this probability.
    assert cost_model.miss_probability(margin) == pytest.approx(np.mean(drawn > deadline), abs=0.0015)
    assert cost_model.quantile_ms(mean, 15.0**2, 2.33) == pytest.approx(np.quantile(drawn, 0.99), rel=0.01)


@pytest.mark.parametrize(
    ("rows", "told"),
    [
        ((OFFLOAD,), "no action stays"),
        ((LOCAL, LOCAL), "twice"),
        ((LOCAL, ActionCost(id="x", kind="split", tail_ms=math.nan)), "tail_ms"),
        ((LOCAL, ActionCost(id="x", kind="split", bytes_up=-1)), "bytes_up"),
        ((LOCAL, ActionCost(id="x", kind="split", offload_fraction=1.5)), "offload_fraction"),
    ],
)
def test_impossible_actions_are_refused_with_the_reason(rows, told) -> None:
    with pytest.raises(UsageError, match=told):
        ActionSet(rows)


@pytest.mark.parametrize(
    "keys",
    [
        {"objective": "speed"},
        {"deadline_ms": 0.0},
        {"miss_probability": 2.0},
        {"max_risk": -1.0},
        {"min_battery": 3.0},
        {"deadline": 5.0},
        {"max_bytes": "many"},
    ],
)
def test_a_policy_that_makes_no_sense_is_refused(keys) -> None:
    with pytest.raises(UsageError):
        parse_policy(keys)


def test_an_unknown_policy_key_is_named_with_the_known_ones() -> None:
    with pytest.raises(UsageError, match=r"'deadlin'.*\n.*deadline_ms"):
        parse_policy({"deadlin": 5.0})


def test_an_action_that_is_switched_off_is_never_chosen_and_one_that_does_not_exist_is_refused() -> None:
    fast = Link(rtt_ms=1, uplink_mbps=1000, downlink_mbps=1000)
    assert choose((LOCAL, OFFLOAD, SPLIT), fast, Load(), Policy()).action == "offload"
    found = choose((LOCAL, OFFLOAD, SPLIT), fast, Load(), parse_policy({"without": ("offload", "local")}))
    assert found.action == "split" and "switched off" in found.explain()
    assert found.policy.without == ("offload", "local")  # and the local run stays as the net, though not wanted
    with pytest.raises(UsageError, match="no such action"):
        choose((LOCAL, OFFLOAD), fast, Load(), Policy(without=("offlaod",)))
