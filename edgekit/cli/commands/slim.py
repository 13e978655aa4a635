"""`edgekit slim`: only what one kind of device needs."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.markup import escape

from edgekit.cli.app import JsonFlag, QuietFlag
from edgekit.cli.output import Output


def command(
    bundle: Annotated[Path, typer.Argument(metavar="BUNDLE", help="The whole bundle.")],
    target: Annotated[str, typer.Option(metavar="PROFILE", help="The device; `edgekit devices` lists them.")],
    out: Annotated[Path, typer.Option("-o", "--output", help="The new bundle, NAME.edge.")],
    force: Annotated[bool, typer.Option("--force", help="Replace a bundle that exists.")] = False,
    json: JsonFlag = False,
    quiet: QuietFlag = False,
) -> None:
    """Writes a bundle with the graph that is fastest on one kind of device, its pieces, and nothing else.

    Example:  edgekit slim student.edge --target pi4 -o student.pi4.edge
    """
    from edgekit.slim import slim

    output = Output(json=json, quiet=quiet)
    made, picked = slim(bundle, target, out, force=force)
    size = sum(entry.bytes for entry in made.manifest.files.values())
    document = {
        "bundle": str(made.root),
        "bundle_id": made.bundle_id,
        "graph": picked.graph,
        "why": picked.why,
        "left_out": picked.left_out,
        "bytes": size,
    }

    def render(console: Console) -> None:
        console.print(f"{escape(str(made.root))}  {size / 1024:,.0f} KiB")
        console.print(f"kept      {picked.graph}: {escape(picked.why)}")
        for name, reason in picked.left_out.items():
            console.print(f"left out  {name}: {escape(reason)}")

    output.result(document, render)
