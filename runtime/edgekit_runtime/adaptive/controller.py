"""Estimators and choice together: what to do with the next request, and what was learned from the last.

A plan is a decision with two nets under it:

    hedge   the local run starts when the answer has not come by then: at the predicted 99th percentile of the action,
            at the latest when only the local one is left of the deadline, at once before anything was heard
    race    the other side is tried beside the chosen one, because little is known of it and it may well be better.
            The first answer wins, so that a probe never costs the request any time; it is kept to a small share

and two ways to learn what the requests do not tell: an empty request (ping), and one that sends more (probe).

The clock is the caller's: the same object serves the device, the simulator and the tests.
"""

from __future__ import annotations

import math
import random
from collections.abc import Sequence

import msgspec

from edgekit_runtime.adaptive import costs, trials
from edgekit_runtime.adaptive.actions import DEVICE, ROUND_TRIP, UPLINK, ActionCost, ActionSet, compiled
from edgekit_runtime.adaptive.choose import Decision, choose, objective, open_places
from edgekit_runtime.adaptive.device_queue import DeviceQueue
from edgekit_runtime.adaptive.estimators import LinkEstimator, LoadEstimator
from edgekit_runtime.adaptive.flights import OVERDUE, Flight, Flights
from edgekit_runtime.adaptive.shares import Shares
from edgekit_runtime.adaptive.state import Link, Load, Policy
from edgekit_runtime.adaptive.trials import Budget, Settings

__all__ = ["Controller", "Outcome", "Plan", "Settings"]

_CLOCK_MS = 0.3
_LATE = 0.01  # share of answers that may be later than the predicted 99th percentile
_LONG_LOCAL = 5.0  # times the first offload: a run that holds the device so long waits for the 99th percentile
_SILENCE_S, _SILENCE_REQUESTS = 4.0, 4  # nothing heard for so long, while so many came: an offload is a first one again
_LONGEST_PROBE_PAUSE_S = 3.0
_PATIENCE_STEP, _MOST_PATIENCE = 0.4, math.log(3.0)


class Plan(msgspec.Struct, frozen=True, eq=False):
    """What to do with one request.

    Attributes:
        decision: The choice.
        hedge_ms: Start the local fall-back when no answer came after this time; None: the answer is local anyway.
        race: Id of a second action to run beside the chosen one; empty: none.
        race_limit_ms: A race that sends is given up after this time.
        ping: Send an empty request beside it: only that tells the round trip from the bandwidth when all requests are
            of one size.
        probe: Id of an action that sends more, by which the request goes out a second time, behind itself; empty: none.
            Its answer is not used, and not waited for longer than `hedge_ms`.
    """

    decision: Decision
    hedge_ms: float | None
    race: str = ""
    race_limit_ms: float = 0.0
    ping: bool = False
    probe: str = ""


class Outcome(msgspec.Struct, frozen=True):
    """What one finished action took. Fields of a part that did not happen are None.

    Attributes:
        action: Its id.
        device_ms: Head and encoding on the device, without waiting for the device.
        network_ms: Round trip less the server's residence time.
        bytes_up: Sent.
        bytes_down: Received.
        queue_ms: Wait on the server, as it says.
        server_ms: Its service time, as it says.
        samples: In the request.
        sent_samples: Of them, those that the server got; None: all.
    """

    action: str
    device_ms: float | None = None
    network_ms: float | None = None
    bytes_up: int = 0
    bytes_down: int = 0
    queue_ms: float | None = None
    server_ms: float | None = None
    samples: int = 1
    sent_samples: int | None = None


