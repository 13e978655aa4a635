"""What is tried beside the chosen action, so that more is known than what is chosen can tell.

    rival     an action of the other side (here or there) that may well be quicker: a race, whose first answer wins
    larger    an action that sends more than the chosen one: a probe, whose answer is not used

Small requests tell the round trip and hardly the bandwidth. Where the quickest action sends little, what sends more is
never chosen, as its time rests on a bandwidth that only it could show.
"""

from __future__ import annotations

import dataclasses
import math

import msgspec

from edgekit_runtime.adaptive import costs
from edgekit_runtime.adaptive.actions import DEVICE, ROUND_TRIP, UPLINK, ActionSet
from edgekit_runtime.adaptive.choose import Decision, open_places
from edgekit_runtime.adaptive.state import Link, Load, Policy

_SHORTEST_PAUSE_S = 0.2
_AFTER_STALL_S = 1.5  # who looks sooner is back too soon on links that fail again and again
_RACE_LIMIT, _RACE_LEAST_MS = 10.0, 1000.0  # times what the chosen action is expected to take
_STALE_GAIN = 100.0
_WIDER, _PROBE_GAIN = 10.0, 0.02  # an uplink may be so many times wider than believed; what has to be won there
_PROBE_SHARE = 0.2  # of the time between two requests: longest that a probe may hold the uplink
_MOST_TIMES = 16.0  # times the bytes of the request itself: most that a probe sends


def race_limit_ms(decision: Decision) -> float:
    """After which time a race that sends is given up."""
    return max(_RACE_LIMIT * decision.predicted_ms, _RACE_LEAST_MS)


@dataclasses.dataclass(frozen=True)
class Settings:
    """What may be changed, and switched off for an ablation.

    Attributes:
        see_load: Reckon with the load of device and server.
        race_fraction: Largest share of requests that are raced.
        race_gain: A race needs an optimistic gain of this fraction.
        probe_fraction: Largest share of requests that are sent a second time, in a larger form; 0: none.
        longest_pause_s: Longest time between two races that both showed nothing new.
        first_backoff_s: Pause after a failure of the server; doubled with each one that follows.
        longest_backoff_s: Its limit.
        ping_every_s: Shortest time between two empty requests.
    """

    see_load: bool = True
    race_fraction: float = 0.1
    race_gain: float = 0.1
    probe_fraction: float = 0.1
    longest_pause_s: float = 5.0
    first_backoff_s: float = 0.5
    longest_backoff_s: float = 30.0
    ping_every_s: float = 5.0


def rival(decision: Decision, bright: Link, bright_load: Load, gain: float) -> int | None:
    """Place of the action of the other side that is worth a race; None: there is none.

    Args:
        decision: The choice.
        bright: The link as good as it may well be (`brighter`).
        bright_load: The load likewise (`brighter_load`).
        gain: A race needs an optimistic gain of this fraction.
    """
    actions, load, policy = decision.actions, decision.load, decision.policy
    remote = actions.rows[decision.place][ROUND_TRIP] > 0.0
    goal_ms = (1 - gain) * decision.predicted_ms
    if remote:  # whatever else they need, no local action is quicker than the quickest one's time on the device
        brightest = load.device_slowdown * load.device_work * math.exp(-load.device_spread)
        if actions.least_local_ms * brightest >= goal_ms:
            return None
    theta, _ = costs.levels(bright, bright_load)
    worth = [
        place
        for place in open_places(actions, policy, load.samples)
        if (actions.rows[place][ROUND_TRIP] > 0.0) is not remote and costs.mean_of(actions.rows[place], theta) < goal_ms
    ]
    if load.device_wait_ms:  # what a race takes of a busy device, every request that waits there pays
        light = gain * actions.rows[actions.fallback][DEVICE]
        worth = [place for place in worth if actions.rows[place][DEVICE] <= light]
    if not worth:
        return None
    # What would be given up by what is believed is only tried where nothing else is.
    believed, limit_ms = decision.levels[0][UPLINK], race_limit_ms(decision)
    worth = [place for place in worth if actions.rows[place][UPLINK] * believed <= limit_ms] or worth
    # Of those that may win, the one that takes least from the device, then from the link.
    burden = [actions.rows[place][DEVICE] * decision.predicted_ms + actions.rows[place][UPLINK] for place in worth]
    return worth[burden.index(min(burden))]


