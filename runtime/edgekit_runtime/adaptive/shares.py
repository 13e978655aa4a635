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
_SETTLED = 0.01  # spread


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

    __slots__ = ("_last", "_settled", "declared", "running", "told_log", "told_spread")

    def __init__(self, declared: int) -> None:
        self.declared = declared
        self.running = Running()
        self.told_log = self.told_spread = 0.0
        self._last, self._settled = 1.0, False

    def learn(self, share: float) -> bool:
        """Takes a request; is it now so far from what was told that this has to be told anew?"""
        if share == self._last and self._settled:
            return False
        self.running = running = learned(self.running, share)
        spread = math.sqrt(running.variance)
        # Requests of one size are the rule: once they hardly change anything, they are passed over.
        self._last, self._settled = share, spread < _SETTLED and running.weight >= _WINDOW
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
        self._up = {action.id: _Known(action.bytes_up) for action in actions.actions if action.bytes_up}
        self._down = {action.id: _Known(action.bytes_down) for action in actions.actions if action.bytes_down}
        self.told: tuple[Share, ...] = ()

    def sent(self, action_id: str, samples: int, count: int) -> None:
        """Learns from a message to the server, whatever becomes of it: so many samples in so many bytes."""
        known = self._up.get(action_id)
        if known is not None and samples and count and known.learn(count / (samples * known.declared)):
            self._tell()

    def received(self, action_id: str, samples: int, count: int) -> None:
        """Learns from an answer to so many samples."""
        known = self._down.get(action_id)
        if known is not None and samples and count and known.learn(count / (samples * known.declared)):
            self._tell()

    def _tell(self) -> None:
        changed = [
            name
            for side in (self._up, self._down)
            for name, known in side.items()
            if known.told_log or known.told_spread
        ]
        self.told = tuple(self._share(name) for name in dict.fromkeys(changed))

    def _share(self, action_id: str) -> Share:
        up, down = self._up.get(action_id, _DECLARED), self._down.get(action_id, _DECLARED)
        return Share(
            action=action_id,
            up=math.exp(up.told_log),
            up_spread=up.told_spread,
            down=math.exp(down.told_log),
            down_spread=down.told_spread,
        )


_DECLARED = _Known(1)
