"""Which graph, on which engine, with how many threads?

Decided as data, in this order:

    1. what the caller asked for
    2. graphs whose quality gate failed, that no installed engine runs, or that were made for another target: out
    3. measurements of every remaining candidate on a machine like this one: the fastest
    4. else a short measurement now, in alternation (`short_measure`)
    5. else, with nothing to measure on, the smallest file

`choose_graph` is a pure function of its arguments; `short_measure` is the only thing here that runs something.
"""

from __future__ import annotations

import dataclasses
import re
import time
from collections.abc import Callable, Mapping, Sequence

from edgekit_runtime.errors import EngineMissing, Refused, UsageError
from edgekit_runtime.machine import Machine
from edgekit_runtime.manifest import Graph, Manifest
from edgekit_runtime.measurement import Measurement

Key = tuple[str, str]  # graph id, engine name
# A `decode_step` is opened with its encoder and the loop around both; an encoder or a segment answers nothing alone.
ANSWERING = ("full", "decode_step")
Once = Callable[[], object]
Start = Callable[[], "Once | None"]


@dataclasses.dataclass(frozen=True)
class Reason:
    """What was thought of one candidate. `engine` is empty where the graph fell before engines were looked at."""

    graph: str
    engine: str
    verdict: str  # chosen | slower | rejected | candidate
    why: str
    p50_ms: float | None = None


@dataclasses.dataclass(frozen=True)
class Choice:
    """The graph to run, and every alternative with its reason.

    Attributes:
        graph_id: Chosen graph.
        engine: Chosen engine.
        threads: Threads it runs with.
        basis: `asked`, `only`, `measured`, `short measurement` or `size`.
        reasons: One row a candidate, the chosen one first.
        undecided: Candidates still to be measured against each other; empty when the choice is made.
    """

    graph_id: str
    engine: str
    threads: int
    basis: str
    reasons: tuple[Reason, ...]
    undecided: tuple[Key, ...] = ()

    def explain(self) -> str:
        """The reasons in plain words, a line each."""
        rows = [f"{self.graph_id} on {self.engine}, {self.threads} thread(s), by {self.basis}"]
        for row in self.reasons:
            timing = f" ({row.p50_ms:.3f} ms)" if row.p50_ms is not None else ""
            rows.append(f"  {row.verdict}: {row.graph}{' on ' + row.engine if row.engine else ''}{timing}: {row.why}")
        return "\n".join(rows)


@dataclasses.dataclass(frozen=True)
class Wanted:
    """What the caller asked for; empty or None: no wish."""

    graph: str = ""
    engine: str = ""
    target: str = ""
    threads: int | None = None


@dataclasses.dataclass(frozen=True)
class Engines:
    """The installed engines.

    Attributes:
        by_format: Names by graph format, in order of preference.
        versions: Version by name.
        pip_lines: What to install, by graph format.
    """

    by_format: Mapping[str, Sequence[str]]
    versions: Mapping[str, str] = dataclasses.field(default_factory=dict)
    pip_lines: Mapping[str, str] = dataclasses.field(default_factory=dict)


def choose_graph(
    manifest: Manifest, measurements: Sequence[Measurement], engines: Engines, machine: Machine, wanted: Wanted
) -> Choice:
    """Chooses among the full graphs of a bundle.

    Args:
        manifest: What the bundle holds.
        measurements: Those kept beside it, of any machine.
        engines: What is installed.
        machine: This machine.
        wanted: What the caller asked for.

    Returns:
        The choice. Where nothing tells the candidates apart, `undecided` lists them, the smallest file first.

    Raises:
        UsageError: The graph or engine asked for does not exist or does not fit the other.
        EngineMissing: No installed engine runs any graph that may be chosen.
        Refused: Every graph is out for another reason (lists them).
    """
    graphs = _wanted_graphs(manifest, wanted)
    candidates, rejected = _candidates(manifest, graphs, engines, machine, wanted)
    if not candidates:
        raise _nothing_left(manifest, graphs, rejected, engines, wanted)
    threads = wanted.threads or 1
    timings = measured_ms(candidates, manifest, measurements, machine, wanted.threads)
    if len(timings) == len(candidates) > 1:
        return _fastest(timings, rejected, "measured")
    threads = next(iter(timings.values()))[1] if timings and len(candidates) == 1 else threads
    size = {graph.id: graph.bytes for graph in manifest.graphs}
    order = sorted(candidates, key=lambda key: size[key[0]])
    first = order[0]
    if len(order) == 1:
        basis, why = ("asked", "asked for") if wanted.graph else ("only", "the only candidate")
        return Choice(*first, threads, basis, (Reason(*first, "chosen", why), *rejected))
    rows = [Reason(*key, "candidate", f"{size[key[0]]} bytes; not measured on this machine") for key in order]
    rows[0] = dataclasses.replace(rows[0], verdict="chosen", why=f"smallest file ({size[first[0]]} bytes)")
    return Choice(*first, threads, "size", (*rows, *rejected), tuple(order))


