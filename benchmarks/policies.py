"""The adaptive policy against the oracle, the best fixed action, always-offload and mean argmin, in cells.

A cell is student x device x server x trace (`policy_cells.py`). Choosing matters in a cell when the oracle's commonest
action takes at most 80 % of the requests and the best fixed action takes at least 1.25 times the oracle's time.
Traces of the held-out half only; nothing of the policy was set on them.
"""

# ruff: noqa: E501
from __future__ import annotations

import dataclasses
import os
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import numpy as np

from benchmarks.page import table, target
from benchmarks.policy_cells import POLICY, Cell, cells, load_of, traces
from edgekit.simulate import Setting, simulate
from edgekit.simulate.engine import Answered, Simulation, latencies_ms
from edgekit.simulate.policies import Adaptive, Fixed, Move, Oracle, made
from edgekit.simulate.traces import LoadTrace, constant
from edgekit.simulate.world import Day, Device, day
from edgekit_runtime.adaptive import ActionCost, ActionSet, Controller, Link, Load, Policy, choose, journal
from edgekit_runtime.adaptive.choose import Decision
from edgekit_runtime.adaptive.controller import Settings

REQUESTS, EACH = 300, 8
_SURELY_LATE = 0.99865  # beyond three standard deviations a miss is a miss (choose)
MATTERS_SHARE, MATTERS_RATIO = 0.8, 1.25
MOST_BEHIND = 0.03


@dataclasses.dataclass(frozen=True)
class Row:
    """Mean milliseconds in one cell."""

    cell: Cell
    adaptive: float
    oracle: float
    fixed: tuple[float, ...]
    argmin: float
    common: float
    lost: int

    @property
    def best(self) -> float:
        return min(self.fixed)

    @property
    def matters(self) -> bool:
        return self.common <= MATTERS_SHARE and self.best >= MATTERS_RATIO * self.oracle

    @property
    def behind(self) -> float:
        """Adaptive over the best fixed action, as a fraction; below 0 where it is ahead."""
        return self.adaptive / self.best - 1

    def chosen(self) -> ActionCost:
        """The best fixed action."""
        return self.cell.actions[int(np.argmin(self.fixed))]

    def action(self) -> str:
        return self.chosen().id


def run() -> str:
    with ProcessPoolExecutor(os.cpu_count()) as pool:
        rows = list(pool.map(measure, cells(held_out=True, each=EACH), chunksize=16))
    parts = [
        _risk(),
        _targets(rows),
        "\n### Cells more than 3 % behind the best fixed action\n",
        _behind(rows),
        "\n### Cells in which choosing matters\n",
        _cells([row for row in rows if row.matters]),
    ]
    parts += [
        "\n### Which fixed action is right where\n",
        _always(rows),
        _fixed(rows),
        "\n### Steps of the load\n",
        _steps(),
    ]
    parts += ["\n### Deadlines\n", _deadlines(), "\n### Reasons\n", _reasons()]
    parts += ["\n### Time of one decision\n", _speed()]
    return "\n".join(parts)


def _risk() -> str:
    return (
        f"The cells' policy names a risk, `max_risk={POLICY.max_risk:g}`, so that exits, int8 wires and JPEG take part, as "
        "they would in a session with it; without a named risk none of them is offered.\n"
    )


def measure(cell: Cell) -> Row:
    actions = ActionSet(cell.actions)
    today = day(cell.actions, cell.trace, cell.load, requests=REQUESTS, interval_s=cell.interval_s, seed=cell.seed)
    places = list(range(len(actions)))
    oracle = _run(today, Oracle(places), actions)
    adaptive = latencies_ms(_run(today, made("adaptive", actions, POLICY, places, Settings()), actions))
    return Row(
        cell=cell,
        adaptive=float(adaptive.mean()),
        oracle=float(latencies_ms(oracle).mean()),
        fixed=tuple(float(latencies_ms(_run(today, Fixed(place), actions)).mean()) for place in places),
        argmin=float(
            latencies_ms(_run(today, made("mean_argmin", actions, POLICY, places, Settings()), actions)).mean()
        ),
        common=float(np.bincount([row.place for row in oracle]).max() / REQUESTS),
        lost=int((~np.isfinite(adaptive)).sum()),
    )


