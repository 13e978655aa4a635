"""`edgekit plan`: which action wins where."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from edgekit.cli.app import JsonFlag, QuietFlag
from edgekit.cli.output import Output
from edgekit.cli.policies import read_policy, render_left_out
from edgekit.files import write_text
from edgekit_runtime.adaptive import Policy
from edgekit_runtime.errors import UsageError

if TYPE_CHECKING:
    from edgekit.planner import Grid, Plan

MOST_ROWS = 12
# Of a policy, what says which actions are open; a plan is by expected latency, whatever a request would want else.
POLICY_KEYS = ("max_risk", "max_bytes", "privacy", "without")


def command(
    bundle: Annotated[Path, typer.Argument(help="A bundle.")],
    link: Annotated[
        list[str] | None,
        typer.Option(metavar="TRACE|rtt=..,mbps=..", help="Only this link, or the round trips and rates of a trace."),
    ] = None,
    load: Annotated[str, typer.Option(metavar="device=..,server=..", help="Only this utilisation by others.")] = "",
    device: Annotated[str, typer.Option(help="Device profile.")] = "local",
    server_profile: Annotated[str, typer.Option(help="Device profile of the server.")] = "x86-vnni",
    threads: Annotated[int, typer.Option(min=1, help="Of one run on the device, as `edgekit run`.")] = 1,
    server_threads: Annotated[int, typer.Option(min=1, help="Of one run on the server, as `edgekit serve`.")] = 1,
    graph: Annotated[
        str | None, typer.Option(metavar="ID", help="Graph that runs on the device; default: the quickest there.")
    ] = None,
    first: Annotated[
        list[Path] | None, typer.Option(metavar="SMALL.edge", help="A cheaper student of its cascades; repeatable.")
    ] = None,
    policy: Annotated[
        list[str] | None,
        typer.Option(metavar="KEY=VALUE", help=f"As er.Policy: {', '.join(POLICY_KEYS)}; repeatable."),
    ] = None,
    report: Annotated[Path | None, typer.Option(help="Write the picture here, one HTML file.")] = None,
    json: JsonFlag = False,
    quiet: QuietFlag = False,
) -> None:
    """Which action wins where: a table over links and loads, crossover bandwidths, a picture, and a plain verdict.

    What may lose accuracy (exits, cascades, JPEG, int8 wires) takes part under --policy max_risk=.. only, as in a
    session; what is left out is told.

    Example: edgekit plan student.edge --device pi4 --server-profile x86-vnni --link rtt=20,mbps=8
    """
    from edgekit.devices import load as load_profile
    from edgekit.planner import plan, price
    from edgekit.planner.cascades import opened as opened_first
    from edgekit.planner.times import Times
    from edgekit_runtime import open_bundle

    output = Output(json=json, quiet=quiet)
    grid = _grid(link or [], load)
    wanted = _policy(policy or [])
    own, there = load_profile(device), load_profile(server_profile)
    with open_bundle(bundle) as opened, opened_first(first or (), own, threads) as small:
        here, away = Times(opened, own, threads), Times(opened, there, server_threads)
        priced = price(opened, here, away, small, graph or "")
    found = plan(priced.actions, grid, wanted)
    left_out = {**priced.left_out, **found.left_out}
    document = found.document() | {"graph": priced.graph, "left_out": left_out}
    document |= {"device_threads": here.threads, "server_threads": away.threads}
    if report is not None:
        from edgekit.planner.page import page

        notes = (f"{_runs(document)} On the server: {_threads(away.threads)}.",)
        write_text(report, page(found, f"{bundle.name}: {device} with {server_profile}", notes, left_out), "--report")
    output.result(document, lambda console: _render(console, document, found, report))


def _grid(link: list[str], load: str) -> Grid:
    """The links and loads that are looked at; those named, or the usual ones.

    Raises:
        UsageError: The links carry nothing.
    """
    from edgekit.planner import Grid
    from edgekit.simulate.traces import read_link, read_load

    grid = Grid()
    if link:
        traces = [trace for text in link for trace in read_link(text)]
        rates = sorted({float(f"{rate:.3g}") for trace in traces for rate in trace.up.mbps if rate > 0})
        rtts = sorted({float(f"{rtt:.3g}") for trace in traces for rtt in trace.rtt_ms.mbps})
        if not rates:
            raise UsageError("the links carry nothing", remedy="name a trace with bandwidth in it")
        grid = dataclasses.replace(grid, rtt_ms=tuple(rtts), bandwidth_mbps=_thinned(rates))
    if load:
        loads = read_load(load)
        on_device, on_server = (_thinned(sorted(set(one.mbps))) for one in (loads.device, loads.server))
        grid = dataclasses.replace(grid, device_load=on_device, server_load=on_server)
    return grid


def _policy(rows: list[str]) -> Policy:
    """A policy from `key=value` rows.

    Raises:
        UsageError: A key that a plan has no use for, or that no policy has, or a wrong value.
    """
    wanted = read_policy(rows)
    for row in rows:
        name = row.partition("=")[0]
        if name not in POLICY_KEYS:
            raise UsageError(
                f"--policy {row}: a plan is by expected latency and has no use for {name}",
                remedy=f"it takes {', '.join(POLICY_KEYS)}; edgekit simulate takes them all",
            )
    return wanted


def _thinned(values: list[float], most: int = 40) -> tuple[float, ...]:
    step = max(1, -(-len(values) // most))
    return tuple(dict.fromkeys((*values[::step], values[-1])))


def _busy(at: dict[str, Any]) -> str:
    if not at["device_load"] and not at["server_load"]:
        return "nothing else running"
    return f"device {at['device_load']:.0%} and server {at['server_load']:.0%} busy with others"


def _runs(document: dict[str, Any]) -> str:
    return f"On the device runs {document['graph']} with {_threads(document['device_threads'])}."


def _threads(count: int) -> str:
    return f"{count} thread{'s' * (count > 1)}"


def _render(console: Console, document: dict[str, Any], found: Plan, report: Path | None) -> None:
    at = document["at"]
    console.print(found.verdict, markup=False)
    console.print(f"{_runs(document)} Drop: of accuracy against it.", markup=False)
    console.print(f"\nat {at['rtt_ms']:g} ms round trip, {at['bandwidth_mbps']:g} Mbit/s, {_busy(at)}:", markup=False)
    table = Table(box=None)
    table.add_column("action", overflow="fold")
    for name in ("expected ms", "bytes up", "accuracy drop"):
        table.add_column(name, justify="right")
    for row in document["actions"][:MOST_ROWS]:
        drop = "not measured" if row["accuracy_drop"] is None else f"{row['accuracy_drop']:.4f}"
        table.add_row(row["id"], f"{row['predicted_ms']:.2f}", str(row["bytes_up"]), drop)
    console.print(table)
    _more(console, len(document["actions"]), "actions, with the reasons of each")
    _render_crossovers(console, found.crossovers)
    render_left_out(console, document["left_out"])
    if report is not None:
        console.print(f"picture: {report}", markup=False)


def _render_crossovers(console: Console, crossovers: Any) -> None:
    if not crossovers:
        return
    table = Table(title="where another action takes over", box=None)
    for name in ("from\nMbit/s", "action", "instead of", "RTT\nms", "device\nbusy", "server\nbusy"):
        table.add_column(name, justify="left" if name in ("action", "instead of") else "right", overflow="fold")
    for row in crossovers[:MOST_ROWS]:
        busy = (f"{100 * row.device_load:.0f} %", f"{100 * row.server_load:.0f} %")
        table.add_row(f"{row.bandwidth_mbps:.3g}", row.above, row.below, f"{row.rtt_ms:g}", *busy)
    console.print(table)
    _more(console, len(crossovers), "crossovers")


def _more(console: Console, total: int, what: str) -> None:
    if total > MOST_ROWS:
        console.print(f"  … {total - MOST_ROWS} more {what}: --json", markup=False)
