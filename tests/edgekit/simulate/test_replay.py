"""A log of a session whose link changed gives the link back."""

from __future__ import annotations

from pathlib import Path

import pytest

from edgekit.simulate import Setting, replay, simulate
from edgekit_runtime.adaptive import ActionCost, ActionSet, Link, Load, Policy, choose, journal
from edgekit_runtime.adaptive.state import Share
from edgekit_runtime.errors import Refused

ACTIONS = (
    ActionCost(id="local", kind="local", head_ms=50, head_sd_ms=2),
    ActionCost(id="offload", kind="offload", offload_fraction=1.0, bytes_up=10_000, bytes_down=100, tail_ms=2),
)


def logged(path: Path, links: list[Link], loads: list[Load], gap_s: float = 0.2) -> Path:
    actions = ActionSet(ACTIONS)
    writer = journal.Writer(path, actions)
    for number, (link, load) in enumerate(zip(links, loads, strict=True)):
        writer.add(choose(actions, link, load, Policy()), 100 + number * gap_s, total_ms=30.0)
    writer.close()
    return path


def test_link_load_and_pace_are_those_of_the_log(tmp_path: Path) -> None:
    links = [Link(rtt_ms=20, uplink_mbps=20)] * 50 + [Link(rtt_ms=30, uplink_mbps=0, downlink_mbps=0)] * 50
    loads = [Load()] * 50 + [Load(device_slowdown=2.0, server_slowdown=100.0)] * 50
    day = replay.read(logged(tmp_path / "log.jsonl", links, loads))
    assert day.requests == 100 and day.interval_s == pytest.approx(0.2) and day.mean_ms == 30.0
    assert (day.link.up.at(5.0), day.link.rtt_ms.at(5.0), day.load.device.at(5.0)) == (20, 20, 0)
    assert (day.link.up.at(15.0), day.link.rtt_ms.at(15.0), day.load.device.at(15.0)) == (0, 30, 0.5)
    assert day.load.server.at(15.0) == 0.95
    # What request 49 saw is known when request 50 is decided: the change lies between the two.
    assert day.link.up.at(9.7) == 20 and day.link.up.at(9.9) == 0


def test_what_was_learned_of_the_bytes_is_lived_again(tmp_path: Path) -> None:
    loads = [Load()] * 5 + [Load(shares=(Share(action="offload", up=0.1),))] * 5
    day = replay.read(logged(tmp_path / "log.jsonl", [Link()] * 10, loads))
    assert [action.bytes_up for action in day.actions] == [0, 1_000]


def test_policies_change_with_the_logged_link(tmp_path: Path) -> None:
    links = [Link(rtt_ms=10, uplink_mbps=50)] * 50 + [Link(rtt_ms=10, uplink_mbps=0.5)] * 50
    day = replay.read(logged(tmp_path / "log.jsonl", links, [Load()] * 100))
    study = simulate(
        Setting(day.actions, (day.link,), day.load, day.policy, requests=day.requests, interval_s=day.interval_s)
    )
    chosen = [row.place for row in study.answers["adaptive"][0]]
    assert set(chosen[10:45]) == {1} and set(chosen[60:95]) == {0}


def test_time_that_runs_backwards_is_refused(tmp_path: Path) -> None:
    path = logged(tmp_path / "log.jsonl", [Link()] * 3, [Load()] * 3, gap_s=-0.2)
    with pytest.raises(Refused, match="after the one before"):
        replay.read(path)
