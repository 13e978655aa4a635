"""A session's choices on a made-up clock: messages that are packed to nothing, and single stalls on a good link."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from edgekit_runtime.adaptive import ActionCost, Controller, Link, Outcome, Policy
from edgekit_runtime.adaptive.flights import Flight, Flights

ID = "offload:zstd"


@dataclasses.dataclass
class World:
    """One client that asks again and again; a link and a server that stall when told.

    Attributes:
        declared: Bytes of the action.
        sent: Bytes that its messages really have.
        local_ms: Of the run on the device.
        server_ms: Of the whole student there.
        rtt_ms: Of the link.
        mbps: Both ways.
        gap_s: Between two requests.
        stall: Part (`network` or `server`), when the first request sent after that is held, and for how long (ms).
        rare: Looks at the other side have long shown nothing new when the stall comes.
    """

    declared: int
    sent: int
    local_ms: float = 6.0
    server_ms: float = 1.5
    rtt_ms: float = 0.6
    mbps: float = 500.0
    gap_s: float = 0.02
    stall: tuple[str, float, float] = ("", np.inf, 0.0)
    rare: bool = False

    def __post_init__(self) -> None:
        remote = ActionCost(
            id=ID,
            kind="offload",
            offload_fraction=1.0,
            bytes_up=self.declared,
            bytes_down=400,
            tail_ms=self.local_ms / 4,
        )
        local = ActionCost(id="local", kind="local", head_ms=self.local_ms, head_sd_ms=0.1)
        self.controller = Controller((local, remote), Policy())
        self.rng = np.random.default_rng(0)
        self.stalled_s = np.inf

    def live(self, seconds: float) -> list[tuple[float, bool]]:
        """When each request came, and whether it was sent."""
        rows = []
        for now in np.arange(0.0, seconds, self.gap_s).tolist():
            plan = self.controller.plan(now)
            if plan.ping:
                self.controller.ponged(now, self.rtt_ms)
            chosen = plan.decision.action == ID
            rows.append((now, chosen))
            if chosen or plan.race:
                self._sent(now, plan.hedge_ms if not plan.race else None, chosen)
            else:
                self._here(now)
        return rows

    def _here(self, now: float) -> None:
        self.controller.running(now, "local")
        self.controller.stopped()
        self.controller.observe(now + self.local_ms / 1e3, Outcome("local", device_ms=self._noisy(self.local_ms)))

    def _sent(self, now: float, hedge_ms: float | None, chosen: bool) -> None:
        link = self.controller.plan(now).decision.link
        network_ms = self._noisy(self.rtt_ms + (self.sent + 400) * 8e-3 / self.mbps + 0.3)
        server_ms = self._noisy(self.server_ms)
        part, from_s, held_ms = self.stall
        if now >= from_s and self.stalled_s == np.inf:
            self.stalled_s = now
            network_ms += held_ms if part == "network" else 0.0
            server_ms += held_ms if part == "server" else 0.0
            for _ in range(6 if self.rare else 0):
                self.controller.race_over(now, other_won=False)
        flight = self.controller.sent(now, ID, 1, link, self.sent)
        total_ms = network_ms + server_ms
        outcome = Outcome(
            ID, network_ms=network_ms, bytes_up=self.sent, bytes_down=400, queue_ms=0.05, server_ms=server_ms
        )
        if hedge_ms is not None and total_ms > hedge_ms + self.local_ms:
            self.controller.gave_up(now + (hedge_ms + self.local_ms) / 1e3, flight)
            return
        self.controller.back(flight)
        self.controller.observe(now + total_ms / 1e3, outcome)
        if hedge_ms is None:
            self._here(now)
            self.controller.race_over(now + total_ms / 1e3, (total_ms < self.local_ms) is not chosen)
        else:
            self.controller.answered(hedged=total_ms > hedge_ms)

    def _noisy(self, ms: float) -> float:
        return ms * float(self.rng.normal(1, 0.03))


def share_sent(rows: list[tuple[float, bool]], from_s: float, to_s: float) -> float:
    return float(np.mean([sent for now, sent in rows if from_s <= now < to_s]))


@pytest.mark.parametrize(("declared", "sent"), [(10_300, 300), (10_300, 10_300), (3_000, 600), (600, 3_000)])
@pytest.mark.parametrize("gap_s", [0.02, 0.2])
def test_a_good_link_is_used_however_few_bytes_are_sent_of_those_declared(declared, sent, gap_s) -> None:
    loopback = World(declared, sent, gap_s=gap_s).live(12.0)
    assert share_sent(loopback, 4.0, 12.0) > 0.95
    radio = World(declared, sent, local_ms=40.0, server_ms=2.0, rtt_ms=10.0, mbps=30.0, gap_s=gap_s).live(12.0)
    assert share_sent(radio, 4.0, 12.0) > 0.95


@pytest.mark.parametrize("part", ["network", "server"])
@pytest.mark.parametrize("held_ms", [8.0, 60.0])
@pytest.mark.parametrize(("declared", "sent"), [(3_000, 3_000), (3_000, 600), (10_300, 300)])
@pytest.mark.parametrize(("gap_s", "rare"), [(0.02, False), (0.1, False), (0.02, True)])
def test_after_one_stall_the_other_side_is_used_again_within_two_seconds(
    part, held_ms, declared, sent, gap_s, rare
) -> None:
    world = World(declared, sent, gap_s=gap_s, stall=(part, 10.0, held_ms), rare=rare)
    rows = world.live(20.0)
    assert share_sent(rows, 5.0, 10.0) > 0.95
    assert world.stalled_s < 11.0
    assert share_sent(rows, world.stalled_s + 2.0, 20.0) > 0.95


@pytest.mark.parametrize("held_ms", [4.0, 5.0, 6.0])
def test_one_slow_service_that_was_still_in_time_does_not_close_the_server_for_long(held_ms) -> None:
    """Before, up to 15 s: the answer came before the local run's and was learned, and no look seemed worth it."""
    world = World(3_000, 3_000, server_ms=3.5, stall=("server", 10.0, held_ms))
    rows = world.live(20.0)
    assert share_sent(rows, 5.0, 10.0) > 0.95
    assert share_sent(rows, world.stalled_s + 1.0, 20.0) > 0.95


