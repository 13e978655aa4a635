"""`edgekit calibrate-exits`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from edgekit.cli.app import JsonFlag, QuietFlag
from edgekit.cli.output import Output
from edgekit_runtime.errors import GateFailed, UsageError


def command(
    bundle: Annotated[Path, typer.Argument(help="A bundle converted with --exits; with --first any classifier.")],
    data: Annotated[
        Path,
        typer.Option("--data", help="Samples to certify on, .npz with or without `labels`; with --first also .jsonl."),
    ],
    out: Annotated[Path, typer.Option("-o", "--output", help="The new bundle, NAME.edge.")],
    risk: Annotated[str, typer.Option(help="Shares of wrong early answers to certify.")] = "0.005,0.01,0.02",
    confidence: Annotated[float, typer.Option(help="With which each risk holds.")] = 0.95,
    fit: Annotated[Path | None, typer.Option(help="Other samples, .npz, to fit the path of thresholds on.")] = None,
    agreement: Annotated[
        bool, typer.Option("--agreement", help="Certify agreement with the full model, labels or not.")
    ] = False,
    combine: Annotated[bool, typer.Option("--combine", help="Let exits speak together; needs --fit.")] = False,
    score_rule: Annotated[str, typer.Option(help="max_softmax, margin or certainty.")] = "",
    steps: Annotated[
        str, typer.Option(help="A streaming student ends early; its answer: last (step) or mean (of the steps so far).")
    ] = "",
    answer: Annotated[str, typer.Option(help="With --steps or --first: the output that holds the logits.")] = "",
    first: Annotated[
        Path | None, typer.Option(metavar="SMALL.edge", help="A cascade: this cheaper student answers first.")
    ] = None,
    first_graph: Annotated[str, typer.Option(help="With --first: its graph.")] = "",
    force: Annotated[bool, typer.Option("--force", help="Replace a bundle that exists.")] = False,
    json: JsonFlag = False,
    quiet: QuietFlag = False,
) -> int:
    """Finds exit thresholds whose risk is certified, one operating point a risk, for each chain of graphs.

    What cannot be certified is told with the samples needed; when nothing can, no bundle is written and the command
    ends with 4.

    Example: edgekit calibrate-exits student.edge --data calib.npz --risk 0.01 -o certified.edge

    A cascade: edgekit calibrate-exits big.edge --first small.edge --data texts.jsonl --risk 0.01 -o certified.edge
    """
    from edgekit_converters.exits.calibrate import NothingCertified, Request, calibrate_exits

    request = Request(
        data=data,
        risks=_numbers(risk),
        confidence=confidence,
        fit=fit,
        agreement=agreement,
        combine=combine,
        rule=score_rule,
        steps=steps,
        answer=answer,
        first=first,
        first_graph=first_graph,
    )
    output = Output(json=json, quiet=quiet)
    document: dict[str, Any] = {"bundle": None, "bundle_id": None}
    with output.steps(f"certifying {bundle.name}", total=4) as shown:
        try:
            made, found = calibrate_exits(bundle, out, request, shown.advance, force=force)
        except NothingCertified as error:  # the reasons are the answer, then the exit code says no
            found = error.found
            document["error"] = {"kind": error.kind, "message": error.message, "remedy": error.remedy}
        else:
            document |= {"bundle": str(made.root), "bundle_id": made.bundle_id}
    rows = [{**_plain(item.point), "reason": item.reason, "samples_needed": item.samples_needed} for item in found]
    document["operating_points"] = rows
    output.result(document, lambda console: _render(console, document))
    return GateFailed.exit_code if "error" in document else 0


def _numbers(text: str) -> tuple[float, ...]:
    try:
        return tuple(float(part) for part in text.split(",") if part)
    except ValueError as error:
        raise UsageError(f"--risk {text!r}", remedy="numbers between 0 and 1, for example 0.005,0.01") from error


def _plain(point: Any) -> dict[str, Any]:
    import msgspec

    plain: dict[str, Any] = msgspec.to_builtins(point)
    return plain


def _render(console: Console, document: dict[str, Any]) -> None:
    if document["bundle"]:
        console.print(document["bundle"], markup=False)
        console.print(f"bundle_id {document['bundle_id']}")
    table = Table(box=None, pad_edge=False)
    for title in ("chain", "risk", "seen", "n", "left at each exit", "thresholds"):
        table.add_column(title, justify="left" if title in ("chain", "thresholds") else "right")
    for row in document["operating_points"]:
        if row["reason"]:
            continue
        table.add_row(
            f"{row['first']['name']}, then {row['of']}" if row["first"] else row["of"],
            f"{row['risk']:g}",
            f"{row['empirical_risk']:.4f}",
            str(row["n"]),
            " ".join(f"{share:.0%}" for share in row["exit_fractions"]),
            " ".join("never" if t > 1 else f"{t:.4f}" for t in row["thresholds"][:-1]),
        )
    if table.rows:
        console.print(table)
    for row in document["operating_points"]:
        if row["reason"]:
            console.print(f"not certified: {row['of']} at risk {row['risk']:g}: {row['reason']}", markup=False)
    if not document["bundle"]:
        console.print(f"nothing was certified, no bundle was written: {document['error']['remedy']}", markup=False)
