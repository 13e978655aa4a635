"""`edgekit verify`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from edgekit.cli.app import JsonFlag, QuietFlag
from edgekit.cli.output import Output
from edgekit.golden import Check, failures, verify_bundle
from edgekit_runtime.errors import GateFailed, Refused


def command(
    bundle: Annotated[Path, typer.Argument(help="A bundle.")],
    json: JsonFlag = False,
    quiet: QuietFlag = False,
) -> None:
    """Proves a bundle on this machine: hashes, and golden inputs on every engine that is installed.

    Example: edgekit verify student.edge
    """
    output = Output(json=json, quiet=quiet)
    checks = verify_bundle(bundle)
    failed = failures(checks)
    output.result({"ok": not failed, "checks": checks}, lambda console: _render(console, checks))
    if failed:
        # The document above is the answer, also under --json; the exit code carries the verdict.
        # Files that are not those of the manifest refuse the bundle; other answers than the golden ones fail a gate.
        damaged = any(check.name == "files" for check in failed)
        raise typer.Exit(Refused.exit_code if damaged else GateFailed.exit_code)


def _render(console: Console, checks: list[Check]) -> None:
    for check in checks:
        told = "ok    " if check.ok else "FAILED" if check.checked else "-     "
        console.print(f"{told} {check.name}: {check.detail}", markup=False)
