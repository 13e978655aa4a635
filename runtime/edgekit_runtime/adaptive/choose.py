"""choose(actions, link, load, policy) -> Decision: a pure function, quick enough for every request.

1. what the policy forbids is out: privacy, bytes, accuracy risk (never relaxed; the local fall-back always stays)
2. with a deadline: only actions whose probability of a miss is small enough; when there is none, the least likely
   miss wins
3. among those the objective decides; equal ones by time
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from edgekit_runtime.adaptive import costs
from edgekit_runtime.adaptive.actions import ActionCost, ActionSet, Kind, compiled
from edgekit_runtime.adaptive.state import Link, Load, Objective, Policy
from edgekit_runtime.errors import UsageError

if TYPE_CHECKING:
    from edgekit_runtime.adaptive.explain import Alternative


# Up to so many actions Python's own numbers are faster than numpy's arrays, which have left the caches by the
# next request (decision 0046: 45 us for one product).
_FEW = 24


class Decision:
    """The chosen action with what it rests on. Reasons, alternatives and interval are worked out when asked for.

    Attributes:
        action: Id of the chosen action.
        kind: Its kind.
        predicted_ms: Expected time of the whole request.
        place: Its index in `actions`.
        actions: What was chosen from, with the bytes that each is expected to send (`Load.shares`).
        link: The network as believed.
        load: Device and server as believed.
        policy: What was wanted.
    """

    __slots__ = ("_state", "action", "actions", "kind", "link", "load", "place", "policy", "predicted_ms")

    def __init__(
        self,
        actions: ActionSet,
        place: int,
        predicted_ms: float,
        link: Link,
        load: Load,
        policy: Policy,
        state: tuple[costs.Levels, costs.Levels] | None = None,
    ) -> None:
        """Keeps `state`, where it is known already: what `costs.levels` makes of link and load."""
        chosen = actions.actions[place]
        self.action: str = chosen.id
        self.kind: Kind = chosen.kind
        self.predicted_ms = predicted_ms
        self.place = place
        self.actions, self.link, self.load, self.policy = actions, link, load, policy
        self._state = state

    @property
    def estimates(self) -> dict[str, Link | Load]:
        """What was believed: `link` and `load`."""
        return {"link": self.link, "load": self.load}

    @property
    def interval_ms(self) -> tuple[float, float]:
        """95 % interval of the time of this one request."""
        mean, spread2 = self.moments()
        return costs.quantile_ms(mean, spread2, -1.96), costs.quantile_ms(mean, spread2, 1.96)

    @property
    def alternatives(self) -> tuple[Alternative, ...]:
        """Every action with its prediction and why it lost, the chosen one first, then by time."""
        from edgekit_runtime.adaptive.explain import alternatives

        return alternatives(self)

    @property
    def reasons(self) -> tuple[str, ...]:
        """Why this action, a sentence each."""
        from edgekit_runtime.adaptive.explain import reasons

        return reasons(self)

    def explain(self) -> str:
        """The decision in plain words."""
        from edgekit_runtime.adaptive.explain import explain

        return explain(self)

    @property
    def levels(self) -> tuple[costs.Levels, costs.Levels]:
        """What `costs.levels` makes of `link` and `load`."""
        return self._state or costs.levels(self.link, self.load)

    def moments(self, place: int | None = None) -> tuple[float, float]:
        """Mean (ms) and variance (ms²) of one action's time, the chosen one's by default."""
        theta, theta_variance = self.levels
        if place is None:
            return self.predicted_ms, costs.variance_of(self.actions, self.place, theta, theta_variance)
        mean = costs.mean_of(self.actions.rows[place], theta)
        return mean, costs.variance_of(self.actions, place, theta, theta_variance)

    def document(self) -> dict[str, Any]:
        """The decision as plain data."""
        from edgekit_runtime.adaptive.explain import document

        return document(self)

    def __repr__(self) -> str:
        return f"Decision({self.action!r}, {self.kind}, {self.predicted_ms:.2f} ms)"


def choose(actions: Sequence[ActionCost] | ActionSet, link: Link, load: Load, policy: Policy) -> Decision:
    """Chooses the action for one request.

    Args:
        actions: Everything that could be done; compiled once (`ActionSet`) where many requests follow.
        link: The network as believed now.
        load: Device and server as believed now.
        policy: What the person wants.

    Raises:
        UsageError: The policy names a split point that no action has.
    """
    actions = compiled(actions)
    if load.shares != actions.shares:
        actions = actions.sending(load.shares)
    state = theta, theta_variance = costs.levels(link, load)
    wanted = objective(load, policy)
    if wanted == "latency":
        place, ms = _quickest(actions, theta, policy, load.samples)
        if policy.deadline_ms is None or _surely(actions, place, ms, state, policy):
            return Decision(actions, place, ms, link, load, policy, state)
    times = actions.terms @ theta
    barred = admitted(actions, policy, load.samples)
    open_to = barred == 0
    if policy.deadline_ms is not None:
        spread2 = costs.variance(actions, np.array(theta), np.array(theta_variance))
        margins = costs.margin(times, spread2, policy.deadline_ms) - barred
        open_to = (margins >= costs.margin_needed(policy.miss_probability)) & (barred == 0)
        if not open_to.any():
            # Beyond three standard deviations a miss is a miss, and the faster one misses by less.
            place = best(-np.maximum(margins, -3.0), times, barred == 0)
            return Decision(actions, place, float(times[place]), link, load, policy, state)
    place = best(scores(actions, wanted, np.array(theta), times, load.samples), times, open_to)
    return Decision(actions, place, float(times[place]), link, load, policy, state)


def _quickest(actions: ActionSet, theta: costs.Levels, policy: Policy, samples: int) -> tuple[int, float]:
    """Place and time of the quickest action that the policy allows."""
    places = open_places(actions, policy, samples)
    if len(places) > _FEW:
        times = actions.terms @ np.array(theta) + admitted(actions, policy, samples)
        place = int(times.argmin())
        return place, float(times[place])
    rows, found, least = actions.rows, -1, math.inf
    for place in places:
        ms = costs.mean_of(rows[place], theta)
        if ms < least:
            found, least = place, ms
    return found, least


def _surely(
    actions: ActionSet, place: int, mean_ms: float, state: tuple[costs.Levels, costs.Levels], policy: Policy
) -> bool:
    """Does the quickest action keep the deadline? Then no other has to be looked at."""
    assert policy.deadline_ms is not None
    margin = costs.margin_of(mean_ms, costs.variance_of(actions, place, *state), policy.deadline_ms)
    return margin >= costs.margin_needed(policy.miss_probability)


def objective(load: Load, policy: Policy) -> Objective:
    """The policy's objective; energy when the battery is below its limit."""
    low = policy.min_battery is not None and load.battery_fraction is not None
    if low and load.battery_fraction < policy.min_battery:  # type: ignore[operator]  # neither is None
        return "energy"
    return policy.objective


