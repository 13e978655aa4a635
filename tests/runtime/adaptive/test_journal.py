"""A log proves its own choices."""

from __future__ import annotations

import contextlib
import resource
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from edgekit_runtime.adaptive import ActionCost, ActionSet, Controller, Link, Outcome, Policy, journal
from edgekit_runtime.errors import Refused, UsageError

ACTIONS = (
    ActionCost(id="local", kind="local", head_ms=50, head_sd_ms=2),
    ActionCost(id="offload", kind="offload", offload_fraction=1.0, bytes_up=10_000, bytes_down=100, tail_ms=2),
    ActionCost(
        id="split", kind="split", head_ms=20, offload_fraction=1.0, bytes_up=2_000, tail_ms=1, split_point="p", depth=0
    ),
)


def test_the_log_of_a_thousand_requests_gives_each_choice_again(tmp_path: Path) -> None:
    controller, rng = Controller(ACTIONS, Policy(), link=Link(rtt_ms=10, uplink_mbps=20)), np.random.default_rng(0)
    writer = journal.Writer(tmp_path / "log.jsonl", controller.actions, "id")
    chosen = []
    for number in range(1000):
        now = number * 0.1
        decision = controller.plan(now).decision
        writer.add(decision, now, total_ms=1.0)
        chosen.append(decision.action)
        action = controller.actions[decision.action]
        mbps = 4.0 if number // 100 % 2 else 20.0
        network = 10 + action.bytes_up * 8e-3 / mbps if action.leaves else None
        controller.observe(
            now + 0.05,
            Outcome(
                action.id,
                device_ms=1.3 * action.head_ms * rng.normal(1, 0.05) if action.head_ms else None,
                network_ms=network,
                bytes_up=action.bytes_up,
                bytes_down=100,
                queue_ms=0.0 if network else None,
                server_ms=3.0 if network else None,
            ),
        )
    writer.close()
    head, entries = journal.read(tmp_path / "log.jsonl")
    assert len(set(chosen)) > 1
    assert [journal.again(head, entry).action for entry in entries] == chosen
    assert all(journal.again(head, entry).reasons for entry in entries[::100])


def test_a_log_with_learned_shares_of_bytes_gives_each_choice_again(tmp_path: Path) -> None:
    controller, rng = Controller(ACTIONS, Policy(), link=Link(rtt_ms=10, uplink_mbps=2)), np.random.default_rng(1)
    writer = journal.Writer(tmp_path / "log.jsonl", controller.actions)
    chosen = []
    for number in range(300):
        decision = controller.plan(number * 0.1).decision
        writer.add(decision, number * 0.1)
        chosen.append(decision.action)
        for name, share in (("offload", 0.1 if number < 150 else 3.0), ("split", 1.0)):
            count = round(controller.actions[name].bytes_up * share * rng.lognormal(0, 0.3))
            controller.back(controller.sent(number * 0.1, name, bytes_up=count))
    writer.close()
    head, entries = journal.read(tmp_path / "log.jsonl")
    assert {"offload", "split"} <= set(chosen)
    profile = ActionSet(head.actions, head.power)
    again = [journal.again(head, entry, profile) for entry in entries]
    assert [decision.action for decision in again] == chosen
    assert [decision.predicted_ms for decision in again] == [entry.predicted_ms for entry in entries]
    assert "of its declared bytes up" in again[140].explain()


@pytest.mark.parametrize("text", ["", "{}", "not json\n"])
def test_what_is_no_log_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "x").write_text(text)
    with pytest.raises(Refused, match="not a log"):
        journal.read(tmp_path / "x")


def test_a_damaged_line_is_named(tmp_path: Path) -> None:
    path = tmp_path / "log.jsonl"
    writer = journal.Writer(path, Controller(ACTIONS, Policy()).actions)
    writer.close()
    path.write_bytes(path.read_bytes() + b'{"request": 1}\n')
    with pytest.raises(Refused, match="line 2"):
        journal.read(path)


@contextlib.contextmanager
def files_up_to(count: int) -> Iterator[None]:
    """As a disk that is full then: a write goes as far as there is room, the next one fails."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (count, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_a_disk_that_fills_up_ends_the_log_with_a_whole_line_and_fails_no_request(tmp_path: Path, caplog) -> None:
    controller, path = Controller(ACTIONS, Policy()), tmp_path / "log.jsonl"
    writer = journal.Writer(path, controller.actions)
    decision = controller.plan(0.0).decision
    writer.add(decision, 0.0)
    with files_up_to(path.stat().st_size + 2000):
        for number in range(1, 50):
            writer.add(decision, float(number))
    writer.add(decision, 50.0)  # room again: a log with a hole would be lived again as if nothing had happened there
    writer.close()
    _, kept = journal.read(path)
    assert [entry.request for entry in kept] == list(range(len(kept))) and 1 < len(kept) < 50
    (told,) = caplog.messages
    assert f"log.jsonl ends after {len(kept)} requests" in told


def test_a_log_whose_head_finds_no_room_is_no_log(tmp_path: Path) -> None:
    with files_up_to(10), pytest.raises(UsageError, match="cannot be written"):
        journal.Writer(tmp_path / "log.jsonl", Controller(ACTIONS, Policy()).actions)
