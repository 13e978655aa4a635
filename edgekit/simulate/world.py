"""The simulated device, link and server: what one request really takes.

    arrival ── device (first come, first served) ── uplink (first come, first served) ── server (n workers) ── downlink
               head x slow-down of that moment      integrates the trace's rate          tail x slow-down      back

Everything that chance decides about a request (how long a run takes, how the round trip jitters, whether it exits
early) is drawn once a request, so that every policy meets the same day.
"""

from __future__ import annotations

import dataclasses
import heapq
import math
from collections.abc import Sequence

import numpy as np

from edgekit.simulate.traces import LoadTrace, Trace
from edgekit_runtime.adaptive import ActionCost

_READ_EVERY_S = 0.5  # how often a device reads its own utilisation


@dataclasses.dataclass(frozen=True)
class Day:
    """One device's requests and everything around them.

    Attributes:
        actions: True costs, on an idle device and server.
        trace: The link.
        load: Utilisation by others.
        arrivals_s: When requests come, float64 [n].
        device_noise: Factor on every run on the device [n].
        server_noise: Factor on every run on the server [n].
        jitter_ms: Added to the round trip [n].
        exit_draw: Uniform in 0 to 1 [n]: below 1 - offload_fraction the request ends on the device.
        shift_s: Place of the trace at which this device's day begins.
    """

    actions: tuple[ActionCost, ...]
    trace: Trace
    load: LoadTrace
    arrivals_s: np.ndarray
    device_noise: np.ndarray
    server_noise: np.ndarray
    jitter_ms: np.ndarray
    exit_draw: np.ndarray
    shift_s: float = 0.0

    def __len__(self) -> int:
        return len(self.arrivals_s)


@dataclasses.dataclass(frozen=True)
class Chance:
    """How much chance there is: coefficients of variation, and the mean jitter as a fraction of the round trip."""

    device: float = 0.05
    server: float = 0.1
    jitter: float = 0.1


def day(
    actions: Sequence[ActionCost],
    trace: Trace,
    load: LoadTrace | None = None,
    *,
    requests: int = 500,
    interval_s: float = 0.2,
    chance: Chance | None = None,
    seed: int = 0,
) -> Day:
    """Draws a day: one request every interval, with a little irregularity.

    Args:
        actions: True costs.
        trace: The link; repeated when the day is longer.
        load: Utilisation over time; None: idle.
        requests: How many.
        interval_s: Mean time between two.
        chance: How much chance there is.
        seed: Of the draws.
    """
    rng = np.random.default_rng(seed)
    chance = chance or Chance()
    gaps = interval_s * rng.uniform(0.9, 1.1, requests)
    rtt_ms = float(np.mean(trace.rtt_ms.mbps))
    return Day(
        actions=tuple(actions),
        trace=trace,
        load=load or LoadTrace.constant(),
        arrivals_s=np.cumsum(gaps),
        device_noise=_lognormal(rng, chance.device, requests),
        server_noise=_lognormal(rng, chance.server, requests),
        jitter_ms=rng.exponential(max(chance.jitter * rtt_ms, 1e-9), requests),
        exit_draw=rng.uniform(0, 1, requests),
    )


class Server:
    """Workers that several devices share; first come, first served."""

    def __init__(self, workers: int = 4) -> None:
        self._free_s = [0.0] * workers

    def wait_s(self, now_s: float) -> float:
        """How long something that arrives now waits."""
        return max(self._free_s[0] - now_s, 0.0)

    def take(self, now_s: float, seconds: float) -> float:
        """Takes a worker; returns when it is done."""
        start = max(heapq.heappop(self._free_s), now_s)
        heapq.heappush(self._free_s, start + seconds)
        return start + seconds


@dataclasses.dataclass
class Trip:
    """What one action of one request took or will take, times in seconds."""

    request: int
    place: int
    head_start_s: float
    head_done_s: float
    device_ms: float
    sent: bool
    up_start_s: float = math.inf
    up_done_s: float = math.inf
    at_server_s: float = math.inf


