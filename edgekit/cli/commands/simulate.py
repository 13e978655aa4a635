"""`edgekit simulate`: policies against the oracle on recorded links and loads."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from edgekit.cli.app import JsonFlag, QuietFlag
from edgekit.cli.output import Output
from edgekit.cli.policies import read_policy, render_left_out
from edgekit.files import check_writable, write_text
from edgekit_runtime.adaptive import ActionCost
from edgekit_runtime.errors import UsageError

_WIDEST_MS = 1e7  # three hours; longer times would push the other columns off 80


class Side(NamedTuple):
    """A machine that runs graphs, and with how many threads."""

    profile: str
    threads: int


def command(
    bundle: Annotated[Path, typer.Argument(help="A bundle, or a log of decisions (.jsonl) to be lived again.")],
    trace: Annotated[
        list[str] | None,
        typer.Option(help="A recorded link, FILE.zip:NAME, or rtt=..,mbps=..; repeatable. Without: the log's own."),
    ] = None,
    load: Annotated[str, typer.Option(help="A recorded load (CSV), or device=..,server=...")] = "",
    device: Annotated[str, typer.Option(help="Device profile.")] = "local",
    server_profile: Annotated[str, typer.Option(help="Device profile of the server.")] = "x86-vnni",
    threads: Annotated[int | None, typer.Option(min=1, help="Of one run on the device: 1, as `edgekit run`.")] = None,
    server_threads: Annotated[
        int | None, typer.Option(min=1, help="Of one run on the server: 1, as `edgekit serve`.")
    ] = None,
    graph: Annotated[
        str | None, typer.Option(metavar="ID", help="Graph that runs on the device; default: the quickest there.")
    ] = None,
    first: Annotated[
        list[Path] | None, typer.Option(metavar="SMALL.edge", help="A cheaper student of its cascades; repeatable.")
    ] = None,
    requests: Annotated[
        int | None, typer.Option(min=1, help="Of each device on each trace: 1000, or as many as the log has.")
    ] = None,
    interval: Annotated[float | None, typer.Option(metavar="S", help="Seconds between two requests.")] = None,
    devices: Annotated[int, typer.Option(min=1, help="That share the server.")] = 1,
    workers: Annotated[int, typer.Option(min=1, help="Of the server.")] = 4,
    policy: Annotated[list[str] | None, typer.Option(metavar="KEY=VALUE", help="As er.Policy; repeatable.")] = None,
    uplink_fraction: Annotated[float, typer.Option(help="Uplink over bandwidth where a trace has one only.")] = 1.0,
    seed: Annotated[int, typer.Option(help="Of all chance.")] = 0,
    report: Annotated[Path | None, typer.Option(help="Write the pictures here, one HTML file.")] = None,
    json: JsonFlag = False,
    quiet: QuietFlag = False,
) -> None:
    """Runs the adaptive policy and those it has to beat over recorded links and loads.

    Example: edgekit simulate student.edge --trace norway.zip --device pi4 --policy deadline_ms=80 --report day.html

    A log without --trace is lived again: its link, load, policy and pace, where no option says otherwise.
    What may lose accuracy takes part under --policy max_risk=.. only, as in a session; what is left out is told.
    """
    from edgekit.simulate import Setting, replay, simulate
    from edgekit.simulate.policies import NAMES
    from edgekit.simulate.traces import LoadTrace, read_link, read_load

    output = Output(json=json, quiet=quiet)
    own = {"--first": first, "--graph": graph, "--threads": threads, "--server-threads": server_threads}
    _check(bundle, trace, next((name for name, value in own.items() if value), ""))
    if interval is not None and not 0 <= interval < math.inf:  # 0: all at once
        raise UsageError(f"--interval is {interval:g}", remedy="seconds, from 0 up")
    if not 0 < uplink_fraction < math.inf:
        raise UsageError(f"--uplink-fraction is {uplink_fraction:g}", remedy="a number above 0, as 0.25")
    logged = None if trace else replay.read(bundle)
    links = tuple(found for text in trace or () for found in read_link(text, uplink_fraction, "--trace"))
    busy = read_load(load) if load else logged.load if logged else LoadTrace.constant()
    wanted = logged.policy if logged and not policy else read_policy(policy or [])
    sides = Side(device, threads or 1), Side(server_profile, server_threads or 1)
    actions, unnamed = (logged.actions, {}) if logged else _actions(bundle, *sides, first, graph)
    setting = Setting(
        traces=(logged.link,) if logged else links,
        load=busy,
        policy=wanted,
        actions=actions,
        requests=requests or (logged.requests if logged else 1000),
        interval_s=logged.interval_s if logged and interval is None else interval,
        devices=devices,
        workers=workers,
        seed=seed,
    )
    if report is not None:
        check_writable(report.parent, "--report")
    with output.steps("simulate", len(NAMES)) as steps:
        study = simulate(setting, steps.advance)
    if report is not None:
        from edgekit.simulate.page import page

        write_text(report, page(study, f"{bundle.name} on {device} with {server_profile}"), "--report")
    document = study.document() | {"left_out": {**unnamed, **study.left_out}}
    document |= {"logged_mean_ms": logged.mean_ms} if logged else {}
    output.result(document, lambda console: _render(console, document, report))


def _check(bundle: Path, trace: list[str] | None, own: str) -> None:
    """Refuses what cannot be meant.

    Raises:
        UsageError: `own`, an option for bundles, with a log, or a bundle without a link.
    """
    if own and bundle.suffix == ".jsonl":
        raise UsageError("a log has its own actions", remedy=f"leave {own} out, or name the bundle")
    if not trace and bundle.suffix != ".jsonl":
        raise UsageError("a bundle has no link of its own", remedy="--trace rtt=40,mbps=8, or a recorded one")


def _actions(
    path: Path, device: Side, server: Side, first: Sequence[Path] | None, graph: str | None
) -> tuple[tuple[ActionCost, ...], Mapping[str, str]]:
    """Costs of a bundle's actions between a device and a server, and why others are not among them.

    Those of a log as they stand in it.
    """
    if path.suffix == ".jsonl":
        from edgekit_runtime.adaptive import journal

        return journal.read_head(path).actions, {}
    from edgekit.devices import load as load_profile
    from edgekit.planner import cascades, price
    from edgekit.planner.times import Times
    from edgekit_runtime import open_bundle

    own, there = load_profile(device.profile), load_profile(server.profile)
    with open_bundle(path) as opened, cascades.opened(first or (), own, device.threads) as small:
        here, away = Times(opened, own, device.threads), Times(opened, there, server.threads)
        priced = price(opened, here, away, small, graph or "")
        return priced.actions, priced.left_out


def _render(console: Console, document: dict[str, Any], report: Path | None) -> None:
    table = Table(title=f"{document['requests']} requests, {document['lost']} lost", box=None, pad_edge=False)
    table.add_column("policy", no_wrap=True)
    for name in ("mean ms", "p50", "p95", "late", "drop"):
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("actions", overflow="fold")
    unknown = False
    for name, row in document["policies"].items():
        figures = (_time(row[key]) for key in ("mean_ms", "p50_ms", "p95_ms"))
        drop = "?" if row["accuracy_drop"] is None else f"{row['accuracy_drop']:.4f}"
        unknown |= drop == "?"
        actions = ", ".join(f"{action} {count}" for action, count in row["actions"].items())
        table.add_row(name, *figures, str(row["deadline_misses"]), drop, Text(actions))
    console.print(table)
    console.print("drop: of accuracy against the graph on the device" + ("; ?: not measured" if unknown else ""))
    if document["regret_fraction"] is not None:
        console.print(f"adaptive is {100 * document['regret_fraction']:.1f} % over the oracle", markup=False)
    if document.get("logged_mean_ms") is not None:
        console.print(f"the log's own mean: {document['logged_mean_ms']:.1f} ms", markup=False)
    console.print(f"best fixed action: {document['best_fixed_action']}", markup=False)
    render_left_out(console, document["left_out"])
    if report is not None:
        console.print(f"pictures: {report}", markup=False)


def _time(ms: float | None) -> str:
    """To a tenth; what no column is wide enough for in powers of ten."""
    if ms is None:
        return "-"
    return f"{ms:.1f}" if ms < _WIDEST_MS else f"{ms:.2g}"
