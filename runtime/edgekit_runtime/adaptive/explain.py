"""Why an action was chosen and why each other one lost, in plain words and as data."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np

from edgekit_runtime.adaptive import costs
from edgekit_runtime.adaptive.actions import ROUND_TRIP, TERMS, ActionCost, Kind
from edgekit_runtime.adaptive.choose import admitted, forbidden, objective, scores
from edgekit_runtime.manifest import Base

if TYPE_CHECKING:
    from edgekit_runtime.adaptive.choose import Decision
    from edgekit_runtime.adaptive.state import Load, Share

_CODECS = {
    "int8-row": "int8 with a scale a row",
    "jpeg": "JPEG",
    "webp": "WebP",
    "lz4": "lz4",
    "zstd": "zstd",
    "bitshuffle-lz4": "lz4 after a bit shuffle",
    "bitshuffle-zstd": "zstd after a bit shuffle",
}
_ABOUT = 0.1  # of a logarithm
_UNREACHED = "nothing gets through to the server: the link is out, or it is left alone for a while after a failure"
_UNITS = {"latency": "ms", "energy": "mJ", "server_cost": "of server work", "accuracy": "of accuracy"}


class Alternative(Base, frozen=True, kw_only=True):
    """One action as it was seen.

    Attributes:
        verdict: `chosen`, `lost` (allowed, another was better), `late` (would miss the deadline too often) or
            `forbidden` (by the policy).
        terms_ms: The parts of its time.
        miss_probability: Of the deadline; None without one.
        why: The reason in words.
    """

    action: str
    kind: Kind
    predicted_ms: float
    interval_ms: tuple[float, float]
    terms_ms: dict[str, float]
    energy_mj: float
    bytes_up: int
    accuracy_drop: float | None
    miss_probability: float | None
    verdict: str
    why: str


def alternatives(decision: Decision) -> tuple[Alternative, ...]:
    """Every action, the chosen one first, then by time."""
    seen = _Seen(decision)
    order = sorted(range(len(decision.actions)), key=lambda place: (place != decision.place, seen.times[place]))
    return tuple(seen.alternative(place) for place in order)


def reasons(decision: Decision) -> tuple[str, ...]:
    """Why the chosen action, then each alternative with why it lost."""
    rows = decision.alternatives
    return tuple(f"{row.action}: {row.why}" for row in rows)


def explain(decision: Decision) -> str:
    """The decision in plain words: the choice, what was believed, and each alternative."""
    link, load = decision.link, decision.load
    rows = decision.alternatives
    chosen = rows[0]
    low, high = chosen.interval_ms
    lines = [f"{chosen.action} ({chosen.kind}): {chosen.predicted_ms:.1f} ms expected [{low:.1f}, {high:.1f}]"]
    lines.append(f"  that is: {plain(decision.actions.actions[decision.place])}")
    lines.append(f"  because {chosen.why}")
    lines.append(f"  made of {_parts(chosen.terms_ms)}")
    lines.append(
        f"  link: round trip {link.rtt_ms:.1f} ms, up {link.uplink_mbps:.3g} and down {link.downlink_mbps:.3g} Mbit/s, "
        f"{_aged(link.age_s)}"
        if link.up
        else f"  link: {_UNREACHED}"
    )
    lines.append(
        f"  load: device x{load.device_slowdown:.2f}{_price(load)}, server x{load.server_slowdown:.2f}, "
        f"queue {load.queue_ms:.1f} ms"
    )
    if load.samples > 1:
        lines.append(
            f"  {load.samples} samples: x{load.device_work:.2f} the work of one on the device, "
            f"x{load.server_work:.2f} on the server"
        )
    lines += [f"  {told}" for share in load.shares if (told := _shared(share))]
    for row in rows[1:]:
        took = f"{row.predicted_ms:.1f} ms" if link.up or not row.terms_ms["round_trip"] else "never"
        lines.append(f"  {row.verdict}: {row.action} ({took}): {row.why}")
    return "\n".join(lines)


def plain(action: ActionCost) -> str:
    """What an action does, in words."""
    wire = "" if action.codec == "none" else f", sent as {_CODECS.get(action.codec.partition('@')[0], action.codec)}"
    quality = action.codec.partition("@")[2]
    wire += f" of quality {quality}" if quality else ""
    risk = "" if not action.highest_drop else f"; may lose {action.highest_drop:.2g} of accuracy"
    if action.kind == "exit" and action.leaves:
        return (
            f"leave at an early exit here when it is sure, else the tail on the server from {action.split_point} on "
            f"({action.offload_fraction:.0%} of requests){wire}{risk}"
        )
    if action.kind == "exit":
        return f"all here, leaving at the first exit that is sure{risk}"
    if action.kind == "cascade" and action.leaves:
        return (
            f"a cheaper student here answers what it is sure of, the full one on the server the rest "
            f"({action.offload_fraction:.0%} of requests){wire}{risk}"
        )
    if action.kind == "split":
        return f"the head here up to {action.split_point}, the tail on the server{wire}{risk}"
    if action.kind == "offload":
        return f"the inputs to the server, which runs all{wire}{risk}"
    return {"local": "all here", "cascade": "all here, a cheaper student first", "variant": "another graph"}[
        action.kind
    ] + risk


def document(decision: Decision) -> dict[str, Any]:
    """The decision as plain data (contract, Python)."""
    return {
        "action": decision.action,
        "kind": decision.kind,
        "predicted_ms": decision.predicted_ms,
        "interval_ms": decision.interval_ms,
        "alternatives": [msgspec.to_builtins(row) for row in decision.alternatives],
        "reasons": list(decision.reasons),
        "estimates": {name: msgspec.to_builtins(value) for name, value in decision.estimates.items()},
    }


class _Seen:
    """All figures of a decision, worked out once more from its inputs."""

    def __init__(self, decision: Decision) -> None:
        self.decision, self.actions, self.policy = decision, decision.actions, decision.policy
        link, load = decision.link, decision.load
        self.theta, theta_variance = costs.state(link, load)
        self.times = self.actions.terms @ self.theta
        self.spread2 = costs.variance(self.actions, self.theta, theta_variance)
        self.energy = costs.energy_mj(self.actions, self.theta, load.samples)
        self.wanted = objective(load, self.policy)
        self.score = scores(self.actions, self.wanted, self.theta, self.times, load.samples)
        self.barred = admitted(self.actions, self.policy, load.samples)
        deadline = self.policy.deadline_ms
        self.in_time = self.barred == 0
        self.misses: list[float] | None = None
        if deadline is not None:
            margins = costs.margin(self.times, self.spread2, deadline)
            self.misses = [costs.miss_probability(float(row)) for row in margins]
            self.in_time &= margins >= costs.margin_needed(self.policy.miss_probability)

    def alternative(self, place: int) -> Alternative:
        action = self.actions.actions[place]
        mean, spread2 = float(self.times[place]), float(self.spread2[place])
        verdict, why = self._chosen() if place == self.decision.place else self._lost(place)
        return Alternative(
            action=action.id,
            kind=action.kind,
            predicted_ms=mean,
            interval_ms=(costs.quantile_ms(mean, spread2, -1.96), costs.quantile_ms(mean, spread2, 1.96)),
            terms_ms=dict(zip(TERMS, (float(x) for x in self.actions.terms[place] * self.theta), strict=True)),
            energy_mj=float(self.energy[place]),
            bytes_up=self.decision.load.samples * action.bytes_up,
            accuracy_drop=action.accuracy_drop,
            miss_probability=None if self.misses is None else self.misses[place],
            verdict=verdict,
            why=why,
        )

    def _chosen(self) -> tuple[str, str]:
        place = self.decision.place
        if not self.in_time.any():
            if self.misses is None:
                return "chosen", "the policy allows nothing else"
            return "chosen", (
                f"no action keeps {self.policy.deadline_ms:g} ms with a miss probability of "
                f"{self.policy.miss_probability:g}; this one misses least ({self.misses[place]:.2g})"
            )
        open_to = int(self.in_time.sum())
        what = {
            "latency": "it is expected to be the fastest",
            "energy": f"it takes the least energy ({self.energy[place]:.3g} mJ)",
            "server_cost": "it asks least of the server",
            "accuracy": "it loses least accuracy",
        }[self.wanted]
        return (
            "chosen",
            f"{what} of {open_to} that the policy allows" if open_to > 1 else f"{what}; no other is allowed",
        )

    def _lost(self, place: int) -> tuple[str, str]:
        action = self.actions.actions[place]
        why = forbidden(action, self.actions, self.policy, self.decision.load.samples) if self.barred[place] else ""
        if why:
            return "forbidden", why
        if self.misses is not None and not self.in_time[place]:
            return "late", f"would miss {self.policy.deadline_ms:g} ms with probability {self.misses[place]:.2g}"
        more = float(self.score[place] - self.score[self.decision.place])
        if abs(more) < 1e-9:
            return "lost", f"equal in {self.wanted}, and {self._time_more(place)}"
        if self.wanted == "latency":
            return "lost", self._time_more(place)
        return "lost", f"{more:.3g} {_UNITS[self.wanted]} more"

    def _time_more(self, place: int) -> str:
        if not self.decision.link.up and self.actions.rows[place][ROUND_TRIP] > 0.0:
            return _UNREACHED
        more = float(self.times[place] - self.times[self.decision.place])
        against = (self.actions.terms[place] - self.actions.terms[self.decision.place]) * self.theta
        worst = int(np.argmax(against))
        name = TERMS[worst].replace("_", " ")
        return f"{more:.1f} ms slower, mostly by its {name} ({against[worst]:+.1f} ms)"


def _parts(terms: dict[str, float]) -> str:
    return (
        ", ".join(f"{name.replace('_', ' ')} {value:.1f}" for name, value in terms.items() if value >= 0.05) or "0 ms"
    )


def _aged(age_s: float | None) -> str:
    return "never measured" if age_s is None else f"{age_s:.1f} s old"


def _shared(share: Share) -> str:
    """What an action's messages take; empty where that is about what was declared."""
    parts = []
    for median, spread, way in ((share.up, share.up_spread, "up"), (share.down, share.down_spread, "down")):
        if abs(math.log(median)) > _ABOUT or spread > _ABOUT:
            parts.append(f"x{median:.2g} of its declared bytes {way} (give or take {math.expm1(spread):.0%})")
    return f"{share.action} was seen to take {' and '.join(parts)}" if parts else ""


def _price(load: Load) -> str:
    """What a run is charged for those who wait behind it; empty where the device keeps up."""
    return f" (x{1 + load.device_price:.2f} for those who wait behind)" if load.device_price else ""
