"""`edgekit inspect`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import msgspec
import typer
from rich.console import Console
from rich.table import Table

from edgekit.cli.app import JsonFlag, QuietFlag
from edgekit.cli.bundle_tables import (
    graph_table,
    operating_table,
    refusal_lines,
    size,
    split_table,
    watch_lines,
    watches,
)
from edgekit.cli.output import Output
from edgekit_converters.promise import broken
from edgekit_runtime.bundle import Bundle, open_bundle
from edgekit_runtime.manifest import Tensor


def command(
    bundle: Annotated[Path, typer.Argument(help="A bundle.")],
    ops: Annotated[bool, typer.Option("--ops", help="Each operator with its precision and why.")] = False,
    cuts: Annotated[bool, typer.Option("--cuts", help="Every place it could be cut at, and why it is not.")] = False,
    json: JsonFlag = False,
    quiet: QuietFlag = False,
) -> None:
    """Shows what is in a bundle: graphs, int8 coverage, exits, quality, measurements.

    Example: edgekit inspect student.edge --ops
    """
    output = Output(json=json, quiet=quiet)
    with open_bundle(bundle) as opened:
        opened.check_files()
        document = {"manifest": opened.manifest, "measurements": opened.measurements(), "bundle_id": opened.bundle_id}
        if found := _tables(opened):
            document["tables"] = found
        if opened.manifest.operating_points:
            document["drift_alarms"] = watches(opened.manifest)
        if ops:
            document["ops"] = _recipes(opened)
        if cuts:
            document["cuts"] = _cuts(opened)
        output.result(document, lambda console: _render(console, opened, ops=ops, cuts=cuts))


def _recipes(bundle: Bundle) -> dict[str, object]:
    found = {}
    for graph in bundle.manifest.graphs:
        path = bundle.file(graph.recipe) if graph.recipe else None
        if path is not None:
            found[graph.id] = msgspec.json.decode(path.read_bytes())
    return found


def _cuts(bundle: Bundle) -> dict[str, list[dict[str, Any]]]:
    """Every place that was looked at, by full graph."""
    found = {}
    for graph in bundle.manifest.graphs:
        path = bundle.file(f"assets/cuts/{graph.id}.json")
        if path is not None:
            found[graph.id] = msgspec.json.decode(path.read_bytes(), type=list[dict[str, Any]])
    return found


def _tables(bundle: Bundle) -> dict[str, dict[str, int]]:
    """For each int8 graph with look-up tables: their bytes, and those that a run at the example's size reads."""
    found = {}
    for graph_id, recipe in _recipes(bundle).items():
        tables = [op for op in recipe["ops"] if op["scheme"] == "weight_row"]  # type: ignore[index]
        if tables:
            found[graph_id] = {
                f"{which}_bytes": sum(op.get(key, 0) for op in tables) // 4  # int8, where the recipe counts fp32
                for which, key in (("table", "weight_bytes"), ("touched", "touched_bytes"))
            }
    return found


def _shape(tensor: Tensor) -> str:
    return f"{tensor.name} {tensor.dtype}[{', '.join(map(str, tensor.shape))}]"


def _render(console: Console, bundle: Bundle, *, ops: bool, cuts: bool) -> None:
    manifest = bundle.manifest
    total = sum(entry.bytes for entry in manifest.files.values())
    console.print(f"{manifest.name} version {manifest.version}, {size(total)} in {len(manifest.files)} files")
    console.print(f"bundle_id {bundle.bundle_id}")
    console.print(f"source    {manifest.source.kind}, captured by {manifest.source.exporter}", markup=False)
    console.print(f"inputs    {', '.join(map(_shape, manifest.inputs))}", markup=False)
    console.print(f"outputs   {', '.join(map(_shape, manifest.outputs))}", markup=False)
    for axis in manifest.axes:
        console.print(f"axis      {axis.symbol}: {axis.min} to {axis.max}, {axis.role}", markup=False)
    if manifest.exits:
        outputs = dict.fromkeys(item.output for item in manifest.exits)
        console.print(f"exits     {', '.join(outputs)}", markup=False)
    for note in manifest.source.notes:
        console.print(f"note      {note}", markup=False)
    console.print()
    console.print(graph_table(manifest))
    for graph_id, count in _tables(bundle).items():
        read = f"a run at the example's size reads {size(count['touched_bytes'])} of them"
        console.print(f"tables    {graph_id}: {size(count['table_bytes'])} in int8, {read}", markup=False)
    for graph in manifest.graphs:
        for line in broken(graph):
            console.print(f"note      {graph.id}: {line}", markup=False)
        if graph.precision == "int8" and graph.ships_because:
            console.print(f"ships     {graph.id}: {graph.ships_because}", markup=False)
    for quality in manifest.quality:
        mark = "passed" if quality.gate == "passed" else "FAILED"
        console.print(
            f"gate {mark}: {quality.graph} {quality.metric} ({quality.slice}): {quality.reason}", markup=False
        )
    for line in refusal_lines(manifest):
        console.print(line, markup=False)
    for graph_id in dict.fromkeys(point.of for point in manifest.split_points):
        console.print(split_table(manifest, graph_id))
    for graph_id, rows in _cuts(bundle).items():
        for row in (row for row in rows if "place" not in row):
            console.print(f"note      {graph_id} {row['fate']}", markup=False)
    if manifest.operating_points:
        console.print(operating_table(manifest))
        for line in watch_lines(manifest):
            console.print(line, markup=False)
    measurements = bundle.measurements()
    if measurements:
        console.print()
    for m in measurements:
        told = f"{m.latency_ms.p50:.3f} ms" if m.latency_ms.p50 is not None else "withheld"
        console.print(
            f"measured {m.graph} on {m.device}, {m.engine} x{m.threads}: p50 {told}, {m.verdict.kind}", markup=False
        )
    if ops:
        _render_ops(console, bundle)
    if cuts:
        _render_cuts(console, bundle)


def _render_cuts(console: Console, bundle: Bundle) -> None:
    for graph_id, rows in _cuts(bundle).items():
        table = Table(box=None, pad_edge=False, title=f"\nplaces of {graph_id}", title_justify="left")
        for column in ("place", "tensors", "bytes", "MACs before", "fate"):
            table.add_column(column, justify="right" if column in ("bytes", "MACs before") else "left", overflow="fold")
        for row in rows:
            if "place" not in row:  # told above
                continue
            work = row["macs_before"] / max(row["macs_before"] + row["macs_after"], 1)
            table.add_row(row["place"], " ".join(row["tensors"]), size(row["bytes"]), f"{work:.1%}", row["fate"])
        if table.row_count:
            console.print(table)


def _render_ops(console: Console, bundle: Bundle) -> None:
    for graph_id, recipe in _recipes(bundle).items():
        table = Table(box=None, pad_edge=False, title=f"\n{graph_id}", title_justify="left")
        for column in ("operator", "kind", "scheme", "MMAC", "why"):
            table.add_column(column, justify="right" if column == "MMAC" else "left", overflow="fold")
        for op in recipe["ops"]:  # type: ignore[index]
            table.add_row(op["op"], op["kind"], op["scheme"], f"{op.get('macs', 0) / 1e6:.2f}", op["reason"])
        console.print(table)
        for note in recipe.get("notes", ()):  # type: ignore[attr-defined]
            console.print(f"note: {note}", markup=False)
