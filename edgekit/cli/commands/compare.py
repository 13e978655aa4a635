"""`edgekit compare`: is A faster than B?"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import msgspec
import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from edgekit.cli.app import JsonFlag, QuietFlag
from edgekit.cli.output import Output
from edgekit_runtime.errors import GateFailed, UsageError


def command(
    a: Annotated[
        str,
        typer.Argument(
            metavar="A[:GRAPH]", help="A bundle (the graph a session takes here), BUNDLE:GRAPH, or a bare file."
        ),
    ],
    b: Annotated[str, typer.Argument(metavar="B[:GRAPH]", help="What A is compared with.")],
    fail_if_slower: Annotated[
        str | None,
        typer.Option(metavar="5%", help="Exit with 4 when A is shown to be slower than B by more than this."),
    ] = None,
    margin: Annotated[str, typer.Option(metavar="2%", help="A difference within this margin does not count.")] = "2%",
    engine: Annotated[
        str | None, typer.Option(help="Engine for both; else a session's, or the first installed one.")
    ] = None,
    threads: Annotated[int, typer.Option(help="Threads of each.")] = 1,
    duration: Annotated[float, typer.Option(metavar="S", help="Seconds after which no new round begins.")] = 22.0,
    report: Annotated[Path | None, typer.Option(metavar="DIR", help="Write a page of the comparison there.")] = None,
    json: JsonFlag = False,
    quiet: QuietFlag = False,
) -> int:
    """Is A faster than B on this machine? Paired, interleaved, in fresh processes.

    Says faster, slower, no_difference_shown or too_noisy, with a 95 % interval of A's time over B's.
    `too_noisy` does not fail the gate: run it again on a quiet machine.

    Example:  edgekit compare new.edge:onnx.int8 old.edge:onnx.int8 --fail-if-slower 5% --report page/
    """
    from edgekit.profiler import comparison

    limit = fraction("--fail-if-slower", fail_if_slower) if fail_if_slower is not None else None
    margin_fraction = fraction("--margin", margin)
    output = Output(json=json, quiet=quiet)
    if report is not None:
        from edgekit.report import check_ready

        check_ready(report)
    with output.steps("compare", comparison.MOST_ROUNDS) as steps:
        found = comparison.compare(
            a,
            b,
            engine=engine,
            threads=threads,
            margin=margin_fraction,
            duration_s=duration,
            progress=steps.advance,
        )
    document = msgspec.to_builtins(found)
    if report is not None:
        from edgekit.report import write_comparison

        document["report"] = str(write_comparison(found, report)[0])
        output.note(f"report: {document['report']}")
    refusal: GateFailed | None = None
    try:
        if limit is not None:
            comparison.gate(found, limit)
            if found.verdict == "too_noisy":
                output.say("[yellow]the gate could not be decided: the machine is too noisy[/]")
    except GateFailed as error:
        refusal = error
        document["error"] = {"kind": error.kind, "message": error.message, "remedy": error.remedy}
    output.result(document, lambda console: render(console, found))
    if refusal is None:
        return 0
    if json:  # the document holds the refusal: two documents would be none
        return refusal.exit_code
    raise refusal


def fraction(option: str, text: str) -> float:
    """`5%` or `0.05` as 0.05.

    Raises:
        UsageError: It is neither, or below 0.
    """
    try:
        value = float(text[:-1]) / 100 if text.endswith("%") else float(text)
    except ValueError:
        value = -1.0
    if not 0 <= value < float("inf"):
        raise UsageError(f"{option} takes a percentage or a fraction, got {text!r}", remedy="say 5% or 0.05")
    return value


def render(console: Console, found: object) -> None:
    """The verdict, the figures, the rounds."""
    from edgekit.profiler.comparison import Comparison
    from edgekit.report.numbers import significant

    assert isinstance(found, Comparison)
    low, high = found.interval_95
    colour = {"faster": "green", "slower": "red", "too_noisy": "yellow"}.get(found.verdict, "bold")
    console.print(f"[{colour}]{found.verdict}[/]: {escape('; '.join(found.reasons))}")
    table = Table(box=None, pad_edge=False, padding=(0, 1), show_header=False)
    table.add_column(no_wrap=True)
    table.add_column(overflow="fold")
    table.add_row("A", escape(f"{significant(found.a_ms)} ms  {found.a}"))
    table.add_row("B", escape(f"{significant(found.b_ms)} ms  {found.b}"))
    table.add_row(
        "A / B", f"{found.ratio:.3f}  (95 % interval {low:.3f} to {high:.3f}, margin {found.margin_fraction:.1%})"
    )
    table.add_row("rounds", " ".join(f"{run.ratio:.3f}" for run in found.runs) + f"  in {found.seconds:.0f} s")
    console.print(table)