def _run(today: Day, decider: object, actions: ActionSet):  # type: ignore[no-untyped-def]
    return Simulation([today], [decider], [actions.fallback], 4).run()[0]  # type: ignore[list-item]


def _targets(rows: list[Row]) -> str:
    worst = max(rows, key=lambda row: row.behind)
    hard = [row for row in rows if row.matters]
    regret = np.array([row.adaptive / row.oracle - 1 for row in hard])
    median, high = float(np.median(regret)), float(np.quantile(regret, 0.9))
    lines = [
        ("cells", len(rows), "", ""),
        ("worst against the best fixed action", f"{100 * worst.behind:+.1f} %, {worst.cell.name}", *target("<= 3 %", worst.behind <= MOST_BEHIND)),
        ("cells more than 3 % behind it", sum(row.behind > MOST_BEHIND for row in rows), "", ""),
        ("cells in which choosing matters", len(hard), *target(">= 30", len(hard) >= 30)),
        ("over the oracle there, median", f"{100 * median:.1f} %", *target("<= 10 %", median <= 0.1)),
        ("over the oracle there, 90th percentile", f"{100 * high:.1f} %", *target("<= 20 %", high <= 0.2)),
        ("lost requests", sum(row.lost for row in rows), *target("0", not any(row.lost for row in rows))),
        ("always-offload over adaptive there, median", f"{np.median([row.fixed[_offload(row)] / row.adaptive for row in hard]):.2f}x", "", ""),
        ("mean argmin over adaptive there, median", f"{np.median([row.argmin / row.adaptive for row in hard]):.3f}x", "", ""),
        ("cells where mean argmin is worse than the best fixed action by 3 %", sum(row.argmin > 1.03 * row.best for row in rows), "", ""),
    ]  # fmt: skip
    return table(("what", "seen", "target", ""), lines)


def _offload(row: Row) -> int:
    return next(place for place, action in enumerate(row.cell.actions) if action.kind == "offload")


def _behind(rows: list[Row]) -> str:
    """Every cell that misses the target, the worst first."""
    late = sorted((row for row in rows if row.behind > MOST_BEHIND), key=lambda row: -row.behind)
    if not late:
        return "None.\n"
    lines = [
        (row.cell.name, f"{row.adaptive:.1f}", f"{row.best:.1f} ({row.action()})", f"{100 * row.behind:+.1f} %")
        for row in late
    ]
    return table(("cell", "adaptive ms", "best fixed ms", "over by"), lines)


def _always(rows: list[Row]) -> str:
    """In how many cells one rule is right for every request, and in how many the choice has to change."""
    mixed = sum(row.matters for row in rows)
    settled = [row.chosen() for row in rows if not row.matters]
    local = sum(not action.leaves for action in settled)
    offload = sum(action.kind == "offload" for action in settled)
    other = len(settled) - local - offload
    return (
        f'"Always local" is right in {local} cells (exits on the device included), "always offload" in {offload} (with '
        f"whichever codec), another fixed action that sends in {other}; in {mixed} choosing matters, so that no one "
        f"action is right. Of {len(rows)} cells.\n"
    )


def _cells(rows: list[Row]) -> str:
    lines = [
        (row.cell.name, f"{row.oracle:.1f}", f"{row.adaptive:.1f}", f"{row.best:.1f} ({row.action()})", f"{row.argmin:.1f}",
         f"{100 * (row.adaptive / row.oracle - 1):+.1f} %")
        for row in sorted(rows, key=lambda row: -row.adaptive / row.oracle)
    ]  # fmt: skip
    return table(("cell", "oracle ms", "adaptive", "best fixed", "mean argmin", "over the oracle"), lines)