class Controller:
    """One for each session. Not thread-safe: the session holds a lock."""

    def __init__(
        self,
        actions: Sequence[ActionCost] | ActionSet,
        policy: Policy,
        *,
        settings: Settings | None = None,
        link: Link | None = None,
        seed: int = 0,
    ) -> None:
        """Starts knowing nothing but the profile.

        Args:
            actions: What can be done, as measured or predicted.
            policy: What the person wants.
            settings: Limits and switches.
            link: A first guess.
            seed: Of the jitter after failures.
        """
        self.actions = compiled(actions)
        self.policy = policy
        self.settings = settings or Settings()
        self.link = LinkEstimator(link)
        self.load = LoadEstimator()
        self._random = random.Random(seed)
        self.shares = Shares(self.actions)
        self._flights = Flights()
        self._queue = DeviceQueue()
        self._believed = Load()  # at the last decision
        self._races = Budget(self.settings.race_fraction, self.settings.longest_pause_s)
        self._probes = Budget(self.settings.probe_fraction, _LONGEST_PROBE_PAUSE_S)
        self._probed_kbit = math.inf  # of the probe that no request has followed yet
        self._unheard = 0  # requests since the other side was heard of
        self._down_until_s = -math.inf
        self._failures = 0
        self._pinged_s = -math.inf
        self._patience = 0.0  # logarithm of the factor that makes the 99th percentile one

    def plan(self, now_s: float, samples: int = 1) -> Plan:
        """Decides the next request, which has so many samples."""
        self._queue.asked(now_s)
        link, load = self._link(now_s), self._load(now_s, samples)
        self._believed = load
        decision = choose(self.actions, link, load, self.policy)
        self._races.count()
        self._probes.count()
        self._unheard += 1
        hedge_ms = self._hedge_ms(decision)
        return Plan(
            decision,
            hedge_ms,
            self._race(now_s, decision, link),
            trials.race_limit_ms(decision),
            self._ping(now_s, link),
            self._probe(now_s, decision, link) if hedge_ms else "",
        )

    def close(self, ids: Sequence[str]) -> None:
        """Chooses these actions no more; what is on its way by them ends as it began."""
        self.policy = msgspec.structs.replace(self.policy, without=(*self.policy.without, *ids))

    def running(self, now_s: float, action_id: str, samples: int = 1) -> None:
        """Says that a run on the device begins, or waits for those before it. `observe` or `stopped` ends it."""
        place = self.actions.place(action_id)
        load = self.load.read(now_s, samples)
        expected_ms = self.actions.rows[place][DEVICE] * load.device_slowdown * load.device_work
        self._queue.begin(now_s, expected_ms)

    def stopped(self) -> None:
        """A run on the device has ended."""
        self._queue.end()

    def sent(
        self,
        now_s: float,
        action_id: str,
        samples: int = 1,
        link: Link | None = None,
        bytes_up: int | None = None,
        sent_samples: int | None = None,
    ) -> int:
        """Says that a request is on its way to the server. Returns a number for `back` or `gave_up`.

        Args:
            now_s: Monotonic.
            action_id: Of the action that sends.
            samples: In the request.
            link: As read for its decision, which is as good as a new reading; None, or others are out: it is read.
            bytes_up: Of the message, which teaches the action's share whatever becomes of it; None: what is expected.
            sent_samples: Of the samples, those in the message; None: all.
        """
        load = self._believed
        action = self.actions.sending(load.shares)[action_id]
        if link is None or not link.up or self._flights:
            link = self.link.read(now_s)
        count = samples if sent_samples is None else sent_samples
        if bytes_up is None:
            bytes_up = count * action.bytes_up
        else:
            self.shares.sent(action_id, count, bytes_up)
        network_ms = link.rtt_ms + bytes_up * 8e-3 / link.uplink_mbps
        residence_ms = load.queue_ms + load.server_slowdown * load.server_work * action.server_ms
        return self._flights.add(Flight(now_s, bytes_up, count * action.bytes_down, network_ms, residence_ms))

    def back(self, flight: int) -> None:
        """The request's answer came."""
        self._flights.pop(flight)
        self._failures = 0
        self._down_until_s = -math.inf

    def gave_up(self, now_s: float, flight: int) -> None:
        """The request was cancelled: its time was at least what it has waited.

        Nothing tells whether it was the link that held it. So the link is taken for slow, which is the safe guess, and
        the pauses between races become short: a look at the other side will soon tell. Not on a full device, where who
        returns too early, and is overdue again, holds up all behind.
        """
        gone = self._flights.pop(flight)
        if gone is None:
            return
        waited_ms = gone.waited_ms(now_s)
        if waited_ms > gone.network_ms:
            self.link.see(now_s, OVERDUE * waited_ms, gone.bytes_up, gone.bytes_down, noise=0.15)
            if not self._queue.full(self._quickest_ms(self._believed)):
                self._races.again(now_s)

    def failed(self, now_s: float, flight: int, retry_after_s: float | None = None) -> None:
        """The server could not be reached, refused or answered wrongly: leave it alone for a while, with jitter."""
        self._flights.pop(flight)
        self._failures += 1
        pause = min(self.settings.first_backoff_s * 2 ** (self._failures - 1), self.settings.longest_backoff_s)
        pause = max(pause, retry_after_s or 0.0)
        self._down_until_s = now_s + pause * self._random.uniform(0.75, 1.25)

    def observe(self, now_s: float, outcome: Outcome) -> None:
        """Learns from a finished action."""
        action = self.actions[outcome.action]
        # Encoding alone tells nothing of the device: sending, which goes with it, takes as long and is slow at first.
        if outcome.device_ms is not None and action.head_ms > 0:
            idle_ms = action.head_ms + action.encode_ms
            ratio = outcome.device_ms / idle_ms
            # A run of microseconds tells nothing of the device: what surrounds it takes longer than it does.
            noise = math.hypot(0.1, (action.head_sd_ms + _CLOCK_MS) / (idle_ms * outcome.samples))
            self.load.see_local_run(now_s, ratio, noise, outcome.samples)
        served = outcome.samples if outcome.sent_samples is None else outcome.sent_samples
        if outcome.network_ms is not None:
            self._unheard = 0
            self.link.see(now_s, outcome.network_ms, outcome.bytes_up, outcome.bytes_down)
            self.shares.received(outcome.action, served, outcome.bytes_down)
        if outcome.queue_ms is not None and outcome.server_ms is not None and action.server_ms > 0:
            self.load.see_reply(now_s, outcome.queue_ms, outcome.server_ms / action.server_ms, samples=served)

    def ponged(self, now_s: float, round_trip_ms: float) -> None:
        """An empty request came back."""
        self.link.see(now_s, round_trip_ms, 0, 0)

    def race_over(self, now_s: float, other_won: bool) -> None:
        """Says how a race ended, so that races that show nothing new become rare."""
        self._races.over(now_s, other_won)

    def answered(self, hedged: bool) -> None:
        """Says that the server's answer was the first, and whether the local run had been started for nothing.

        One answer in a hundred may be later than the 99th percentile. Where more are, the factor on it rises until
        that holds (adaptive conformal inference, Gibbs and Candès 2021, eq. 2). Answers that never came are not
        counted, so that an outage does not teach patience.
        """
        step = _PATIENCE_STEP * (1 - _LATE if hedged else -_LATE)
        self._patience = min(max(self._patience + step, 0.0), _MOST_PATIENCE)

    def _link(self, now_s: float) -> Link:
        if now_s < self._down_until_s:
            return Link(uplink_mbps=0.0, downlink_mbps=0.0)
        link = self.link.read(now_s)
        return self._flights.seen(now_s, link)

    def _load(self, now_s: float, samples: int) -> Load:
        load = self.load.read(now_s, samples, self.shares.told)
        if not self.settings.see_load:
            blind = Load(battery_fraction=load.battery_fraction, shares=load.shares)
            work = {"samples": samples, "device_work": load.device_work, "server_work": load.server_work}
            load = msgspec.structs.replace(blind, **work)
        if not (wait_ms := self._queue.wait_ms(now_s)):
            return load
        return msgspec.structs.replace(load, device_wait_ms=wait_ms, device_price=self._price(load, wait_ms))

    def _price(self, load: Load, wait_ms: float) -> float:
        """Of the queue on the device, where nothing but the latency counts."""
        if self.policy.deadline_ms is not None or objective(load, self.policy) != "latency":
            return 0.0
        return self._queue.price(wait_ms, self._quickest_ms(load))

    def _quickest_ms(self, load: Load) -> float:
        """The quickest run here that is allowed: exits drain a queue that the whole graph does not."""
        allowed = [self.actions.rows[place] for place in open_places(self.actions, self.policy, load.samples)]
        quickest_ms = min(row[DEVICE] for row in allowed if row[ROUND_TRIP] == 0.0)
        return quickest_ms * load.device_slowdown * load.device_work

    def _ping(self, now_s: float, link: Link) -> bool:
        """Only over an idle uplink, and only where something may be sent at all."""
        again = self.link.doubts or now_s - self._pinged_s >= self.settings.ping_every_s
        due = again and not self._flights and link.up
        if not due or all(
            self.actions.rows[place][ROUND_TRIP] == 0.0 for place in open_places(self.actions, self.policy)
        ):
            return False
        self._pinged_s = now_s
        return True

    def _hedge_ms(self, decision: Decision) -> float | None:
        actions = self.actions
        if actions.rows[decision.place][ROUND_TRIP] == 0.0:  # nothing is ever sent
            return None
        age_s = decision.link.age_s
        unknown = age_s is None or (age_s >= _SILENCE_S and self._unheard > _SILENCE_REQUESTS)
        if unknown and decision.moments(actions.fallback)[0] < _LONG_LOCAL * decision.predicted_ms:
            return 0.0  # nothing was heard of the other side, ever or for long: its 99th percentile is a guess
        patience = costs.quantile_ms(*decision.moments(), 2.33) * math.exp(self._patience)
        if self.policy.deadline_ms is not None:
            left = self.policy.deadline_ms - costs.quantile_ms(*decision.moments(actions.fallback), 2.33)
            patience = min(patience, max(left, 0.0))
        return patience

    def _race(self, now_s: float, decision: Decision, link: Link) -> str:
        """The action of the other side that is worth a try, if the budget has one left."""
        if not self._races.open_at(now_s) or not link.up or self.policy.objective not in ("latency", "accuracy"):
            return ""
        remote = decision.actions.rows[decision.place][ROUND_TRIP] > 0.0
        stale = not remote and (link.age_s is None or link.age_s >= self._races.pause_s)
        usual = self.load.usual_server if stale else (math.inf, math.inf)
        bright = trials.brighter(link, stale, self.link.usual_rtt_ms), trials.brighter_load(decision.load, *usual)
        place = trials.rival(decision, *bright, self.settings.race_gain)
        if place is None:
            return ""
        self._races.take(now_s)
        return self.actions.actions[place].id

    def _probe(self, now_s: float, decision: Decision, link: Link) -> str:
        """The action that sends more and would be quicker over a wider uplink than is believed."""
        kbit = decision.actions.rows[decision.place][UPLINK]
        quick = objective(decision.load, self.policy) == "latency" and self.policy.max_bytes is None
        if not quick or not kbit or not link.up or self._flights:
            return ""
        if self._probed_kbit < math.inf:
            self._probes.over(now_s, kbit >= self._probed_kbit)
            self._probed_kbit = math.inf
        if not self._probes.open_at(now_s):
            return ""
        place = trials.larger(decision, self._queue.gap_s)
        if place is None:
            return ""
        self._probes.take(now_s)
        self._probed_kbit = decision.actions.rows[place][UPLINK]
        return self.actions.actions[place].id
