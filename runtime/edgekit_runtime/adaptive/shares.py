"""How many of its declared bytes an action really sends, learned from what it sent.

An action's bytes are counted on one example. What else is sent may be longer or shorter, and a codec makes more or less
of it: an input that is all alike is packed to nothing, one of noise not at all.

    share = bytes of the message / (samples in it x bytes declared for one)

Mean and variance of its logarithm run over the last requests. The share of 1 that was declared counts as half a
request, and the newest request never as less than one in twelve, so that all is forgotten in the end. There is no clock
in it: what is not sent does not change. While nothing was forgotten, the order of the requests does not matter.
"""

from __future__ import annotations

import math
from typing import NamedTuple

from edgekit_runtime.adaptive.actions import ActionSet
from edgekit_runtime.adaptive.state import Share

_PRIOR, _WINDOW = 0.5, 12.0  # requests
_TOLD = 0.05  # what logarithm and spread may differ from the prices before these are made anew


class Running(NamedTuple):
    """What is known of one share.

    Attributes:
        log: Mean of its logarithm.
        variance: Of the logarithm.
        weight: Requests that this stands for.
    """

    log: float = 0.0
    variance: float = 0.0
    weight: float = _PRIOR


def learned(before: Running, share: float) -> Running:
    """What is known after one more request (weighted mean and variance, West 1979).

    Args:
        before: What was known.
        share: Bytes over those declared; above 0.
    """
    weight = min(before.weight + 1.0, _WINDOW)
    error = math.log(share) - before.log
    step = error / weight
    return Running(before.log + step, (1 - 1 / weight) * (before.variance + error * step), weight)


class _Known:
    """One share, and what was last told of it."""

    __slots__ = ("running", "told_log", "told_spread")

    def __init__(self) -> None:
        self.running = Running()
        self.told_log = self.told_spread = 0.0

    def learn(self, share: float) -> bool:
        """Takes a request; is it now so far from what was told that this has to be told anew?"""
        self.running = running = learned(self.running, share)
        spread = math.sqrt(running.variance)
        if abs(running.log - self.told_log) <= _TOLD and abs(spread - self.told_spread) <= _TOLD:
            return False
        self.told_log, self.told_spread = running.log, spread
        return True


class Shares:
    """Of all actions of a session. Not thread-safe: the session holds a lock.

    Attributes:
        told: By action, where they differ from what was declared; the same object until one of them has changed.
    """

    def __init__(self, actions: ActionSet) -> None:
        self._actions = actions
        self._up: dict[str, _Known] = {}
        self._down: dict[str, _Known] = {}
        self.told: tuple[Share, ...] = ()

    def sent(self, action_id: str, samples: int, count: int) -> None:
        """Learns from a message to the server, whatever becomes of it: so many samples in so many bytes."""
        self._learn(self._up, action_id, count, samples * self._actions[action_id].bytes_up)

    def received(self, action_id: str, samples: int, count: int) -> None:
        """Learns from an answer."""
        self._learn(self._down, action_id, count, samples * self._actions[action_id].bytes_down)

    def _learn(self, side: dict[str, _Known], action_id: str, count: int, declared: int) -> None:
        if count <= 0 or declared <= 0:
            return
        known = side.get(action_id)
        if known is None:
            known = side[action_id] = _Known()
        if known.learn(count / declared):
            ids = [action.id for action in self._actions.actions if action.id in self._up or action.id in self._down]
            self.told = tuple(self._share(name) for name in ids)

    def _share(self, action_id: str) -> Share:
        up, down = self._up.get(action_id, _DECLARED), self._down.get(action_id, _DECLARED)
        return Share(
            action=action_id,
            up=math.exp(up.told_log),
            up_spread=up.told_spread,
            down=math.exp(down.told_log),
            down_spread=down.told_spread,
        )


_DECLARED = _Known()
