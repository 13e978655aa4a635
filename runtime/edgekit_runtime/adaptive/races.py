"""When the other side is tried beside the chosen one: how good it may be, and how often one may look.

The first answer of the two wins, so that a look never costs the request any time. `Controller` says when it pays.
"""

from __future__ import annotations

import dataclasses
import math

import msgspec

from edgekit_runtime.adaptive.state import Link, Load

_SHORTEST_PAUSE_S = 0.2
_AFTER_STALL_S = 1.5  # who looks sooner is back too soon on links that fail again and again
_STALE_GAIN = 100.0


@dataclasses.dataclass(frozen=True)
class Settings:
    """What may be changed, and switched off for an ablation.

    Attributes:
        see_load: Reckon with the load of device and server.
        race_fraction: Largest share of requests that are raced.
        race_gain: A race needs an optimistic gain of this fraction.
        longest_pause_s: Longest time between two races that both showed nothing new.
        first_backoff_s: Pause after a failure of the server; doubled with each one that follows.
        longest_backoff_s: Its limit.
        ping_every_s: Shortest time between two empty requests.
    """

    see_load: bool = True
    race_fraction: float = 0.1
    race_gain: float = 0.1
    longest_pause_s: float = 5.0
    first_backoff_s: float = 0.5
    longest_backoff_s: float = 30.0
    ping_every_s: float = 5.0


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
    """Keeps races rare: a share of the requests, and pauses that double while races show nothing new."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._tokens = 2.0
        self.pause_s = _SHORTEST_PAUSE_S
        self._next_s = -math.inf

    def count(self) -> None:
        """A request has come."""
        self._tokens = min(self._tokens + self._settings.race_fraction, 3.0)

    def open_at(self, now_s: float) -> bool:
        """May there be a race now?"""
        return self._tokens >= 1.0 and now_s >= self._next_s

    def take(self, now_s: float) -> None:
        """There is one."""
        self._tokens -= 1.0
        self._next_s = now_s + self.pause_s

    def again(self, now_s: float) -> None:
        """An answer did not come: a look is due soon, however long the pause has become."""
        self.pause_s = min(self.pause_s, _AFTER_STALL_S)
        self._next_s = min(self._next_s, now_s + _AFTER_STALL_S)

    def over(self, now_s: float, other_won: bool) -> None:
        """A race has ended; the pause doubles where it has shown nothing new."""
        self.pause_s = _SHORTEST_PAUSE_S if other_won else min(2 * self.pause_s, self._settings.longest_pause_s)
        self._next_s = now_s + self.pause_s
