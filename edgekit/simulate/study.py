"""All policies on the same days, and what came of it."""

from __future__ import annotations

import dataclasses
import functools
import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from edgekit.simulate import policies
from edgekit.simulate.engine import Answered, Simulation, latencies_ms
from edgekit.simulate.traces import LoadTrace, Trace
from edgekit.simulate.world import Day, day
from edgekit_runtime.adaptive import ActionCost, ActionSet, Policy, risk
from edgekit_runtime.adaptive.choose import admitted
from edgekit_runtime.adaptive.controller import Settings
from edgekit_runtime.errors import UsageError


@dataclasses.dataclass(frozen=True)
class Setting:
    """What is simulated.

    Attributes:
        actions: True costs.
        traces: One day each.
        load: Utilisation over time.
        policy: What the person wants; its `max_risk` says which lossy actions take part.
        believed: Costs as the device believes them; None: the true ones.
        requests: A day and device.
        interval_s: Between two requests of a device; None: a fifth of a second, or 2.5 times the local run if longer.
        devices: That share the server, each on its own stretch of the trace.
        workers: Of the server.
        settings: Of the adaptive policies.
        seed: Of all chance.
    """

    actions: tuple[ActionCost, ...]
    traces: tuple[Trace, ...]
    load: LoadTrace = dataclasses.field(default_factory=LoadTrace.constant)
    policy: Policy = dataclasses.field(default_factory=Policy)
    believed: tuple[ActionCost, ...] | None = None
    requests: int = 1000
    interval_s: float | None = None
    devices: int = 1
    workers: int = 4
    settings: Settings = dataclasses.field(default_factory=Settings)
    seed: int = 0


@dataclasses.dataclass(frozen=True)
class Study:
    """What every policy did.

    Attributes:
        setting: What was simulated, with the actions that were offered.
        answers: By policy: the requests of all days and devices, one list each.
        best_fixed: Id of the action that would have been best for all of them.
        left_out: Action id to the reason why the policy lets it not be offered.
    """

    setting: Setting
    answers: dict[str, list[list[Answered]]]
    best_fixed: str
    left_out: Mapping[str, str]

    def latencies_ms(self, name: str) -> np.ndarray:
        """All requests of a policy, float64 [n]; infinite where lost."""
        return np.concatenate([latencies_ms(rows) for rows in self.answers[name]])

    def summary(self, name: str) -> dict[str, Any]:
        """The figures of one policy (contract, `simulate`)."""
        latency = self.latencies_ms(name)
        answered = latency[np.isfinite(latency)]
        rows = [row for rows in self.answers[name] for row in rows]
        ids = [action.id for action in self.setting.actions]
        drops = [action.accuracy_drop for action in self.setting.actions]
        given = [drops[row.won] for row in rows if row.won >= 0]
        deadline = self.setting.policy.deadline_ms
        return {
            "mean_ms": float(answered.mean()) if len(answered) else None,
            "p50_ms": float(np.quantile(answered, 0.5)) if len(answered) else None,
            "p95_ms": float(np.quantile(answered, 0.95)) if len(answered) else None,
            "deadline_misses": int((latency > deadline).sum()) if deadline is not None else 0,
            "accuracy_drop": None if None in given or not given else float(np.mean(given)),  # type: ignore[arg-type]
            "actions": dict(Counter(ids[row.place] for row in rows if row.place >= 0).most_common()),
            "lost": int((~np.isfinite(latency)).sum()),
            "hedged": sum(row.hedged for row in rows),
            "raced": sum(row.raced for row in rows),
        }

    def document(self) -> dict[str, Any]:
        """What `edgekit simulate --json` prints."""
        rows = {name: self.summary(name) for name in policies.NAMES}
        adaptive, oracle = rows["adaptive"]["mean_ms"], rows["oracle"]["mean_ms"]
        return {
            "requests": len(self.latencies_ms("adaptive")),
            "lost": rows["adaptive"]["lost"],
            "policies": rows,
            "best_fixed_action": self.best_fixed,
            "left_out": dict(self.left_out),
            "regret_fraction": adaptive / oracle - 1 if adaptive is not None and oracle else None,
        }


def simulate(setting: Setting, progress: Callable[[str], None] = lambda name: None) -> Study:
    """Runs all policies on the same days.

    Args:
        setting: What is simulated.
        progress: Told the name of each policy as it begins.

    Raises:
        UsageError: There is no trace, or a number makes no sense.
    """
    if not setting.traces or setting.requests < 1 or setting.devices < 1 or setting.workers < 1:
        raise UsageError(
            "there is nothing to simulate", remedy="give a trace, and one request, device and worker or more"
        )
    setting, left_out = _offered(setting)
    true = ActionSet(setting.actions)
    believed = ActionSet(setting.believed) if setting.believed is not None else true
    allowed = np.flatnonzero(admitted(true, setting.policy) == 0).tolist()
    days = _days(setting, true)
    answers: dict[str, list[list[Answered]]] = {}
    for name in policies.NAMES:
        if name == "best_fixed":
            continue
        progress(name)
        made = functools.partial(policies.made, name, believed, setting.policy, allowed, setting.settings)
        answers[name] = _run(days, made, true, setting)
    progress("best_fixed")
    fixed = {place: _run(days, functools.partial(policies.Fixed, place), true, setting) for place in allowed}
    best = min(fixed, key=lambda place: _mean([row for rows in fixed[place] for row in rows]))
    answers["best_fixed"] = fixed[best]
    return Study(setting, answers, true.actions[best].id, left_out)


def _offered(setting: Setting) -> tuple[Setting, dict[str, str]]:
    """The setting with what its policy lets be offered, and why the rest is not: the rule of a session."""
    kept, left_out = risk.offered(setting.actions, setting.policy)
    believed = setting.believed
    if believed is not None:
        ids = {action.id for action in kept}
        believed = tuple(action for action in believed if action.id in ids)
    return dataclasses.replace(setting, actions=kept, believed=believed), left_out


def interval_s(setting: Setting) -> float:
    """Time between two requests: long enough for the device to keep up alone."""
    if setting.interval_s is not None:
        return setting.interval_s
    true = ActionSet(setting.actions)
    return max(0.2, 2.5 * true.actions[true.fallback].head_ms / 1e3)


def _days(setting: Setting, true: ActionSet) -> list[list[Day]]:
    """For each trace the days of all devices; each device's clock begins at another place of the trace."""
    gap = interval_s(setting)
    made = []
    for number, trace in enumerate(setting.traces):
        row = []
        for device in range(setting.devices):
            seed = setting.seed + 1000 * number + device
            today = day(true.actions, trace, setting.load, requests=setting.requests, interval_s=gap, seed=seed)
            row.append(dataclasses.replace(today, shift_s=device * trace.length_s / setting.devices))
        made.append(row)
    return made


def _run(
    days: Sequence[Sequence[Day]], decider: Callable[[], policies.Decider], true: ActionSet, setting: Setting
) -> list[list[Answered]]:
    found: list[list[Answered]] = []
    for row in days:
        found += Simulation(row, [decider() for _ in row], [true.fallback] * len(row), setting.workers).run()
    return found


def _mean(rows: Sequence[Answered]) -> float:
    latency = latencies_ms(rows)
    return float(latency.mean()) if np.isfinite(latency).all() else math.inf