def _fixed(rows: list[Row]) -> str:
    names = sorted({(row.cell.student, row.cell.device) for row in rows})
    lines = []
    for student, device in names:
        mine = [row for row in rows if (row.cell.student, row.cell.device) == (student, device)]
        count: dict[str, int] = {}
        for row in mine:
            count[row.action()] = count.get(row.action(), 0) + 1
        told = ", ".join(f"{name} in {n}" for name, n in sorted(count.items(), key=lambda item: -item[1]))
        lines.append((student, device, f"{told} of {len(mine)} cells"))
    return table(("student", "device", "best fixed action"), lines)


LOCAL = ActionCost(id="local", kind="local", head_ms=45, head_sd_ms=2)
OFFLOAD = ActionCost(id="offload", kind="offload", offload_fraction=1.0, bytes_up=15_000, bytes_down=600, tail_ms=5)
SPLIT = ActionCost(
    id="split", kind="split", head_ms=15, head_sd_ms=1, offload_fraction=1.0, bytes_up=4_000, bytes_down=600,
    tail_ms=4, split_point="p", depth=0,
)  # fmt: skip


def _steps() -> str:
    """A hog on the device, then the server at 90 %."""
    load = LoadTrace.steps(((40, 0.0, 0.0), (40, 0.7, 0.0), (40, 0.0, 0.9), (40, 0.5, 0.5)))
    setting = Setting(actions=(LOCAL, OFFLOAD), traces=(constant(30, 12),), load=load, requests=800, interval_s=0.2)
    study = simulate(setting)
    names = ("adaptive", "adaptive_without_load", "oracle", "always_local", "always_offload", "mean_argmin")
    means = {name: float(study.latencies_ms(name).mean()) for name in names}
    rows = study.answers["adaptive"][0]
    changes = [_until_changed(rows, seconds) for seconds in (40.0, 80.0)]
    saved = 1 - means["adaptive"] / means["adaptive_without_load"]
    over = means["adaptive"] / means["oracle"] - 1
    lines = [
        ("over the oracle", f"{100 * over:+.1f} %", *target("<= 10 %", over <= 0.1)),
        ("below the twin that does not see load", f"{100 * saved:.1f} %", *target(">= 14 %", saved >= 0.14)),
        ("requests until the choice changes, hog and server", str(changes), *target("<= 10", all(0 < c <= 10 for c in changes))),
        *((name, f"{mean:.1f} ms", "", "") for name, mean in means.items()),
    ]  # fmt: skip
    return table(("what", "seen", "target", ""), lines)


def _deadlines() -> str:
    """Misses over every held-out trace, at deadlines that the device alone meets and that it does not."""
    lines = []
    for deadline_ms in (40.0, 60.0, 100.0):
        setting = Setting(
            actions=(LOCAL, OFFLOAD, SPLIT), traces=tuple(traces(held_out=True, each=2)), load=load_of(shared=True),
            policy=Policy(deadline_ms=deadline_ms), requests=REQUESTS, interval_s=0.2,
        )  # fmt: skip
        study = simulate(setting)
        share = {
            name: 100 * float((study.latencies_ms(name) > deadline_ms).mean())
            for name in ("adaptive", "oracle", "best_fixed", "mean_argmin")
        }
        over = share["adaptive"] - share["oracle"]
        lines.append(
            (f"{deadline_ms:g} ms", *(f"{share[name]:.1f} %" for name in share), f"{over:+.1f} points",
             *target("<= 2 points", over <= 2))
        )  # fmt: skip
    return table(
        ("deadline", "adaptive", "oracle", "best fixed", "mean argmin", "over the oracle", "target", ""), lines
    )