def decide_by(timings_ms: Mapping[Key, float | None], before: Choice) -> Choice:
    """The choice after a short measurement.

    Args:
        timings_ms: Median by candidate, None where there was no time left to measure it.
        before: The undecided choice.
    """
    known = {key: (value, before.threads) for key, value in timings_ms.items() if value is not None}
    if not known:
        return dataclasses.replace(before, undecided=())
    out = [row for row in before.reasons if row.verdict == "rejected"]
    unmeasured = [
        Reason(*key, "rejected", "no time left to measure it") for key, value in timings_ms.items() if value is None
    ]
    return _fastest(known, [*unmeasured, *out], "short measurement")


def short_measure(
    candidates: Mapping[Key, Start],
    *,
    budget_s: float = 1.5,
    clock: Callable[[], float] = time.perf_counter,
) -> dict[Key, list[float]]:
    """Times candidates against each other, in alternation, so that a busy moment falls on all of them.

    Args:
        candidates: For each a function that opens it, warms it up and gives back a function that runs it once; None
            when it cannot run here.
        budget_s: Time for everything together, opening included; one run that is longer is let end.
        clock: Seconds, monotonic.

    Returns:
        Milliseconds of each run; an empty list where it cannot run, or the time was over before it was opened.
    """
    end = clock() + budget_s
    samples: dict[Key, list[float]] = {key: [] for key in candidates}
    runs: dict[Key, Once] = {}
    for key, start in candidates.items():
        if runs and clock() >= end:
            break
        once = start()
        if once is not None:
            runs[key] = once
    rounds = 0
    while runs and (rounds == 0 or clock() < end) and rounds < 200:
        for key, once in runs.items():
            before = clock()
            once()
            samples[key].append((clock() - before) * 1e3)
        rounds += 1
    return samples


def median(samples_ms: Sequence[float]) -> float | None:
    """The median, None of nothing."""
    rows, half = sorted(samples_ms), len(samples_ms) // 2
    if not rows:
        return None
    return rows[half] if len(rows) % 2 else (rows[half - 1] + rows[half]) / 2


def measured_ms(
    candidates: Sequence[Key],
    manifest: Manifest,
    measurements: Sequence[Measurement],
    machine: Machine,
    threads: int | None,
) -> dict[Key, tuple[float, int]]:
    """Median and threads of each candidate that was measured on a machine like this one.

    A measurement counts when its graph file, engine and machine are the same, it was really measured, its verdict is
    not `invalid`, it is no step of a sweep over lengths, and its number of threads is the one asked for (any when
    None: then the fastest speaks).
    """
    hashes = {graph.id: graph.sha256 for graph in manifest.graphs}
    found: dict[Key, tuple[float, int]] = {}
    for row in measurements:
        key = (row.graph, row.engine)
        p50 = row.latency_ms.p50
        usable = key in candidates and p50 is not None and not row.predicted and row.verdict.kind != "invalid"
        usable = usable and row.length is None
        if not usable or not on_this_machine(row, machine) or row.graph_sha256 not in ("", hashes[row.graph]):
            continue
        if threads is not None and row.threads != threads:
            continue
        if p50 is not None and (key not in found or p50 < found[key][0]):
            found[key] = (p50, row.threads)
    return found


def on_this_machine(row: Measurement, machine: Machine) -> bool:
    """Was it measured here, or on an equal machine?"""
    return row.device == machine.id or (row.device == "local" and row.environment.cpu == machine.cpu)


def _fastest(timings: Mapping[Key, tuple[float, int]], rest: Sequence[Reason], basis: str) -> Choice:
    order = sorted(timings, key=lambda key: timings[key][0])
    best = order[0]
    rows = [Reason(*best, "chosen", "fastest on this machine", timings[best][0])]
    for key in order[1:]:
        times = timings[key][0] / timings[best][0] if timings[best][0] else float("inf")
        rows.append(Reason(*key, "slower", f"takes {times:.2f} times as long", timings[key][0]))
    return Choice(*best, timings[best][1], basis, (*rows, *rest))


