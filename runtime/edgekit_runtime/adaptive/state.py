"""What is believed of the link and of the load, and what the person wants."""

from __future__ import annotations

import math
from typing import Literal

import msgspec

from edgekit_runtime.errors import UsageError
from edgekit_runtime.manifest import Base

Objective = Literal["latency", "energy", "server_cost", "accuracy"]
# A spread beyond a factor of e in either direction says "unknown"; more would let one stale figure rule every mean.
_WIDEST = 1.0
_NOTHING_MBPS = 1e-4


class Link(Base, frozen=True, kw_only=True):
    """The network as believed now. Spreads are standard deviations of the logarithm (0.1: about 10 %).

    Attributes:
        rtt_ms: Round trip of an empty request.
        uplink_mbps: Decimal megabits a second; 0: nothing gets through.
        downlink_mbps: As above.
        rtt_spread: Of the round trip.
        uplink_spread: Of the uplink.
        downlink_spread: Of the downlink.
        backlog_ms: Until the uplink is free of this session's own earlier requests.
        age_s: Since the last request that told something; None: never.
    """

    rtt_ms: float = 50.0
    uplink_mbps: float = 5.0
    downlink_mbps: float = 10.0
    rtt_spread: float = 0.0
    uplink_spread: float = 0.0
    downlink_spread: float = 0.0
    backlog_ms: float = 0.0
    age_s: float | None = 0.0

    @property
    def up(self) -> bool:
        """Does anything get through?"""
        return self.uplink_mbps > _NOTHING_MBPS and self.downlink_mbps > _NOTHING_MBPS


class Share(Base, frozen=True, kw_only=True):
    """What an action's messages really take of the bytes that were declared for it (`shares`).

    Attributes:
        action: Its id.
        up: Median of bytes sent over bytes declared.
        up_spread: Standard deviation of its logarithm.
        down: The same of the answers.
        down_spread: Of its logarithm.
    """

    action: str
    up: float = 1.0
    up_spread: float = 0.0
    down: float = 1.0
    down_spread: float = 0.0


class Load(Base, frozen=True, kw_only=True):
    """The device and the server as believed now, and what the request asks of them.

    Attributes:
        device_slowdown: Time of a local run over its time on the idle device of the profile.
        device_spread: Standard deviation of its logarithm.
        device_wait_ms: Until the device is free of this session's own earlier runs.
        server_slowdown: The same for the server, without waiting.
        server_spread: Standard deviation of its logarithm.
        queue_ms: Expected wait on the server.
        queue_sd_ms: Its standard deviation.
        battery_fraction: 0 to 1; None: mains or unknown.
        samples: In the request: so many times the bytes of one go each way.
        device_work: Time of the request's samples on the device over the time of one.
        device_price: Part of a run on the device that is charged once more, for the requests that will wait behind it.
        server_work: The same on the server.
        shares: Of actions whose messages differ from what was declared; the others send what was.
    """

    device_slowdown: float = 1.0
    device_spread: float = 0.0
    device_wait_ms: float = 0.0
    server_slowdown: float = 1.0
    server_spread: float = 0.0
    queue_ms: float = 0.0
    queue_sd_ms: float = 0.0
    battery_fraction: float | None = None
    samples: int = 1
    device_work: float = 1.0
    device_price: float = 0.0
    server_work: float = 1.0
    shares: tuple[Share, ...] = ()


class Policy(Base, frozen=True, kw_only=True):
    """What the person wants.

    Attributes:
        objective: What is made small: `latency`, `energy`, `server_cost`, or the loss of `accuracy`.
        deadline_ms: An answer later than this is a miss; None: no deadline.
        miss_probability: Largest probability of a miss that an action may have.
        max_risk: Largest loss of accuracy against the graph that runs here, upper end of its interval; None: sessions,
            plans and simulations offer nothing that may lose any.
        max_bytes: Most bytes a request may send; None: any.
        privacy: What may leave the device: "" anything, "local" nothing, else the id of a split point (or its place in
            order of depth): only tensors from there on.
        min_battery: Below this fraction of the battery the objective is energy; None: never.
        without: Ids of actions that are not to be used. A drift alarm adds those whose certificate no longer holds.
    """

    objective: Objective = "latency"
    deadline_ms: float | None = None
    miss_probability: float = 0.05
    max_risk: float | None = None
    max_bytes: int | None = None
    privacy: str | int = ""
    min_battery: float | None = None
    without: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        allowed = Objective.__args__  # type: ignore[attr-defined]  # a Literal's members
        if self.objective not in allowed:
            raise UsageError(f"objective is {self.objective!r}", remedy=f"one of {', '.join(allowed)}")
        _within("deadline_ms", self.deadline_ms, 0, math.inf, open_low=True)
        _within("miss_probability", self.miss_probability, 0, 1)
        _within("max_risk", self.max_risk, 0, math.inf)
        _within("max_bytes", self.max_bytes, 0, math.inf)
        _within("min_battery", self.min_battery, 0, 1)


def parse_policy(keys: dict[str, object]) -> Policy:
    """A policy from a table of JSON, TOML or the command line.

    Raises:
        UsageError: An unknown key (all known ones are named) or a value of the wrong type.
    """
    unknown = sorted(set(keys) - set(Policy.__struct_fields__))
    if unknown:
        raise UsageError(
            f"a policy has no {', '.join(map(repr, unknown))}",
            remedy=f"it has: {', '.join(Policy.__struct_fields__)}",
        )
    if keys.get("objective", "latency") not in (allowed := Objective.__args__):  # type: ignore[attr-defined]
        raise UsageError(f"objective is {keys['objective']!r}", remedy=f"one of {', '.join(allowed)}")
    try:
        return msgspec.convert(keys, Policy)
    except msgspec.ValidationError as error:
        raise UsageError(f"the policy does not fit: {error}", remedy="see edgekit_runtime.Policy") from error


def mean_and_variance(median: float, spread: float) -> tuple[float, float]:
    """Mean and variance of a lognormal quantity from its median and the standard deviation of its logarithm."""
    squared = spread * spread if spread < _WIDEST else _WIDEST * _WIDEST
    mean = median * math.exp(squared / 2)
    return mean, mean * mean * math.expm1(squared)


def _within(name: str, value: float | None, low: float, high: float, open_low: bool = False) -> None:
    if value is None:
        return
    if not isinstance(value, (int, float)) or not low <= value <= high or (open_low and value == low):
        upper = "" if high == math.inf else f" and at most {high:g}"
        raise UsageError(
            f"{name} is {value!r}", remedy=f"give a number {'above' if open_low else 'from'} {low:g}{upper}"
        )