def test_a_server_that_stays_slow_is_left_and_looked_at_ever_more_rarely() -> None:
    world = World(3_000, 3_000, server_ms=3.5)
    world.live(10.0)
    world.server_ms, races = 30.0, []
    plan = world.controller.plan

    def counted(now: float, samples: int = 1):
        made = plan(now, samples)
        if made.race:
            races.append(now)
        return made

    world.controller.plan = counted  # type: ignore[method-assign]
    rows = world.live(40.0)
    assert share_sent(rows, 1.0, 40.0) < 0.02
    assert len(races) < 20 and max(np.diff(races)) > 4.5


def test_what_an_overdue_message_says_of_the_link_rests_on_the_bytes_that_it_has() -> None:
    link = Link(rtt_ms=10, uplink_mbps=100)
    flights = Flights()
    flights.add(Flight(sent_s=0.0, bytes_up=300, bytes_down=400, network_ms=10.0, residence_ms=2.0))
    assert flights.seen(0.005, link).uplink_mbps == 100
    late = flights.seen(0.102, link)
    assert late.uplink_mbps == pytest.approx(300 * 8e-3 / (1.5 * 100 - 10))


def test_the_time_that_the_server_is_expected_to_take_is_not_laid_to_the_link() -> None:
    link = Link(rtt_ms=10, uplink_mbps=100)
    flights = Flights()
    number = flights.add(Flight(sent_s=0.0, bytes_up=9_000, bytes_down=400, network_ms=11.0, residence_ms=200.0))
    assert flights.seen(0.15, link).uplink_mbps == 100
    assert flights.seen(1.0, link).uplink_mbps < 1
    assert flights.pop(number) is not None and flights.pop(number) is None and not flights


def test_messages_teach_their_share_whatever_becomes_of_them() -> None:
    for end in ("answered", "overdue", "failed", "out"):
        controller = World(10_000, 500).controller
        flight = controller.sent(0.0, ID, 1, None, 500)
        if end == "answered":
            controller.back(flight)
        elif end == "overdue":
            controller.gave_up(1.0, flight)
        elif end == "failed":
            controller.failed(1.0, flight)
        (told,) = controller.plan(40.0).decision.load.shares
        assert told.up < 0.2


def test_of_a_request_that_is_partly_answered_here_only_what_is_sent_counts() -> None:
    controller = World(10_000, 500).controller
    controller.sent(0.0, ID, 8, None, 2 * 10_000, 2)
    assert controller.plan(1.0).decision.load.shares == ()
