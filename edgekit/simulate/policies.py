"""Who decides in a simulation: the adaptive policy and those it has to beat.

| name | decides by |
|---|---|
| adaptive | `edgekit_runtime.adaptive.Controller`, the object that the device itself runs |
| adaptive_without_load | the same, blind to the load of device and server |
| oracle | the true time of each action for this request, link and load to come included |
| always_local | the full local run |
| always_offload | the input, compressed as small as it gets, to the server |
| best_fixed | the one action that would have been best for the whole day, known afterwards |
| mean_argmin | the smallest expected time under running means of bandwidth and load (Neurosurgeon's rule), no nets |
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Protocol

import numpy as np

from edgekit.simulate.world import Device
from edgekit_runtime.adaptive import ActionCost, ActionSet, Controller, Link, Load, Outcome, Policy, choose
from edgekit_runtime.adaptive.controller import Plan, Settings

NAMES = ("adaptive", "oracle", "always_local", "always_offload", "best_fixed", "mean_argmin", "adaptive_without_load")


@dataclasses.dataclass(frozen=True)
class Move:
    """What a policy does with a request: an action, when to start the local run, a second action beside it.

    `probe` is a third that is sent behind it, to learn from; its answer is not used.
    """

    place: int
    hedge_ms: float | None = None
    race: int | None = None
    race_limit_ms: float = 0.0
    ping: bool = False
    probe: int | None = None


class Decider(Protocol):
    """One policy on one device; the methods are those of `Controller`."""

    def decide(self, request: int, now_s: float, device: Device) -> Move:
        """What to do with a request."""

    def running(self, now_s: float, place: int) -> None:
        """A run on the device begins."""

    def stopped(self) -> None:
        """A run on the device has ended."""

    def sent(self, now_s: float, place: int) -> int:
        """A request is on its way; returns its number."""

    def gave_up(self, now_s: float, flight: int) -> None:
        """It was cancelled."""

    def observe(self, now_s: float, flight: int, outcome: Outcome) -> None:
        """An action has ended; flight 0: on the device."""

    def race_over(self, now_s: float, other_won: bool) -> None:
        """A race has ended."""

    def answered(self, hedged: bool) -> None:
        """The server's answer was the first."""

    def ponged(self, now_s: float, round_trip_ms: float) -> None:
        """An empty request came back."""


class Silent:
    """Learns nothing."""

    def running(self, now_s: float, place: int) -> None:
        """Keeps no account of the device."""

    def stopped(self) -> None:
        """Keeps no account of the device."""

    def sent(self, now_s: float, place: int) -> int:
        """Keeps no account of what is out."""
        return 0

    def gave_up(self, now_s: float, flight: int) -> None:
        """Nothing to learn."""

    def observe(self, now_s: float, flight: int, outcome: Outcome) -> None:
        """Nothing to learn."""

    def race_over(self, now_s: float, other_won: bool) -> None:
        """There are no races."""

    def answered(self, hedged: bool) -> None:
        """Hedges nothing."""

    def ponged(self, now_s: float, round_trip_ms: float) -> None:
        """There are no pings."""


class Fixed(Silent):
    """Always the same action."""

    def __init__(self, place: int) -> None:
        self.place = place

    def decide(self, request: int, now_s: float, device: Device) -> Move:
        """The one action."""
        return Move(self.place)


class Oracle(Silent):
    """The action with the smallest true time. The bound that nobody can beat request by request without a net."""

    def __init__(self, places: Sequence[int]) -> None:
        self._places = tuple(places)

    def decide(self, request: int, now_s: float, device: Device) -> Move:
        """Looks into the future."""
        return Move(min(self._places, key=lambda place: device.foresee(request, place, now_s)))


