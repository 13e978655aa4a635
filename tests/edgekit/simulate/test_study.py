"""The adaptive policy against those it has to beat, on small days."""

from __future__ import annotations

import dataclasses
import json

import numpy as np
import pytest

from edgekit.simulate import Setting, simulate
from edgekit.simulate.engine import Simulation, latencies_ms
from edgekit.simulate.page import page
from edgekit.simulate.policies import NAMES, Adaptive, Fixed, Move
from edgekit.simulate.traces import LoadTrace, Series, Trace, constant
from edgekit.simulate.world import Chance, day
from edgekit_runtime.adaptive import ActionCost, ActionSet, Controller, Policy

LOCAL = ActionCost(id="local", kind="local", head_ms=60, head_sd_ms=2)
OFFLOAD = ActionCost(id="offload", kind="offload", offload_fraction=1.0, bytes_up=15_000, bytes_down=300, tail_ms=3)
SPLIT = ActionCost(
    id="split", kind="split", head_ms=25, offload_fraction=1.0, bytes_up=3_000, tail_ms=2, split_point="p", depth=0
)
ACTIONS = (LOCAL, OFFLOAD, SPLIT)
STILL = Chance(0.0, 0.0, 0.0)


def changing(*steps: tuple[float, float], rtt_ms: float = 20.0) -> Trace:
    """(seconds, Mbit/s) after each other."""
    times = [0.0, *np.cumsum([seconds for seconds, _ in steps]).tolist()]
    series = Series(times, [mbps for _, mbps in steps])
    return Trace("steps", series, series, Series((0, times[-1]), (rtt_ms,)))


def test_one_request_takes_the_sum_of_its_parts() -> None:
    today = day(ACTIONS, constant(20, 8), requests=5, chance=STILL)
    found = Simulation([today], [Fixed(2)], [0], 1).run()[0]
    # head 25, 3000 bytes at 8 Mbit/s 3, round trip 20, tail 2, no answer bytes
    assert latencies_ms(found) == pytest.approx(np.full(5, 25 + 3 + 20 + 2), rel=1e-6)


def test_requests_wait_for_device_link_and_server() -> None:
    today = day(ACTIONS, constant(20, 8), requests=20, interval_s=0.01, chance=STILL)
    slow = latencies_ms(Simulation([today], [Fixed(0)], [0], 1).run()[0])
    assert np.all(np.diff(slow) > 40)
    assert latencies_ms(Simulation([today], [Fixed(1)], [0], 1).run()[0])[-1] > 60
    queued = [day(ACTIONS, constant(20, 1000), requests=50, interval_s=0.01, chance=STILL) for _ in range(8)]
    one, four = (
        np.mean([latencies_ms(rows).mean() for rows in Simulation(queued, [Fixed(1)] * 8, [0] * 8, workers).run()])
        for workers in (1, 4)
    )
    assert one > four + 5


def test_without_link_and_net_a_request_is_lost_and_with_the_adaptive_net_none_is() -> None:
    study = simulate(Setting(actions=ACTIONS, traces=(constant(20, 0.0),), requests=100))
    assert study.summary("always_offload")["lost"] == 100
    assert study.summary("adaptive")["lost"] == 0
    assert study.document()["lost"] == 0


@pytest.fixture(scope="module")
def study():
    trace = changing((15, 30.0), (10, 1.0), (8, 0.05), (12, 12.0))
    load = LoadTrace.steps(((20, 0.0, 0.2), (15, 0.6, 0.2), (10, 0.0, 0.9)))
    return simulate(Setting(actions=ACTIONS, traces=(trace,), load=load, requests=600))


def test_the_adaptive_policy_is_near_the_oracle_and_never_behind_the_best_fixed(study) -> None:
    rows = study.document()["policies"]
    assert rows["adaptive"]["mean_ms"] <= 1.2 * rows["oracle"]["mean_ms"]
    assert rows["adaptive"]["mean_ms"] <= 1.03 * rows["best_fixed"]["mean_ms"]
    assert rows["adaptive"]["mean_ms"] < rows["adaptive_without_load"]["mean_ms"]
    assert rows["oracle"]["mean_ms"] <= min(row["mean_ms"] for row in rows.values() if row["mean_ms"]) * 1.02


