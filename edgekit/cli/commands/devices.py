"""`edgekit devices`: the device profiles with the source of each figure."""

from __future__ import annotations

from typing import Annotated, Any

import msgspec
import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from edgekit.cli.app import JsonFlag, QuietFlag
from edgekit.cli.output import Output


def command(
    name: Annotated[str | None, typer.Argument(metavar="[NAME]", help="A profile, `local`, or a .toml file.")] = None,
    json: JsonFlag = False,
    quiet: QuietFlag = False,
) -> None:
    """The device profiles, or one of them with the source of each figure.

    Example:  edgekit devices pi4
    """
    from edgekit import devices

    names = (name,) if name else devices.known()
    profiles = [devices.load(each) for each in names]
    document = {"profiles": msgspec.to_builtins(profiles)}
    draw = _one if name else _all
    Output(json=json, quiet=quiet).result(document, lambda console: draw(console, profiles))


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

    walk({k: v for k, v in msgspec.to_builtins(profile).items() if not isinstance(v, str)}, "")
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