class Adaptive:
    """The runtime's own controller."""

    def __init__(self, controller: Controller) -> None:
        self.controller = controller

    def decide(self, request: int, now_s: float, device: Device) -> Move:
        """Reads the device and plans."""
        self.controller.load.see_device(device.utilisation(now_s))
        return self.move(self.controller.plan(now_s))

    def move(self, plan: Plan) -> Move:
        """A plan by places."""
        race = self.controller.actions.place(plan.race) if plan.race else None
        probe = self.controller.actions.place(plan.probe) if plan.probe else None
        return Move(plan.decision.place, plan.hedge_ms, race, plan.race_limit_ms, plan.ping, probe)

    def running(self, now_s: float, place: int) -> None:
        """Tells the controller."""
        self.controller.running(now_s, self.controller.actions.actions[place].id)

    def stopped(self) -> None:
        """Tells the controller."""
        self.controller.stopped()

    def sent(self, now_s: float, place: int) -> int:
        """Tells the controller."""
        return self.controller.sent(now_s, self.controller.actions.actions[place].id)

    def gave_up(self, now_s: float, flight: int) -> None:
        """Tells the controller."""
        self.controller.gave_up(now_s, flight)

    def observe(self, now_s: float, flight: int, outcome: Outcome) -> None:
        """Tells the controller."""
        if flight:
            self.controller.back(flight)
        self.controller.observe(now_s, outcome)

    def race_over(self, now_s: float, other_won: bool) -> None:
        """Tells the controller."""
        self.controller.race_over(now_s, other_won)

    def answered(self, hedged: bool) -> None:
        """Tells the controller."""
        self.controller.answered(hedged)

    def ponged(self, now_s: float, round_trip_ms: float) -> None:
        """Tells the controller."""
        self.controller.ponged(now_s, round_trip_ms)


class MeanArgmin(Silent):
    """Neurosurgeon's rule: the smallest expected time under exponentially weighted means of what was seen.

    It is granted a free reading of the link and the server every few seconds, as its device pings the server.
    """

    _PING_S, _WEIGHT = 2.0, 0.3

    def __init__(self, actions: ActionSet) -> None:
        self._actions = actions
        self._link: Link | None = None
        self._load = Load()
        self._pinged_s = -np.inf

    def decide(self, request: int, now_s: float, device: Device) -> Move:
        """Pings when it is time, and takes the smallest mean."""
        if now_s - self._pinged_s >= self._PING_S:
            self._pinged_s = now_s
            self._see(device.trace.rtt_ms.at(now_s), device.trace.up.at(now_s), device.trace.down.at(now_s))
            self._load = Load(
                device_slowdown=1 / (1 - device.utilisation(now_s)),
                server_slowdown=1 / (1 - device.day.load.server.at(now_s)),
                queue_ms=device.server.wait_s(now_s) * 1e3,
            )
        assert self._link is not None
        return Move(choose(self._actions, self._link, self._load, Policy()).place)

    def _see(self, rtt_ms: float, up: float, down: float) -> None:
        before = self._link
        if before is None:
            self._link = Link(rtt_ms=rtt_ms, uplink_mbps=up, downlink_mbps=down)
            return
        keep = 1 - self._WEIGHT
        self._link = Link(
            rtt_ms=keep * before.rtt_ms + self._WEIGHT * rtt_ms,
            uplink_mbps=keep * before.uplink_mbps + self._WEIGHT * up,
            downlink_mbps=keep * before.downlink_mbps + self._WEIGHT * down,
        )


def made(name: str, believed: ActionSet, policy: Policy, admitted: Sequence[int], settings: Settings) -> Decider:
    """A policy by its name; `best_fixed` is not among these, as it is known only afterwards.

    Args:
        name: One of NAMES.
        believed: Costs as the device believes them.
        policy: What the person wants.
        admitted: Places of the actions that the policy allows.
        settings: Of the adaptive ones.
    """
    if name == "adaptive":
        return Adaptive(Controller(believed, policy, settings=settings))
    if name == "adaptive_without_load":
        return Adaptive(Controller(believed, policy, settings=dataclasses.replace(settings, see_load=False)))
    if name == "oracle":
        return Oracle(admitted)
    if name == "always_local":
        return Fixed(believed.fallback)
    if name == "always_offload":
        return Fixed(offload_place(believed.actions, admitted))
    if name == "mean_argmin":
        return MeanArgmin(believed)
    raise ValueError(name)


def offload_place(actions: Sequence[ActionCost], admitted: Sequence[int]) -> int:
    """The action that sends the input in the fewest bytes; without one, the one that sends least; else the first."""
    sending = [place for place in admitted if actions[place].offload_fraction == 1.0]
    inputs = [place for place in sending if actions[place].kind == "offload"]
    return min(inputs or sending or admitted, key=lambda place: actions[place].bytes_up)