def _wanted_graphs(manifest: Manifest, wanted: Wanted) -> list[Graph]:
    if not wanted.graph:
        return [graph for graph in manifest.graphs if graph.role in ANSWERING]
    found = [graph for graph in manifest.graphs if graph.id == wanted.graph]
    if not found:
        known = ", ".join(graph.id for graph in manifest.graphs)
        raise UsageError(f"the bundle has no graph {wanted.graph!r}", remedy=f"it has: {known}")
    return found


def _candidates(
    manifest: Manifest, graphs: Sequence[Graph], engines: Engines, machine: Machine, wanted: Wanted
) -> tuple[list[Key], list[Reason]]:
    candidates: list[Key] = []
    rejected: list[Reason] = []
    for graph in graphs:
        against = "" if wanted.graph else _against(manifest, graph, machine, wanted.target)
        if against:
            rejected.append(Reason(graph.id, "", "rejected", against))
            continue
        there = engines.by_format.get(graph.format, ())
        names = [name for name in there if wanted.engine in ("", name)]
        if not names:
            who = f"engine {wanted.engine} does not run" if wanted.engine else "no installed engine runs"
            rejected.append(Reason(graph.id, "", "rejected", f"{who} {graph.format}"))
        for name in names:
            needed = needed_version(graph, name)
            if older(engines.versions.get(name, ""), needed):
                why = f"needs {name} {needed}, here is {engines.versions[name]}"
                rejected.append(Reason(graph.id, name, "rejected", why))
            else:
                candidates.append((graph.id, name))
    return candidates, rejected


def _against(manifest: Manifest, graph: Graph, machine: Machine, target: str) -> str:
    """Why a graph may not be chosen here, empty when it may."""
    failed = [row for row in manifest.quality if row.graph == graph.id and row.gate == "failed"]
    if failed:
        return f"its quality gate failed: {failed[0].reason}"
    if target and graph.targets and target not in graph.targets:
        return f"made for {', '.join(graph.targets)}, not for {target}"
    # The int8 ONNX graph without a variant has uint8 activations: u8s8 under its short name.
    saturates = graph.format == "onnx" and graph.precision == "int8" and graph.variant in ("", "u8s8")
    if saturates and machine.is_x86 and not machine.has_int8_dot:
        return "u8 x s8 can saturate on a processor without VNNI: its answers would not be those that were proven"
    return ""


def _nothing_left(
    manifest: Manifest, graphs: Sequence[Graph], rejected: Sequence[Reason], engines: Engines, wanted: Wanted
) -> Exception:
    formats = {graph.format for graph in graphs}
    if wanted.engine and any(wanted.engine in names for names in engines.by_format.values()):
        return UsageError(
            f"engine {wanted.engine} runs none of the graphs asked for",
            remedy=f"choose another engine, or one of: {', '.join(graph.id for graph in manifest.graphs)}",
        )
    if not any(engines.by_format.get(name) for name in formats):
        lines = " or ".join(dict.fromkeys(engines.pip_lines.get(name, "") for name in sorted(formats)))
        return EngineMissing(f"no engine is installed that runs {' or '.join(sorted(formats))}", remedy=lines)
    why = "; ".join(f"{row.graph}: {row.why}" for row in rejected)
    return Refused(
        f"no graph of the bundle can be used here: {why}",
        remedy="name one with graph=..., or convert again for this target",
    )


def needed_version(graph: Graph, engine: str) -> str:
    """The oldest version of an engine that runs a graph, in that engine's own numbers; empty where nothing is known.

    `min_engine_version` is a version of the graph's engine, or `NAME=VERSION`. `tflite=2.14` counts as TFLite
    does, and tflite-runtime with it. LiteRT counts anew from TFLite 2.17 on: there the interpreter itself must judge.
    """
    name, _, version = graph.min_engine_version.rpartition("=")
    counts_as = "tflite-runtime" if name == "tflite" else name or graph.engine
    return version if counts_as == engine else ""


def older(version: str, needed: str) -> bool:
    """Is `version` older than `needed`? Compared number by number; what cannot be read is never older."""
    have, want = (tuple(int(part) for part in re.findall(r"\d+", text.split("+")[0])[:3]) for text in (version, needed))
    width = max(len(have), len(want))
    return bool(have and want) and have + (0,) * (width - len(have)) < want + (0,) * (width - len(want))
