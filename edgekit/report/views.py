"""Charts of one measurement or of several, from their documents."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from typing import Any

import msgspec

from edgekit.report import charts, numbers
from edgekit.report.model import Page, Row, one_request
from edgekit.report.roofline import Roof, place, roof_of
from edgekit_runtime.measurement import Environment, Measurement

_MOST_OPS = 15
_POINTS_OF_A_PAGE, _OPS_OF_A_PAGE = 30_000, 1500  # so that a page of hundreds of measurements stays small


def distribution(measurement: Measurement) -> Any:
    """The histogram of a measurement's raw samples."""
    latency = measurement.latency_ms
    return charts.histogram(latency.samples, latency.p50, latency.interval_95)


def timeline(measurement: Measurement, on_page: int = 1) -> Any:
    """The same samples in order of time; the more measurements a page has, the fewer points each is drawn with."""
    most = max(60, min(600, _POINTS_OF_A_PAGE // on_page))
    return charts.timeline(measurement.latency_ms.samples, measurement.latency_ms.processes, most)


def operators(measurement: Measurement, roof: Roof | None = None, on_page: int = 1) -> Any:
    """Bars of the most expensive operators: by time where the engine tells it, else by multiply-accumulates."""
    most = max(5, min(_MOST_OPS, _OPS_OF_A_PAGE // on_page))
    timed = any(op.ms is not None for op in measurement.ops)
    pairs = [(op, (op.ms or 0.0) if timed else float(op.macs or 0)) for op in measurement.ops]
    total = sum(value for _, value in pairs) or 1.0
    reached = {id(placed.op): placed for placed in place(measurement, roof)}
    ordered = sorted(pairs, key=lambda pair: -pair[1])
    rows = []
    for op, value in ordered[:most]:
        placed = reached.get(id(op))
        rate = f", {numbers.significant(placed.gmacs_per_s, 2)} GMAC/s" if placed else ""
        roofed = f", {placed.of_roof:.0%} of roof" if placed and placed.of_roof else ""
        text = f"{_cost(value, timed)}, {value / total:.0%}{rate}{roofed}"
        name = f"{op.kind} {op.name}" if op.kind not in op.name else op.name
        rows.append((name, value, text, "bar int8" if op.int8 else "bar fp32"))
    rest = sum(value for _, value in ordered[most:])
    if rest:
        shown = min(rest, ordered[0][1])
        rows.append((f"{len(ordered) - most} others", shown, f"{rest / total:.0%} together", "bar rest"))
    return charts.bars(rows, f"Operators by {'time' if timed else 'multiply-accumulates'}")


def _cost(value: float, timed: bool) -> str:
    return f"{numbers.significant(value)} ms" if timed else f"{numbers.count(int(value))} MACs"


def roofline(measurement: Measurement, roof: Roof | None) -> Any:
    """Operators below the roofs; None without roofs or without timed operators whose work is known."""
    placed = place(measurement, roof)
    if roof is None or not placed:
        return None
    kinds = [("int8" if row.op.int8 else "fp32") for row in placed]
    points = [
        charts.Point(row.op.name, row.macs_per_byte, row.gmacs_per_s, kind)
        for row, kind in zip(placed, kinds, strict=True)
    ]
    lines = []
    for precision in dict.fromkeys(kinds):
        if precision in roof.gmacs_per_s:
            lines.append((f"{precision} roof", _height(roof, precision, measurement.threads)))
    return charts.log_log(points, lines, "MACs a byte", "GMAC/s") if lines else None


def _height(roof: Roof, precision: str, threads: int) -> Callable[[float], float]:
    return lambda at: roof.limit(precision, at, threads) or 0.0


def glance(rows: Sequence[Row]) -> Any:
    """Medians of the measurements of one student as bars: graphs, engines, threads and sizes side by side.

    Returns:
        The chart; None for fewer than two medians.
    """
    timed = [row.measurement for row in rows if row.measurement.latency_ms.p50]
    sizes = len({tuple(sorted(m.inputs.items())) for m in timed}) > 1
    bars = []
    for m in timed:
        threads = f"{m.threads} thread{'s' * (m.threads > 1)}"
        shape = f", {numbers.TIMES.join(map(str, next(iter(m.inputs.values()))))}" if sizes and m.inputs else ""
        doubt = ", predicted" if m.predicted else "" if m.verdict.kind == "sound" else f", {m.verdict.kind}"
        kind = m.precision if m.precision in ("int8", "fp16", "fp32") else "fp32"
        name = f"{m.graph}, {threads}{shape}"
        text = f"{numbers.significant(m.latency_ms.p50)} ms{doubt}"
        bars.append((name, m.latency_ms.p50 or 0.0, text, f"bar {kind}"))
    return charts.bars(bars, "Median latency") if len(bars) > 1 else None


def memory(measurement: Measurement) -> Any:
    """Bars of the file, what opening and the first run add, and the peak."""
    seen = measurement.memory
    named = (
        ("file", seen.file_bytes),
        ("added by opening", seen.open_bytes),
        ("added by the first run", seen.arena_bytes),
        ("peak of the process, engine included", seen.peak_rss_bytes),
        ("held on the card", seen.card_bytes),
    )
    rows = [(name, float(value), numbers.bytes_(value), "bar fp32") for name, value in named if value is not None]
    return charts.bars(rows, "Memory")


def trade_offs(pages: Sequence[Page], bundle_id: str) -> list[tuple[str, Any]]:
    """Quality of one student against latency, a chart a device, and against bytes.

    Returns:
        Titles and charts; a device with fewer than two graphs that have both figures has none.
    """
    found: list[tuple[str, Any]] = []
    sizes: dict[str, tuple[str, float, Row]] = {}
    metric = ""
    for page in pages:
        students = [student for student in page.students if student.bundle_id == bundle_id]
        judged = [
            r for student in students for r in student.rows if r.value is not None and r.measurement.latency_ms.p50
        ]
        rows = one_request(judged)
        sizes |= {m.graph: (m.graph, float(m.memory.file_bytes), row) for row in rows for m in (row.measurement,)}
        if len({row.measurement.graph for row in rows}) < 2:
            continue
        metric = rows[0].metric
        latency = [(_with_threads(row.measurement), row.measurement.latency_ms.p50 or 0.0, row) for row in rows]
        where = f" on {page.device}" if len(pages) > 1 else ""
        chart = charts.scatter(_points(latency), "median latency in ms", metric)
        found.append((f"{metric} against latency{where}", chart))
    if found:
        by_size = charts.scatter(_points(list(sizes.values()), exact=True), "size of the file", metric, numbers.bytes_)
        found.append((f"{metric} against bytes", by_size))
    return found


def _with_threads(measurement: Measurement) -> str:
    return f"{measurement.graph} {measurement.threads}t" if measurement.threads > 1 else measurement.graph


def _points(named: Sequence[tuple[str, float, Row]], *, exact: bool = False) -> list[charts.Point]:
    """Points with the front among those that can be trusted (an invalid figure never leads).

    Args:
        named: Name, x and row of each point.
        exact: x is known whatever the verdict says (bytes of a file).
    """
    valid = [exact or row.measurement.verdict.kind != "invalid" for _, _, row in named]
    trusted = [(x, row.rank) for (_, x, row), sure in zip(named, valid, strict=True) if sure]
    front = set(trusted) & {pair for pair, best in zip(trusted, charts.pareto(trusted), strict=True) if best}
    return [
        charts.Point(
            name,
            x,
            row.value or 0.0,
            row.measurement.precision if row.measurement.precision in ("int8", "fp16", "fp32") else "fp32",
            front=sure and (x, row.rank) in front,
            doubtful=not exact and (row.measurement.verdict.kind != "sound" or row.measurement.predicted),
        )
        for (name, x, row), sure in zip(named, valid, strict=True)
    ]


def fingerprint(environment: Environment, engines: Sequence[str]) -> str:
    """Twelve digits that are equal where processor, kernel, Python, governor and engines are."""
    kept = (environment.cpu, environment.cores, environment.kernel, environment.python, environment.governor)
    return hashlib.sha256(msgspec.json.encode([kept, sorted(engines)])).hexdigest()[:12]


def roof(measurement: Measurement) -> Roof | None:
    """The roofs of the device a measurement is of."""
    return roof_of(measurement.device)