class _Logging(Adaptive):
    """The adaptive policy with a log, as a session writes one."""

    def __init__(self, controller: Controller, writer: journal.Writer) -> None:
        super().__init__(controller)
        self._writer = writer

    def decide(self, request: int, now_s: float, device: Device) -> Move:
        self.controller.load.see_device(device.utilisation(now_s))
        plan = self.controller.plan(now_s)
        self._writer.add(plan.decision, now_s)
        return self.move(plan)


def _reasons() -> str:
    """1,000 requests over a changing link: is each choice made again from its log, and does its reason name it?"""
    rows = (LOCAL, OFFLOAD, SPLIT)
    actions = ActionSet(rows)
    today = day(rows, traces(held_out=True, each=1)[-1], load_of(shared=True), requests=1000, interval_s=0.2)
    with tempfile.TemporaryDirectory() as folder:
        log = Path(folder) / "log.jsonl"
        writer = journal.Writer(log, actions)
        answers = _run(today, _Logging(Controller(actions, Policy(deadline_ms=80)), writer), actions)
        writer.close()
        head, entries = journal.read(log)
    taken = [rows[answer.place].id for answer in answers]
    made = [journal.again(head, entry, actions) for entry in entries]
    same = sum(decision.action == name for decision, name in zip(made, taken, strict=True))
    told = sum(_tells(decision) for decision in made)
    lines = [
        ("choices made again from the log", f"{same} of {len(taken)}", *target("all", same == len(taken))),
        ("whose alternatives give the choice", f"{told} of {len(taken)}", *target("all", told == len(taken))),
        ("actions taken", ", ".join(f"{name} {taken.count(name)}" for name in sorted(set(taken))), "", ""),
    ]
    return table(("what", "seen", "target", ""), lines)


def _tells(decision: Decision) -> bool:
    """Do the reasons alone give the choice: the quickest that is neither forbidden nor late, else the least late?"""
    allowed = [row for row in decision.alternatives if row.verdict != "forbidden"]
    open_to = [row for row in allowed if row.verdict in ("chosen", "lost")]
    in_time = [row for row in open_to if (row.miss_probability or 0.0) <= decision.policy.miss_probability]
    if in_time:
        best = min(in_time, key=lambda row: row.predicted_ms)
    else:
        best = min(allowed, key=lambda row: (min(row.miss_probability or 0.0, _SURELY_LATE), row.predicted_ms))
    return best.action == decision.action


def _until_changed(rows: list[Answered], step_s: float) -> int:
    """Requests after a step of the load until the choice is another; 0: it never is."""
    start = next(place for place, row in enumerate(rows) if row.arrival_s >= step_s)
    before = rows[start - 1].place
    return next((place + 1 for place, row in enumerate(rows[start:]) if row.place != before), 0)


def _speed() -> str:
    rows = [LOCAL, *(_split(number) for number in range(59))]
    actions, lines = ActionSet(rows), []
    for name, policy in (("latency", Policy()), ("latency with a deadline", Policy(deadline_ms=60))):
        best = min(
            _timed(lambda policy=policy: choose(actions, Link(uplink_mbps=3), Load(), policy)) for _ in range(20)
        )
        lines.append((f"choose among 60, {name}", f"{best:.1f} us", *target("<= 20 us", best <= 20)))
    controller = Controller(actions, Policy())
    best = min(_timed(lambda: controller.plan(1.0)) for _ in range(400))
    lines.append(("a whole plan (estimates, choice, hedge, race)", f"{best:.1f} us", "", ""))
    return table(("what", "best of 400", "target", ""), lines)


def _split(number: int) -> ActionCost:
    """A split point of a made-up student."""
    return ActionCost(
        id=f"s{number}", kind="split", head_ms=float(number), bytes_up=20_000 - 200 * number, tail_ms=5,
        offload_fraction=1.0, depth=number, split_point=f"p{number}",
    )  # fmt: skip


def _timed(call, runs: int = 30) -> float:  # type: ignore[no-untyped-def]
    start = time.perf_counter()
    for _ in range(runs):
        call()
    return (time.perf_counter() - start) / runs * 1e6
