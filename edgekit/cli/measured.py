"""Measurements as tables of 80 columns on a terminal."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from edgekit.report.numbers import MISSING, bytes_, interval, rhythm, significant, times
from edgekit.report.write import placed, shapes
from edgekit_runtime.measurement import Measurement

COLOURS = {"sound": "green", "noisy": "yellow", "invalid": "red"}


def render(console: Console, measurements: Sequence[Measurement]) -> None:
    """Time, memory and work of each measurement, then the reasons of every verdict and what could not be told."""
    for device in dict.fromkeys(m.device for m in measurements):
        here = [m for m in measurements if m.device == device]
        if len(here) < len(measurements):
            console.print(f"[bold]{escape(device)}[/], {escape(here[0].environment.cpu)}")
        if all(m.predicted for m in here):
            _prediction(console, here)
            continue
        console.print(_time(here))
        if ran := [m for m in here if m.latency_ms.n]:
            console.print()
            console.print(_memory(ran))
            console.print()
            console.print(_work(ran))
            _rhythms(console, ran)
        for m in here:
            _reasons(console, m)
        console.print()


def _names(measurements: Sequence[Measurement]) -> list[str]:
    """The graph of each row, and below it the inputs where those differ from row to row (a sweep)."""
    seen: dict[str, set[str]] = {}
    for m in measurements:
        seen.setdefault(m.graph, set()).add(shapes(m.inputs))
    swept = any(len(sizes) > 1 for sizes in seen.values())
    return [escape(f"{m.graph}\n{shapes(m.inputs)}" if swept else m.graph) for m in measurements]


def _prediction(console: Console, measurements: Sequence[Measurement]) -> None:
    table = _table("engine", "thr", "p50 ms", "95 % interval", "energy mJ", "not covered")
    names = _names(measurements)
    for number, m in enumerate(measurements):
        uncovered = m.uncovered_macs_fraction
        table.add_row(
            names[number],
            escape(m.engine),
            str(m.threads),
            significant(m.latency_ms.p50),
            interval(m.latency_ms.interval_95).replace(" to ", MISSING),
            significant(m.energy.mj),
            f"{uncovered:.0%}" if uncovered is not None else MISSING,
        )
    console.print(table)
    for reason in dict.fromkeys(reason for m in measurements for reason in m.verdict.reasons):
        graphs = dict.fromkeys(m.graph for m in measurements if reason in m.verdict.reasons)
        console.print(f"  {', '.join(graphs)}: {reason}", markup=False)
    console.print()


def _time(measurements: Sequence[Measurement]) -> Table:
    table = _table("engine", "thr", "p50 ms", "95 % interval", "p99 ms", "verdict")
    names = _names(measurements)
    for number, m in enumerate(measurements):
        latency, colour = m.latency_ms, COLOURS[m.verdict.kind]
        verdict = "predicted" if m.predicted else m.verdict.kind
        table.add_row(
            names[number],
            escape(m.engine),
            str(m.threads),
            significant(latency.p50),
            interval(latency.interval_95).replace(" to ", MISSING),
            significant(latency.p99),
            f"[{colour}]{verdict}[/]",
        )
    return table


def _memory(measurements: Sequence[Measurement]) -> Table:
    table = _table("open ms", "first ms", "per s", "file", "opened", "first run", "peak")
    names = _names(measurements)
    for number, m in enumerate(measurements):
        memory = (m.memory.file_bytes, m.memory.open_bytes, m.memory.arena_bytes, m.memory.peak_rss_bytes)
        rate = significant(m.throughput_per_s)
        table.add_row(
            names[number], significant(m.open_ms), significant(m.first_ms), rate, *(bytes_(value) for value in memory)
        )
    return table


def _work(measurements: Sequence[Measurement]) -> Table:
    table = _table("runs on", "encode ms", "session ms", "outside ops ms", "inputs")
    for m in measurements:
        around = m.around
        table.add_row(
            escape(m.graph),
            escape(placed(m)),
            significant(around.encode_ms if around else None),
            significant(around.session_ms if around else None),
            significant(around.outside_operators_ms if around else None),
            escape(shapes(m.inputs)),
        )
    return table


def _rhythms(console: Console, measurements: Sequence[Measurement]) -> None:
    rows = [(m, row) for m in measurements for row in m.duty]
    if not rows:
        return
    table = _table("rhythm", "idle ms", "n", "p50 ms", "mean ms", "max ms", "of the loop")
    for m, row in rows:
        ratio = times(row.ratio) if row.ratio else MISSING
        figures = (significant(row.p50), significant(row.mean), significant(row.max), ratio)
        table.add_row(escape(m.graph), rhythm(row.name), significant(row.idle_ms), str(row.n), *figures)
    console.print()
    console.print(table)


def _reasons(console: Console, m: Measurement) -> None:
    held = [f"{name} withheld: {reason}" for name, reason in m.withheld.items() if not m.predicted and m.latency_ms.n]
    lines = [f"{m.verdict.kind}: {reason}" for reason in m.verdict.reasons] + held
    lines += [f"{row.delegate} runs {', '.join(row.kinds[:6])}" for row in m.placement[1:]] + list(m.remarks)
    if lines:
        where = f"{m.graph}, {m.engine}, {m.threads} thread{'s' * (m.threads > 1)}, {shapes(m.inputs)}"
        console.print(escape(f"\n{where}"))
    for line in lines:
        console.print(escape(f"  {line}"))


def _table(*columns: str) -> Table:
    table = Table(box=None, pad_edge=False, padding=(0, 1))
    table.add_column("graph", overflow="fold", min_width=11)
    for name in columns:
        words = name in ("engine", "verdict", "inputs", "runs on", "rhythm")
        fold = name in ("inputs", "runs on")
        table.add_column(name, justify="left" if words else "right", no_wrap=not fold, overflow="fold")
    return table
