"""A bundle's manifest as tables and lines for an 80-column terminal."""

from __future__ import annotations

from collections.abc import Iterator

from rich.markup import escape
from rich.table import Table

from edgekit_runtime.exits import CHECK_FRACTION
from edgekit_runtime.manifest import Graph, Manifest


def size(count: int) -> str:
    """Bytes as a person reads them."""
    value = float(count)
    for unit in ("B", "KiB", "MiB", "GiB"):
        if value < 1024 or unit == "GiB":
            return f"{value:.0f} {unit}" if unit == "B" or value >= 100 else f"{value:.1f} {unit}"
        value /= 1024
    return ""


def graph_table(manifest: Manifest) -> Table:
    """One row a graph: bytes, int8 shares, what the gate saw."""
    table = Table(box=None, pad_edge=False)
    for title, justify in (("graph", "left"), ("size", "right"), ("int8\nbytes", "right"), ("int8\nMACs", "right")):
        table.add_column(title, justify=justify, no_wrap=title == "size")  # type: ignore[arg-type]
    table.add_column("against the student:\nmetric, drop [95 %]")
    for graph in manifest.graphs:
        if graph.role in ("segment", "exit"):
            continue
        int8 = graph.precision == "int8"
        table.add_row(
            graph.id,
            size(graph.bytes),
            f"{graph.int8_weight_bytes_fraction:.0%}" if int8 else "-",
            f"{graph.executed_int8_macs_fraction:.0%}" if int8 else "-",
            seen(manifest, graph),
        )
    return table


def split_table(manifest: Manifest, graph: str) -> Table:
    """One row a split point of a full graph: what crosses, its bytes, the share of the work before it, its exit."""
    table = Table(box=None, pad_edge=False, title=f"\nsplit points of {graph}", title_justify="left")
    # Titles in two lines leave 80 columns room for a shape in one piece.
    for title in ("place", "crosses", "bytes", "MACs\nbefore", "tail also\nneeds", "exit"):
        table.add_column(title, justify="right" if title in ("bytes", "MACs\nbefore") else "left", overflow="fold")
    exits = {item.after: item.output for item in manifest.exits if item.of == graph}
    for point in manifest.split_points:
        if point.of == graph:
            total = max(point.macs_before + point.macs_after, 1)
            table.add_row(
                point.place,
                escape("\n".join(f"{t.dtype}[{','.join(map(str, t.shape))}]" for t in point.tensors)),
                size(point.bytes),
                f"{point.macs_before / total:.1%}",
                ", ".join(point.tail_inputs) or "-",
                exits.get(point.id, ""),
            )
    return table


def operating_table(manifest: Manifest) -> Table:
    """One row an operating point: what is certified, who leaves where, and whether a drift alarm watches it."""
    table = Table(box=None, pad_edge=False, title="\noperating points", title_justify="left")
    for title in ("chain", "risk", "confi-\ndence", "seen", "n", "left at\neach exit", "drift\nalarm"):
        table.add_column(title, justify="left" if title == "chain" else "right")
    for point in manifest.operating_points:
        left = " ".join(f"{share:.0%}" for share in point.exit_fractions)
        risk = f"{point.risk:g} {'of labels' if point.labels else 'disagreement'}"
        seen_risk = f"{point.empirical_risk:.4f}"
        chain = f"{point.of}, steps" if point.steps else point.of
        if point.first is not None:
            chain = f"{point.first.name} ({point.first.graph}, {point.first.bundle_id[:12]}…), then {point.of}"
        alarm = "none" if point.unwatched else "watches"
        table.add_row(chain, risk, f"{point.confidence_level:g}", seen_risk, str(point.n), left, alarm)
    return table


def watches(manifest: Manifest) -> list[dict[str, object]]:
    """For each operating point whether a session's drift alarm watches it, and how often that looks.

    `check_fraction` is of the early answers, `checked_requests_fraction` of all requests as they left when it was
    certified; both 0 where nothing is checked.
    """
    rows: list[dict[str, object]] = []
    for point in manifest.operating_points:
        share = 0.0 if point.unwatched else CHECK_FRACTION
        rows.append(
            {
                "operating_point": point.id,
                "watched": not point.unwatched,
                "check_fraction": share,
                "checked_requests_fraction": share * sum(point.exit_fractions[:-1]),
                "reason": point.unwatched or "early answers are checked against the full one",
            }
        )
    return rows


def watch_lines(manifest: Manifest) -> Iterator[str]:
    """The same in words, a line for each kind of answer."""
    if any(not point.unwatched for point in manifest.operating_points):
        yield (
            f"alarm watches: a session with a server checks 1 early answer in {1 / CHECK_FRACTION:.0f} against the "
            "full one (check_fraction), and closes exits that differ more often than certified"
        )
    for why in dict.fromkeys(point.unwatched for point in manifest.operating_points if point.unwatched):
        yield f"alarm none: {why}"


def seen(manifest: Manifest, graph: Graph) -> str:
    """What the gate or the parity check saw of a graph, in a few words."""
    quality = next((q for q in manifest.quality if q.graph == graph.id and q.slice == "all"), None)
    if quality:
        low, high = quality.interval_95
        name = quality.metric.partition(" ")[0]
        return f"{name} {quality.value:.4f}, {quality.drop:+.4f} [{low:+.4f}, {high:+.4f}]"
    worst = [p.max_error_fraction for p in manifest.parity if p.graph == graph.id]
    return f"error {max(worst):.0e} of range" if worst else "-"


def refusal_lines(manifest: Manifest) -> Iterator[str]:
    """What was asked for and is not there."""
    for refusal in manifest.refused:
        yield f"not shipped: {refusal.format} {refusal.precision}: {refusal.reason}"
