"""The best action over a grid of links and loads, all at once.

The time of every action is linear in the state of link and load (`edgekit_runtime.adaptive.costs`), so that the whole
grid is one matrix product:  times [actions, states] = terms [actions, 7] @ states [7, states].
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from edgekit_runtime.adaptive import ActionCost, ActionSet, Link, Load, Policy, choose, risk
from edgekit_runtime.adaptive.actions import DOWNLINK, UPLINK, Kind
from edgekit_runtime.adaptive.choose import admitted
from edgekit_runtime.adaptive.costs import state

RTT_MS = (5.0, 20.0, 50.0, 100.0)
BANDWIDTH_MBPS = tuple(float(f"{value:.3g}") for value in np.geomspace(0.1, 1000, 25))
LOADS = (0.0, 0.5, 0.9)
USUAL_MBPS = 10.0


@dataclasses.dataclass(frozen=True)
class Grid:
    """The links and loads that are looked at.

    Attributes:
        rtt_ms: Round trips.
        bandwidth_mbps: Uplinks, rising.
        device_load: Utilisation of the device by others.
        server_load: Utilisation of the server by others.
        downlink_ratio: Downlink over uplink.
    """

    rtt_ms: tuple[float, ...] = RTT_MS
    bandwidth_mbps: tuple[float, ...] = BANDWIDTH_MBPS
    device_load: tuple[float, ...] = LOADS
    server_load: tuple[float, ...] = LOADS
    downlink_ratio: float = 1.0


@dataclasses.dataclass(frozen=True)
class Crossover:
    """Between two neighbouring bandwidths the best action changes."""

    rtt_ms: float
    device_load: float
    server_load: float
    bandwidth_mbps: float
    below: str
    above: str


@dataclasses.dataclass(frozen=True)
class Plan:
    """What wins where.

    Attributes:
        actions: Compiled.
        grid: What was looked at.
        policy: What was wanted.
        left_out: Action id to the reason why it is not among them.
        winners: int64 [rtt, bandwidth, device load, server load]: index of the best action.
        times_ms: float64 of the same shape: its time.
        crossovers: Where it changes with the bandwidth.
        verdict: In one sentence.
        dont_split: At no link and load looked at does sending the tensor of a split point win.
    """

    actions: ActionSet
    grid: Grid
    policy: Policy
    left_out: Mapping[str, str]
    winners: np.ndarray
    times_ms: np.ndarray
    crossovers: tuple[Crossover, ...]
    verdict: str
    dont_split: bool

    def _example(self) -> tuple[Link, tuple[float, float]]:
        """One state of the grid to show all actions at: a middle round trip, a usual bandwidth, the least load."""
        usual = min(self.grid.bandwidth_mbps, key=lambda mbps: abs(math.log(mbps / USUAL_MBPS)))
        link = Link(rtt_ms=self.grid.rtt_ms[len(self.grid.rtt_ms) // 2], **_bandwidth(self.grid, usual))
        return link, (min(self.grid.device_load), min(self.grid.server_load))

    def document(self) -> dict[str, Any]:
        """What `edgekit plan --json` prints."""
        middle, loads = self._example()
        there = choose(self.actions, middle, _load(*loads), self.policy)
        ids = [action.id for action in self.actions.actions]
        names = ("rtt_ms", "bandwidth_mbps", "device_load", "server_load")
        values = (self.grid.rtt_ms, self.grid.bandwidth_mbps, self.grid.device_load, self.grid.server_load)
        return {
            "actions": [
                {
                    "id": row.action,
                    "kind": row.kind,
                    "predicted_ms": row.predicted_ms,
                    "bytes_up": row.bytes_up,
                    "accuracy_drop": row.accuracy_drop,
                    "reasons": [row.why],
                }
                for row in there.alternatives
            ],
            "at": {
                "rtt_ms": middle.rtt_ms,
                "bandwidth_mbps": middle.uplink_mbps,
                "device_load": loads[0],
                "server_load": loads[1],
            },
            "best": [
                {**{n: v[i] for n, v, i in zip(names, values, place, strict=True)}, "action": ids[int(winner)]}
                for place, winner in np.ndenumerate(self.winners)
            ],
            "crossovers": [dataclasses.asdict(row) for row in self.crossovers],
            "left_out": dict(self.left_out),
            "verdict": self.verdict,
        }


def plan(actions: Sequence[ActionCost], grid: Grid | None = None, policy: Policy | None = None) -> Plan:
    """Finds the best action everywhere on a grid (by expected latency, within what the policy allows).

    Args:
        actions: Of one bundle between one device and one server.
        grid: Links and loads.
        policy: What is allowed; lossy actions are offered under its `max_risk` only, as a session does.

    Raises:
        UsageError: `without` or `privacy` names what no action is or has.
    """
    grid, policy = grid or Grid(), policy or Policy()
    kept, left_out = risk.offered(actions, policy)
    compiled = ActionSet(kept)
    times = compiled.terms @ _states(grid) + admitted(compiled, policy)[:, None]
    shape = (len(grid.rtt_ms), len(grid.bandwidth_mbps), len(grid.device_load), len(grid.server_load))
    winners = times.argmin(axis=0).reshape(shape)
    verdict, dont_split = _verdict(compiled, winners)
    crossovers = _crossovers(compiled, grid, winners)
    return Plan(
        compiled, grid, policy, left_out, winners, times.min(axis=0).reshape(shape), crossovers, verdict, dont_split
    )


def _states(grid: Grid) -> np.ndarray:
    """float64 [7, rtt x bandwidth x device load x server load]."""
    columns = []
    for rtt in grid.rtt_ms:
        for mbps in grid.bandwidth_mbps:
            link = Link(rtt_ms=rtt, **_bandwidth(grid, mbps))
            for on_device in grid.device_load:
                for on_server in grid.server_load:
                    load = _load(on_device, on_server)
                    columns.append(state(link, load)[0])
    return np.array(columns).T


def _load(device: float, server: float) -> Load:
    """Utilisation by others, 0 to below 1, as slow-downs of what runs beside them."""
    return Load(device_slowdown=1 / (1 - device), server_slowdown=1 / (1 - server))


def _bandwidth(grid: Grid, mbps: float) -> dict[str, float]:
    return {"uplink_mbps": mbps, "downlink_mbps": mbps * grid.downlink_ratio}


def _crossovers(actions: ActionSet, grid: Grid, winners: np.ndarray) -> tuple[Crossover, ...]:
    """Where two neighbours differ, the bandwidth at which the two actions take the same time."""
    found = []
    for i, j, k, m in np.argwhere(winners[:, 1:] != winners[:, :-1]):
        below, above = int(winners[i, j, k, m]), int(winners[i, j + 1, k, m])
        link = Link(rtt_ms=grid.rtt_ms[i], **_bandwidth(grid, 1.0))
        load = _load(grid.device_load[k], grid.server_load[m])
        theta = state(link, load)[0]
        apart = (actions.terms[above] - actions.terms[below]) * theta
        sent = float(apart[UPLINK] + apart[DOWNLINK])  # at 1 Mbit/s; falls with the bandwidth
        rest = float(apart.sum()) - sent
        low, high = grid.bandwidth_mbps[j], grid.bandwidth_mbps[j + 1]
        mbps = min(max(-sent / rest, low), high) if rest else high
        found.append(
            Crossover(
                rtt_ms=grid.rtt_ms[i],
                device_load=grid.device_load[k],
                server_load=grid.server_load[m],
                bandwidth_mbps=mbps,
                below=actions.actions[below].id,
                above=actions.actions[above].id,
            )
        )
    return tuple(found)


_IN_WORDS: dict[Kind, str] = {
    "local": "running locally",
    "variant": "another graph",
    "offload": "sending the input",
    "exit": "leaving early",
    "cascade": "asking a cheaper student first",
}


def _verdict(actions: ActionSet, winners: np.ndarray) -> tuple[str, bool]:
    shares = np.bincount(winners.ravel(), minlength=len(actions)) / winners.size
    order = [int(place) for place in np.argsort(-shares) if shares[place] > 0]
    told = ", ".join(f"{actions.actions[place].id} {_percent(shares[place])}" for place in order)
    parts = [place for place in order if actions.actions[place].split_point]
    offered = any(action.split_point for action in actions.actions)
    if not offered:
        return f"this bundle has no split points; of the links and loads looked at: {told}", False
    if parts:
        best = actions.actions[parts[0]].split_point
        pays = _percent(sum(shares[place] for place in parts))
        return f"splitting pays in places ({pays}), most at {best}; of the links and loads looked at: {told}", False
    kinds = dict.fromkeys(actions.actions[place].kind for place in order)
    best = " or ".join(_IN_WORDS[kind] for kind in kinds)
    if kinds.keys() & {"exit", "cascade"}:
        return f"{best} is best at every link and load looked at, splitting nowhere: {told}", True
    return f"do not split this model: {best} is better at every link and load looked at: {told}", True


def _percent(share: float) -> str:
    return "< 1 %" if 0 < share < 0.01 else f"{100 * share:.0f} %"