class Device:
    """One device with its link: resources in use, true times."""

    def __init__(self, its_day: Day, server: Server) -> None:
        self.day = its_day
        self.trace = its_day.trace if not its_day.shift_s else its_day.trace.shifted(its_day.shift_s)
        self.server = server
        self.free_s = 0.0
        self.up_free_s = 0.0

    def head(self, request: int, place: int, now_s: float, sent: bool | None = None) -> Trip:
        """Where an action of a request would stand after the device and the uplink. Changes nothing.

        Args:
            request: Its number.
            place: Of the action.
            now_s: When it may start.
            sent: Does it need the server? None: as drawn.
        """
        today, action = self.day, self.day.actions[place]
        if sent is None:
            sent = action.leaves and today.exit_draw[request] >= 1 - action.offload_fraction
        idle_ms = action.head_ms + (action.encode_ms if sent else 0.0)
        start = max(now_s, self.free_s) if idle_ms else now_s
        run_ms = idle_ms * float(today.device_noise[request]) * self.slowdown(start)
        trip = Trip(request, place, start, start + run_ms / 1e3, run_ms, sent)
        if sent:
            trip.up_start_s = max(trip.head_done_s, self.up_free_s)
            trip.up_done_s = self.trace.up.finish(trip.up_start_s, action.bytes_up * 8e-6)
            if trip.up_done_s < math.inf:
                trip.at_server_s = trip.up_done_s + self.one_way_ms(request, trip.up_done_s) / 1e3
        return trip

    def begin(self, trip: Trip) -> None:
        """Takes the device and the uplink for a trip."""
        if trip.device_ms:
            self.free_s = trip.head_done_s
        if trip.sent:
            self.up_free_s = trip.up_done_s

    def cancel(self, trip: Trip, now_s: float) -> None:
        """Frees what a trip still holds or waits for, when nothing was queued behind it. A run that has begun ends."""
        if trip.head_start_s > now_s and self.free_s == trip.head_done_s:
            self.free_s = trip.head_start_s
        if trip.sent and trip.up_done_s > now_s and self.up_free_s == trip.up_done_s:
            self.up_free_s = max(now_s, min(trip.up_start_s, now_s))

    def service_s(self, request: int, place: int, now_s: float) -> float:
        """Time of the tail on the server at that moment."""
        busy = self.day.load.server.at(now_s)
        action = self.day.actions[place]
        return action.server_ms * float(self.day.server_noise[request]) / (1 - busy) / 1e3

    def answered_s(self, request: int, place: int, served_s: float) -> float:
        """When the answer is back."""
        action = self.day.actions[place]
        down = self.trace.down.finish(served_s, action.bytes_down * 8e-6)
        return down + (self.one_way_ms(request, min(down, served_s + 3600)) + action.answer_ms) / 1e3

    def foresee(self, request: int, place: int, now_s: float) -> float:
        """When an action would be answered, knowing link and load to come, but not whether it exits early: expected.

        Changes nothing.
        """
        sent = self.day.actions[place].offload_fraction
        here = self.head(request, place, now_s, sent=False).head_done_s if sent < 1 else 0.0
        return (1 - sent) * here + sent * self._foresee_sent(request, place, now_s) if sent else here

    def _foresee_sent(self, request: int, place: int, now_s: float) -> float:
        trip = self.head(request, place, now_s, sent=True)
        if trip.at_server_s == math.inf:
            return math.inf
        served = trip.at_server_s + self.server.wait_s(trip.at_server_s)
        return self.answered_s(request, place, served + self.service_s(request, place, trip.at_server_s))

    def slowdown(self, now_s: float) -> float:
        """Of a run on the device at that moment."""
        return 1 / (1 - self.day.load.device.at(now_s))

    def utilisation(self, now_s: float) -> float:
        """By others, as last read."""
        return self.day.load.device.at(now_s - now_s % _READ_EVERY_S)

    def one_way_ms(self, request: int, now_s: float) -> float:
        """Half the round trip of a request."""
        return (self.trace.rtt_ms.at(now_s) + float(self.day.jitter_ms[request])) / 2


def _lognormal(rng: np.random.Generator, variation: float, n: int) -> np.ndarray:
    spread = math.sqrt(math.log1p(variation**2))
    return np.exp(rng.normal(-(spread**2) / 2, spread, n))