def scores(actions: ActionSet, wanted: Objective, theta: np.ndarray, times: np.ndarray, samples: int = 1) -> np.ndarray:
    """What the objective makes small, by action [n]."""
    if wanted == "latency":
        return times
    if wanted == "energy":
        return costs.energy_mj(actions, theta, samples)
    return actions.server_cost if wanted == "server_cost" else actions.drop


def best(score: np.ndarray, times: np.ndarray, open_to: np.ndarray) -> int:
    """Index of the smallest score among those open; equal ones by time."""
    limited = np.where(open_to, score, np.inf)
    lowest = limited.min()
    ties = limited <= lowest + 1e-12 * abs(lowest) if math.isfinite(lowest) else open_to
    return int(np.where(ties, times, np.inf).argmin())


def admitted(actions: ActionSet, policy: Policy, samples: int = 1) -> np.ndarray:
    """0 where the policy allows an action and infinity where it does not [n]. Kept by policy (and samples).

    Raises:
        UsageError: `without` or `privacy` names what no action is or has.
    """
    samples = 1 if policy.max_bytes is None else samples  # nothing else of a policy depends on them
    known = actions.admitted.get((policy, samples))
    if known is None:
        unknown = [name for name in policy.without if name not in actions.index]
        if unknown:
            raise UsageError(f"without {unknown[0]!r}: no such action", remedy=f"there are: {', '.join(actions.index)}")
        known = np.array(
            [math.inf if forbidden(action, actions, policy, samples) else 0.0 for action in actions.actions]
        )
        # The full local run is what "never lose a request" rests on: it stays even where its risk is too large.
        known[actions.fallback] = 0.0
        actions.admitted[policy, samples] = known
    return known


def open_places(actions: ActionSet, policy: Policy, samples: int = 1) -> tuple[int, ...]:
    """Places of the actions that the policy allows, in order. Kept as `admitted`.

    Raises:
        UsageError: As `admitted`.
    """
    key = policy, 1 if policy.max_bytes is None else samples
    known = actions.open_to.get(key)
    if known is None:
        known = actions.open_to[key] = tuple(np.flatnonzero(admitted(actions, policy, samples) == 0).tolist())
    return known


def forbidden(action: ActionCost, actions: ActionSet, policy: Policy, samples: int = 1) -> str:
    """Why the policy forbids an action; empty when it does not.

    Raises:
        UsageError: `privacy` names a split point that no action has.
    """
    if action.id in policy.without:
        return "it is switched off (without)"
    if action.leaves and policy.privacy != "":
        if policy.privacy == "local":
            return "nothing may leave the device (privacy)"
        least = _least_depth(actions, policy.privacy)
        if action.depth < least:
            what = f"split point {action.split_point}" if action.split_point else "the input itself"
            return f"{what} may not leave the device (privacy: from {policy.privacy} on)"
    if policy.max_bytes is not None and action.leaves:
        # Never more on a guess: what was declared counts, too, where less was sent so far.
        count = samples * max(action.bytes_up, actions.declared[action.id].bytes_up)
        if count > policy.max_bytes:
            return f"sends {count} bytes, {policy.max_bytes} are allowed"
    if policy.max_risk is not None:
        drop = action.highest_drop
        if drop is None:
            return f"its accuracy was not measured, and the risk may be {policy.max_risk:g} at most"
        if drop > policy.max_risk:
            return f"may lose {drop:.4g} of accuracy, {policy.max_risk:g} is allowed"
    return ""


def _least_depth(actions: ActionSet, privacy: str | int) -> int:
    if isinstance(privacy, int):
        return privacy
    if privacy not in actions.depths:
        known = ", ".join(sorted(actions.depths, key=actions.depths.__getitem__)) or "this bundle has none"
        raise UsageError(
            f"privacy names the split point {privacy!r}, which no action has",
            remedy=f"'local', or one of: {known}",
        )
    return actions.depths[privacy]
