"""`edgekit export-server`: a bundle for servers of other projects."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from edgekit.cli.app import JsonFlag, QuietFlag
from edgekit.cli.output import Output
from edgekit.cli.policies import render_left_out
from edgekit.server_export import Exported, exported


def command(
    bundle: Annotated[Path, typer.Argument(help="A bundle with ONNX graphs.")],
    to: Annotated[str, typer.Option(metavar="triton|kserve", help="Who shall serve it.")],
    out: Annotated[Path, typer.Option("-o", "--out", metavar="DIR", help="A new or empty folder.")],
    graph: Annotated[str, typer.Option(help="Full ONNX graph to serve; default: fp32.")] = "",
    storage_uri: Annotated[str, typer.Option(metavar="URI", help="kserve: where DIR/models will lie.")] = "",
    json: JsonFlag = False,
    quiet: QuietFlag = False,
) -> None:
    """Writes a Triton model repository (full model and every tail), or that and a KServe InferenceService.

    A device uses such a server with er.open(bundle, server=..., ours=False).

    Example: edgekit export-server student.edge --to triton -o models/
    """
    from edgekit_runtime.bundle import open_bundle

    output = Output(json=json, quiet=quiet)
    opened = open_bundle(bundle)
    try:
        opened.check_files()
        made = exported(opened, to, out, graph, storage_uri)
    finally:
        opened.close()
    document = {"folder": str(made.folder), "models": made.models, "left_out": made.left_out}
    output.result(document, lambda console: _render(console, made))


def _render(console: Console, made: Exported) -> None:
    for name in made.models:
        console.print(name, markup=False)
    render_left_out(console, dict(reason.split(": ", 1) for reason in made.left_out))
    console.print(f"written to {made.folder}", markup=False)
