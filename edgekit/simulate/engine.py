"""The event loop: several devices, one server, one policy a device."""

from __future__ import annotations

import dataclasses
import functools
import heapq
import itertools
import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np

from edgekit.simulate.policies import Decider, Move
from edgekit.simulate.world import Day, Device, Server, Trip
from edgekit_runtime.adaptive import ActionCost, Outcome


class Answered(NamedTuple):
    """One request as it went."""

    arrival_s: float
    latency_ms: float
    place: int  # the action chosen
    won: int  # the action whose answer came first
    hedged: bool
    raced: bool


@dataclasses.dataclass
class _Request:
    """A request on its way."""

    device: int
    number: int
    arrival_s: float
    move: Move
    trips: dict[int, tuple[Trip, int]]  # by place: the trip and its flight
    done: bool = False
    hedged: bool = False
    done_s: float = math.inf
    back: set[int] = dataclasses.field(default_factory=set)  # places whose answer came from the server


_CANCELLED = -1
_PING_MBIT = 100 * 8e-6


class Simulation:
    """Runs days to their end. A request that no answer can reach (no link, no net) ends as infinite: lost."""

    def __init__(
        self, days: Sequence[Day], deciders: Sequence[Decider], fallbacks: Sequence[int], workers: int
    ) -> None:
        server = Server(workers)
        self._devices = [Device(day, server) for day in days]
        self._deciders = deciders
        self._fallbacks = fallbacks
        self._server = server
        self._events: list[tuple[float, int, Callable[[float], None]]] = []
        self._count = itertools.count()
        self._answers: list[dict[int, Answered]] = [{} for _ in days]

    def run(self) -> list[list[Answered]]:
        """The requests of each device, in order of arrival."""
        for place, device in enumerate(self._devices):
            self._at(float(device.day.arrivals_s[0]), functools.partial(self._arrive, place, 0))
        while self._events:
            now, _, call = heapq.heappop(self._events)
            call(now)
        return [self._ordered(place) for place in range(len(self._devices))]

    def _ordered(self, place: int) -> list[Answered]:
        day, answers = self._devices[place].day, self._answers[place]
        lost = [number for number in range(len(day)) if number not in answers]
        for number in lost:
            answers[number] = Answered(float(day.arrivals_s[number]), math.inf, -1, -1, False, False)
        return [answers[number] for number in range(len(day))]

    def _at(self, time_s: float, call: Callable[[float], None]) -> None:
        if time_s < math.inf:
            heapq.heappush(self._events, (time_s, next(self._count), call))

    def _arrive(self, d: int, number: int, now: float) -> None:
        device = self._devices[d]
        if number + 1 < len(device.day):
            self._at(float(device.day.arrivals_s[number + 1]), lambda then: self._arrive(d, number + 1, then))
        move = self._deciders[d].decide(number, now, device)
        request = _Request(d, number, now, move, {})
        places = [move.place] if move.race is None else [move.place, move.race]
        if move.race is not None and _light(device.day.actions[move.race], device.day.actions[move.place]):
            places.reverse()
        for place in places:
            self._start(request, place, now)
        if (probe := move.probe) is not None:
            self._start(request, probe, now)
            self._at(now + (move.hedge_ms or 0.0) / 1e3, lambda then: self._give_up(request, probe, then))
        if move.race is not None:
            self._at(now + move.race_limit_ms / 1e3, lambda then: self._abandon(request, then))
        if move.ping:
            self._ping(d, number, now)
        if move.hedge_ms is not None and (move.race is None or device.day.actions[move.race].leaves):
            self._at(now + move.hedge_ms / 1e3, lambda then: self._hedge(request, then))

    def _start(self, request: _Request, place: int, now: float) -> None:
        device = self._devices[request.device]
        trip = device.head(request.number, place, now)
        device.begin(trip)
        if trip.device_ms > 0:
            self._deciders[request.device].running(now, place)
            self._at(trip.head_done_s, lambda then: self._deciders[request.device].stopped())
        flight = 0
        if trip.sent:
            # An uplink that is blocked for ever has no time at which it would be free.
            leaves_s = trip.up_start_s if trip.up_start_s < math.inf else trip.head_done_s
            flight = self._deciders[request.device].sent(leaves_s, place)
            self._at(trip.at_server_s, lambda then: self._serve(request, trip, then))
        else:
            self._at(trip.head_done_s, lambda then: self._local_done(request, trip, then))
        request.trips[place] = (trip, flight)

    def _abandon(self, request: _Request, now: float) -> None:
        """Gives up what a race still has on its way once the request is answered."""
        for place in request.trips if request.done else ():
            self._give_up(request, place, now)

    def _give_up(self, request: _Request, place: int, now: float) -> None:
        """Cancels what is still on its way to the server or back."""
        trip, flight = request.trips[place]
        if trip.sent and flight != _CANCELLED and place not in request.back:
            self._devices[request.device].cancel(trip, now)
            request.trips[place] = (trip, _CANCELLED)
            self._deciders[request.device].gave_up(now, flight)

    def _ping(self, d: int, number: int, now: float) -> None:
        device = self._devices[d]
        back = device.trace.up.finish(now, _PING_MBIT) + 2 * device.one_way_ms(number, now) / 1e3
        self._at(back, lambda then: self._deciders[d].ponged(then, (then - now) * 1e3))

    def _hedge(self, request: _Request, now: float) -> None:
        if not request.done:
            request.hedged = True
            self._start(request, self._fallbacks[request.device], now)

    def _serve(self, request: _Request, trip: Trip, now: float) -> None:
        device = self._devices[request.device]
        if request.trips[trip.place][1] == _CANCELLED:
            return
        service = device.service_s(request.number, trip.place, now)
        served = self._server.take(now, service)
        answered = device.answered_s(request.number, trip.place, served)
        queue_ms, service_ms = (served - service - now) * 1e3, service * 1e3
        self._at(answered, lambda then: self._remote_done(request, trip, queue_ms, service_ms, then))

    def _local_done(self, request: _Request, trip: Trip, now: float) -> None:
        if request.trips[trip.place][1] == _CANCELLED and trip.head_start_s > request.done_s:
            return  # it was cancelled before it began
        action = self._devices[request.device].day.actions[trip.place]
        self._deciders[request.device].observe(now, 0, Outcome(action.id, device_ms=trip.device_ms))
        self._finish(request, trip.place, now)

    def _remote_done(self, request: _Request, trip: Trip, queue_ms: float, service_ms: float, now: float) -> None:
        flight = request.trips[trip.place][1]
        if flight == _CANCELLED:
            return
        action = self._devices[request.device].day.actions[trip.place]
        outcome = Outcome(
            action.id,
            device_ms=trip.device_ms,
            network_ms=(now - trip.up_start_s) * 1e3 - queue_ms - service_ms,
            bytes_up=action.bytes_up,
            bytes_down=action.bytes_down,
            queue_ms=queue_ms,
            server_ms=service_ms,
        )
        request.back.add(trip.place)
        self._deciders[request.device].observe(now, flight, outcome)
        self._finish(request, trip.place, now)

    def _finish(self, request: _Request, place: int, now: float) -> None:
        if request.done or place == request.move.probe:
            return
        request.done, request.done_s = True, now
        device, decider, move = self._devices[request.device], self._deciders[request.device], request.move
        for other, (trip, flight) in request.trips.items():
            # A race is let end, as it is there to learn; beside a hedge, what is still out is cancelled.
            if other != place and request.hedged and flight != _CANCELLED:
                device.cancel(trip, now)
                request.trips[other] = (trip, _CANCELLED)
                if trip.sent:
                    decider.gave_up(now, flight)
        if place in request.back and move.race is None:
            decider.answered(request.hedged)
        if move.race is not None:
            decider.race_over(now, place == move.race)
        self._answers[request.device][request.number] = Answered(
            request.arrival_s,
            (now - request.arrival_s) * 1e3,
            move.place,
            place,
            request.hedged,
            move.race is not None,
        )


def _light(other: ActionCost, chosen: ActionCost) -> bool:
    """May the other side of a race go first, because it hardly takes the device from the chosen one?"""
    return other.device_ms <= 0.1 * chosen.device_ms


def latencies_ms(answers: Sequence[Answered]) -> np.ndarray:
    """Of each request, float64 [n]; infinite where lost."""
    return np.array([answer.latency_ms for answer in answers])
