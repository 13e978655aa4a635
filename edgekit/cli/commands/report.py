"""`edgekit report`: pages over the measurements that bundles carry."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from edgekit.cli.app import JsonFlag, QuietFlag
from edgekit.cli.output import Output


def command(
    bundles: Annotated[list[Path], typer.Argument(metavar="BUNDLE...", help="Bundles that were profiled.")],
    out: Annotated[Path, typer.Option("-o", "--out", metavar="DIR", help="Folder for the report.")],
    json: JsonFlag = False,
    quiet: QuietFlag = False,
) -> None:
    """Writes index.html, devices/NAME.html, report.md, measurements.json and measurements.csv.

    Every page is one file that opens without a network.

    Example:  edgekit report student.edge other.edge -o report/
    """
    from edgekit.report import write_report
    from edgekit_runtime.bundle import open_bundle

    output = Output(json=json, quiet=quiet)
    files = write_report([open_bundle(path) for path in bundles], out)
    names = [str(path) for path in files]
    output.result(
        {"index": names[0], "files": names},
        lambda console: console.print("\n".join(names), markup=False, soft_wrap=True),
    )
