"""`edgekit devices`: the device profiles with the source of each figure."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import msgspec
import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from edgekit.cli.access import access_of
from edgekit.cli.app import JsonFlag, QuietFlag
from edgekit.cli.output import Output
from edgekit.files import check_writable
from edgekit_runtime.errors import Refused, UsageError


def command(
    name: Annotated[str | None, typer.Argument(metavar="[NAME]", help="A profile, `local`, or a .toml file.")] = None,
    calibrate: Annotated[
        bool, typer.Option("--calibrate", help="Measure this machine and write its profile (two to four minutes).")
    ] = False,
    output: Annotated[
        Path | None, typer.Option("-o", "--output", metavar="DIR", help="Folder for it; ./device_profiles.")
    ] = None,
    engine: Annotated[list[str] | None, typer.Option(help="Calibrate this engine only; repeatable.")] = None,
    device: Annotated[
        str, typer.Option(metavar="tcp://HOST:PORT|ssh://USER@HOST", help="Calibrate the device with this agent.")
    ] = "local",
    token_file: Annotated[Path | None, typer.Option(metavar="FILE", help="Its agent's token.")] = None,
    ca: Annotated[Path | None, typer.Option(metavar="PEM", help="Certificate that the agent's is checked by.")] = None,
    cert: Annotated[Path | None, typer.Option(metavar="PEM", help="Own certificate, for mutual TLS.")] = None,
    key: Annotated[Path | None, typer.Option(metavar="PEM", help="Its key.")] = None,
    remote_python: Annotated[str, typer.Option(metavar="PROGRAM", help="Python on a device of ssh://.")] = "python3",
    json: JsonFlag = False,
    quiet: QuietFlag = False,
) -> None:
    """The device profiles, or one of them with the source of each figure; --calibrate measures this machine.

    A calibration goes to ./device_profiles under the machine's id, where `local` finds it there, or under NAME.

    Example:  edgekit devices pi4
    """
    from edgekit import devices

    shown = Output(json=json, quiet=quiet)
    if calibrate:
        access = access_of(token_file, ca, cert, key, remote_python)
        wanted = "" if name in (None, devices.LOCAL) else str(name)
        name = str(_calibrated(shown, wanted, output, engine or [], device, access))
    elif output is not None or engine or device != devices.LOCAL:
        raise UsageError("--output, --engine and --device say how to calibrate", remedy="say --calibrate, too")
    profiles, refused = ([devices.load(name)], {}) if name else _readable()
    document: dict[str, Any] = {"profiles": [plain(profile) for profile in profiles]}
    if refused:
        document["refused"] = refused
        for told in refused.values():
            shown.note(f"left out: {told}")
    if calibrate:
        document["written"] = name
    draw = _one if name else _all
    shown.result(document, lambda console: draw(console, profiles))


def _readable() -> tuple[list[Any], dict[str, str]]:
    """All profiles that can be read, and why the others cannot: one broken file hides no other device."""
    from edgekit import devices

    profiles, refused = [], {}
    for name in devices.known():
        try:
            profiles.append(devices.load(name))
        except Refused as error:
            refused[name] = error.message
    return profiles, refused


def _calibrated(shown: Output, name: str, folder: Path | None, engines: list[str], device: str, access: Any) -> Path:
    from edgekit.agent import client
    from edgekit.devices.calibration import calibrate, lines
    from edgekit.devices.store import FOLDER
    from edgekit.profiler.where import parse

    where = parse(device)
    check_writable(folder or Path.cwd() / FOLDER, "-o")
    if where.kind == "named":
        raise UsageError(f"{device} is no device that can be reached", remedy="say tcp://HOST:PORT or ssh://USER@HOST")
    if where.kind == "local":
        with shown.steps("calibrate", lines(engines)) as steps:
            path = calibrate(folder, name=name, engine=engines, progress=steps.advance)
    else:
        with shown.growing("calibrate") as steps:

            def announce(total: int, remarks: tuple[str, ...]) -> None:
                steps.total = total

            path = client.calibrate(
                where,
                access,
                name=name,
                engines=tuple(engines),
                folder=folder or Path.cwd() / FOLDER,
                announce=announce,
                progress=steps.advance,
            )
    shown.say(escape(f"written: {path}"))
    return path


def plain(profile: Any) -> dict[str, Any]:
    """A profile as JSON shows it: without the measured points, which lie in the predictor beside it."""
    document: dict[str, Any] = msgspec.to_builtins(profile)
    del document["kernels"]
    return document


def figures(profile: Any) -> list[tuple[str, str, str, str]]:
    """Every figure of a profile as (name, value, kind, source), in the order of the schema."""
    rows: list[tuple[str, str, str, str]] = []

    def walk(node: Any, path: str) -> None:
        if isinstance(node, dict) and {"value", "kind", "source"} <= node.keys():
            value = node["value"]
            told = " ".join(value) if isinstance(value, (list, tuple)) else f"{value:.12g}"
            rows.append((path, told, node["kind"], node["source"]))
        elif isinstance(node, dict):
            for key, item in node.items():
                walk(item, f"{path}.{key}" if path else key)
        elif isinstance(node, (list, tuple)):
            for item in node:
                words = [str(v) for k, v in item.items() if not isinstance(v, dict) and k != "use" and v is not None]
                walk(item, f"{path}[{' '.join(words)}]")

    walk({k: v for k, v in plain(profile).items() if not isinstance(v, str)}, "")
    return rows


def _all(console: Console, profiles: list[Any]) -> None:
    table = Table(box=None, pad_edge=False, padding=(0, 1))
    for column, numeric in (("name", 0), ("what", 0), ("cores", 1), ("MHz", 1), ("memory", 1), ("published", 1)):
        table.add_column(column, justify="right" if numeric else "left", overflow="fold")
    from edgekit.report.numbers import MISSING, bytes_

    for profile in profiles:
        hardware = profile.hardware
        memory = bytes_(int(hardware.memory_bytes.value)) if hardware.memory_bytes else MISSING
        cores, clock = f"{hardware.cores.value:.0f}", f"{hardware.clock_mhz.value:.0f}"
        table.add_row(profile.name, escape(profile.title), cores, clock, memory, str(len(profile.published)))
    console.print(table)
    console.print("\nedgekit devices NAME shows every figure with its source")


def _one(console: Console, profiles: list[Any]) -> None:
    for profile in profiles:
        console.print(escape(f"{profile.name}: {profile.title} ({profile.kind}, {profile.architecture})"))
        table = Table(box=None, pad_edge=False, padding=(0, 1))
        for column in ("figure", "value", "kind", "source"):
            table.add_column(column, overflow="fold", justify="right" if column == "value" else "left")
        for row in figures(profile):
            table.add_row(*map(escape, row))
        console.print(table)