def test_deadlines_are_missed_hardly_more_often_than_by_the_oracle(study) -> None:
    late = simulate(dataclasses.replace(study.setting, policy=Policy(deadline_ms=200)))
    rows = late.document()["policies"]
    assert rows["adaptive"]["deadline_misses"] <= rows["oracle"]["deadline_misses"] + 0.02 * 600


def test_what_is_printed_has_the_keys_of_the_contract(study) -> None:
    document = json.loads(json.dumps(study.document()))
    assert set(document["policies"]) == set(NAMES)
    for row in document["policies"].values():
        assert {"mean_ms", "p50_ms", "p95_ms", "deadline_misses", "accuracy_drop", "actions"} <= set(row)
        assert sum(row["actions"].values()) == 600
    assert document["requests"] == 600 and document["regret_fraction"] > -0.05


def test_the_same_seed_gives_the_same_day(study) -> None:
    again = simulate(study.setting)
    assert again.document() == study.document()


def test_the_page_is_whole_and_needs_no_network(study) -> None:
    text = page(study, "a <day>")
    assert 'name="viewport"' in text
    assert "a &lt;day&gt;" in text and text.count("<svg") == text.count("</svg>") == 3
    assert all(name in text for name in NAMES)
    assert "http://" not in text and "https://" not in text and "<script" not in text
    assert '<th scope="col" class="n">Mean ms</th>' in text, "a figure's title stands over its figures"


@pytest.mark.parametrize(
    ("before", "after", "first", "then"),
    [((0.0, 0.0), (0.75, 0.0), "local", "offload"), ((0.0, 0.0), (0.0, 0.95), "offload", "local")],
)
def test_a_step_of_the_load_changes_the_choice_within_ten_requests(before, after, first, then) -> None:
    local_ms = 45 if first == "local" else 70
    actions = (ActionCost(id="local", kind="local", head_ms=local_ms), OFFLOAD)
    load = LoadTrace.steps(((40.0, *before), (1000.0, *after)))
    today = day(actions, constant(40, 20), load, requests=260, interval_s=0.2)
    controller = Controller(ActionSet(actions), Policy())
    rows = Simulation([today], [Adaptive(controller)], [0], 4).run()[0]
    step = next(number for number, row in enumerate(rows) if row.arrival_s >= 40.0)
    names = [actions[row.place].id for row in rows]
    assert names[step - 20 : step].count(first) >= 18
    assert names[step + 10 : step + 50].count(then) >= 38


class _Probing(Fixed):
    """Sends the split, and the whole input behind it; keeps what it heard."""

    def __init__(self, patience_ms: float) -> None:
        super().__init__(2)
        self.patience_ms, self.heard, self.given_up = patience_ms, [], 0

    def decide(self, request, now_s, device) -> Move:
        return Move(self.place, self.patience_ms, probe=1)

    def observe(self, now_s, flight, outcome) -> None:
        self.heard.append(outcome.action)

    def gave_up(self, now_s, flight) -> None:
        self.given_up += 1


def test_a_probe_is_heard_of_and_its_answer_is_not_used() -> None:
    today = day(ACTIONS, constant(20, 8), requests=20, interval_s=0.5, chance=STILL)
    plain = latencies_ms(Simulation([today], [Fixed(2)], [0], 1).run()[0])
    probing = _Probing(1000.0)
    found = Simulation([today], [probing], [0], 1).run()[0]
    assert latencies_ms(found) == pytest.approx(plain)
    assert {answer.won for answer in found} == {2}
    assert probing.heard.count("offload") == probing.heard.count("split") == 20


def test_a_probe_that_takes_too_long_is_given_up() -> None:
    today = day(ACTIONS, constant(20, 1), requests=20, interval_s=0.5, chance=STILL)
    probing = _Probing(80.0)  # the split takes 71 ms, the whole input 142
    found = Simulation([today], [probing], [0], 1).run()[0]
    assert latencies_ms(found) == pytest.approx(latencies_ms(Simulation([today], [Fixed(2)], [0], 1).run()[0]))
    assert probing.given_up == 20 and "offload" not in probing.heard