def larger(decision: Decision, gap_s: float) -> int | None:
    """Place of the action that sends more and would be the quickest over a much wider uplink; None: there is none.

    No request is to wait for a probe: what takes more of the device than the chosen action, or would hold the believed
    uplink for more than a fifth of the time between two requests, is left out; so is what sends many times as much.

    Args:
        decision: The choice; it sends.
        gap_s: Mean time between two requests; infinite: not known, and there is no probe.
    """
    if gap_s == math.inf:
        return None
    actions, link, rows = decision.actions, decision.link, decision.actions.rows
    most_kbit = _PROBE_SHARE * gap_s * 1e3 * link.uplink_mbps / decision.load.samples
    places = [place for place in _larger(actions, decision.policy, decision.place) if rows[place][UPLINK] <= most_kbit]
    if not places:
        return None
    wide = decision.load.samples / (_WIDER * link.uplink_mbps)
    believed = decision.levels[0]
    theta = (*believed[:UPLINK], wide, *believed[UPLINK + 1 :])
    least_ms, found = min((costs.mean_of(rows[place], theta), place) for place in places)
    return found if least_ms < (1 - _PROBE_GAIN) * costs.mean_of(rows[decision.place], theta) else None


def _larger(actions: ActionSet, policy: Policy, chosen: int) -> tuple[int, ...]:
    """Places of what sends more than an action, up to many times as much, and takes no more of the device. Kept."""
    known = actions.larger.get((policy, chosen))
    if known is None:
        own, rows = actions.rows[chosen], actions.rows
        known = actions.larger[policy, chosen] = tuple(
            place
            for place in open_places(actions, policy)
            if actions.offload[place] == 1.0
            and rows[place][DEVICE] <= own[DEVICE]
            and own[UPLINK] < rows[place][UPLINK] <= _MOST_TIMES * own[UPLINK]
        )
    return known


def brighter(link: Link, stale: bool, usual_rtt_ms: float) -> Link:
    """The link one standard deviation better; one that was not heard of for a pause may be as good as any."""
    rtt_ms = min(link.rtt_ms, usual_rtt_ms) if stale else link.rtt_ms
    up, down = (_STALE_GAIN, _STALE_GAIN) if stale else (math.exp(link.uplink_spread), math.exp(link.downlink_spread))
    return Link(
        rtt_ms=rtt_ms * math.exp(-link.rtt_spread),
        uplink_mbps=link.uplink_mbps * up,
        downlink_mbps=link.downlink_mbps * down,
        backlog_ms=link.backlog_ms,
    )


def brighter_load(load: Load, usual_slowdown: float, usual_queue_ms: float) -> Load:
    """The load one standard deviation better; a server that was not heard of for a pause may be as it is in general."""
    return msgspec.structs.replace(
        load,
        device_slowdown=load.device_slowdown * math.exp(-load.device_spread),
        server_slowdown=min(load.server_slowdown, usual_slowdown) * math.exp(-load.server_spread),
        queue_ms=min(max(load.queue_ms - load.queue_sd_ms, 0.0), usual_queue_ms),
        device_spread=0.0,
        server_spread=0.0,
        queue_sd_ms=0.0,
    )


class Budget:
    """Keeps trials rare: a share of the requests, and pauses that double while trials show nothing new."""

    def __init__(self, fraction: float, longest_pause_s: float) -> None:
        self._fraction, self._longest_pause_s = fraction, longest_pause_s
        self._tokens = 2.0 if fraction else 0.0
        self.pause_s = _SHORTEST_PAUSE_S
        self._next_s = -math.inf

    def count(self) -> None:
        """A request has come."""
        self._tokens = min(self._tokens + self._fraction, 3.0)

    def open_at(self, now_s: float) -> bool:
        """May one be begun?"""
        return self._tokens >= 1.0 and now_s >= self._next_s

    def take(self, now_s: float) -> None:
        """One is begun."""
        self._tokens -= 1.0
        self._next_s = now_s + self.pause_s

    def again(self, now_s: float) -> None:
        """An answer did not come: a look is due soon, however long the pause has become."""
        self.pause_s = min(self.pause_s, _AFTER_STALL_S)
        self._next_s = min(self._next_s, now_s + _AFTER_STALL_S)

    def over(self, now_s: float, other_won: bool) -> None:
        """One has ended, and what was tried was the better or was not."""
        self.pause_s = _SHORTEST_PAUSE_S if other_won else min(2 * self.pause_s, self._longest_pause_s)
        self._next_s = now_s + self.pause_s
