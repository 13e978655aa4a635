"""`edgekit why`: the reasons of recorded decisions."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

from edgekit.cli.app import JsonFlag, QuietFlag
from edgekit.cli.output import Output
from edgekit_runtime.errors import Refused, UsageError


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
    for entry, decision in rows:
        took = "" if entry.total_ms is None else f", took {entry.total_ms:.1f} ms"
        why = decision.alternatives[0].why
        console.print(
            f"{entry.request}: {entry.action}, {entry.predicted_ms:.1f} ms expected{took}: {why}", markup=False
        )
    counts = Counter(entry.action for entry, _ in rows)
    console.print(", ".join(f"{name} {count}" for name, count in counts.most_common()), markup=False)
