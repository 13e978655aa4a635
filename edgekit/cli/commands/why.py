"""`edgekit why`: the reasons of recorded decisions."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from edgekit.cli.app import JsonFlag, QuietFlag
from edgekit.cli.output import Output
from edgekit_runtime.errors import Refused, UsageError

if TYPE_CHECKING:
    from edgekit_runtime.adaptive import Decision


def command(
    log: Annotated[Path, typer.Argument(help="A log that `edgekit run --log` or er.open(..., log=) wrote.")],
    request: Annotated[int | None, typer.Argument(help="Number of one request; without it, the whole log.")] = None,
    json: JsonFlag = False,
    quiet: QuietFlag = False,
) -> None:
    """Tells why each recorded request was answered as it was; the choice is made again from what was logged.

    Example: edgekit why decisions.jsonl 17
    """
    from edgekit_runtime.adaptive import ActionSet, journal

    head, entries = journal.read(log)
    profile = ActionSet(head.actions, head.power)
    if request is not None:
        entries = [entry for entry in entries if entry.request == request]
        if not entries:
            raise UsageError(f"the log has no request {request}", remedy=f"edgekit why {log} lists what it has")
    document: dict[str, Any] = {"bundle_id": head.bundle_id, "decisions": []}
    texts = []
    for entry in entries:
        decision = journal.again(head, entry, profile)
        if decision.action != entry.action:
            raise Refused(
                f"request {entry.request}: the log says {entry.action}, its estimates give {decision.action}",
                remedy="the log was changed, or written by another version of edgekit",
            )
        took = {"request": entry.request, "total_ms": entry.total_ms, "fallback": entry.fallback}
        document["decisions"].append({**took, **decision.document()})
        texts.append((entry, decision))
    Output(json=json, quiet=quiet).result(document, lambda console: _render(console, texts, request is not None))


def _render(console: Console, rows: list[Any], whole: bool) -> None:
    if whole:
        entry, decision = rows[0]
        took = "" if entry.total_ms is None else f", took {entry.total_ms:.1f} ms"
        console.print(f"request {entry.request} at {entry.at_s:.1f} s{took}", markup=False)
        if entry.fallback:
            console.print(f"answered locally after all: {entry.fallback}", markup=False)
        console.print(decision.explain(), markup=False)
        return
    table = Table(title=f"{len(rows)} requests", box=None)
    for name, justify in (("id", "right"), ("action", "left"), ("expected ms", "right"), ("took ms", "right")):
        table.add_column(name, justify=justify, no_wrap=name != "action", overflow="fold")  # type: ignore[arg-type]
    table.add_column("next best, and what it would cost", overflow="fold")
    for entry, decision in rows:
        took = "-" if entry.total_ms is None else f"{entry.total_ms:.1f}"
        table.add_row(
            str(entry.request), Text(entry.action), f"{entry.predicted_ms:.1f}", took, Text(_why(entry, decision))
        )
    console.print(table)
    counts = Counter(entry.action for entry, _ in rows)
    console.print(", ".join(f"{name} {count}" for name, count in counts.most_common()), markup=False)
    known = [(entry.predicted_ms, entry.total_ms) for entry, _ in rows if entry.total_ms is not None]
    if known:
        expected, took_ms = (sum(column) / len(known) for column in zip(*known, strict=True))
        console.print(f"mean: {expected:.1f} ms expected, {took_ms:.1f} ms taken", markup=False)
    fallen = sum(bool(entry.fallback) for entry, _ in rows)
    if fallen:
        console.print(f"answered locally after all: {fallen}", markup=False)


def _why(entry: Any, decision: Decision) -> str:
    """The reason in a few words: what went wrong, else how far ahead of the next best the choice was, and by what."""
    if entry.fallback:
        return f"answered here: {entry.fallback}"
    rows = decision.alternatives
    chosen, rivals = rows[0], [row for row in rows[1:] if row.verdict == "lost"]  # by time
    if not rivals:
        barred = Counter(row.verdict for row in rows[1:])
        told = ", ".join(f"{count} {verdict}" for verdict, count in sorted(barred.items()))
        return f"{chosen.why} ({told})" if told else chosen.why
    following = rivals[0]
    if not decision.link.up and following.terms_ms["round_trip"]:
        return following.why.partition(":")[0]  # of all of them alike
    more_ms = following.predicted_ms - chosen.predicted_ms
    if more_ms < 0:  # it was not time that decided
        return f"{following.action}: {following.why}"
    worst = max(following.terms_ms, key=lambda term: following.terms_ms[term] - chosen.terms_ms[term])
    return f"{following.action} +{more_ms:.1f} ms: {worst.replace('_', ' ')}"
