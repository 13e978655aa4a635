"""What `edgekit demo` prints of devices that are not at hand."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from edgekit.cli.bundle_tables import size
from edgekit.report.advice import MARGIN, Advice, predicted_speedup
from edgekit.report.numbers import times

if TYPE_CHECKING:
    from edgekit.demo.elsewhere import Elsewhere


def elsewhere_plain(there: Elsewhere) -> dict[str, Any]:
    """The predictions for one device, as `--json` prints them."""
    return {
        "device": there.device,
        "title": there.title,
        "lines": [
            {
                "graph": document.graph,
                "bytes": document.memory.file_bytes,
                "p50_ms": document.latency_ms.p50,
                "interval_95": document.latency_ms.interval_95,
                "predicted": document.predicted,
                "reasons": document.verdict.reasons,
            }
            for document in there.documents
        ],
        "int8_pays": [{"answer": a.answer, "because": a.because, "where": a.where} for a in there.advice],
        "refused": there.refused,
    }


def because(advice: Advice) -> str:
    """The reason of an answer about a device that is predicted, in one line: bytes and quality are those told above."""
    new, old = advice.int8.latency_ms, advice.fp32.latency_ms
    if advice.speedup is None or new.interval_95 is None or old.interval_95 is None:
        return advice.because
    low, high = predicted_speedup(new, old)
    rate = f"{times(advice.speedup)} as fast [{times(low)}, {times(high)}]"
    if advice.answer == "not shown" and low <= 1 + MARGIN:
        return f"{rate} is too little to tell"
    if advice.answer == "yes" or (advice.answer == "no" and high < 1):
        return f"it is {rate}"
    return advice.because


def elsewhere_told(console: Console, devices: Sequence[Elsewhere]) -> None:
    """Prints the predictions of several devices as one table, and below it whether int8 pays on each."""
    console.print("\non other devices, [bold]predicted, not measured[/], 1 thread")
    table = Table(box=None, pad_edge=False)
    for title in ("device", "graph", "size", "predicted ms [95 %]"):
        table.add_column(title, justify="left" if title in ("device", "graph") else "right", overflow="fold")
    for there in devices:
        for row, document in enumerate(there.documents):
            latency, time = document.latency_ms, "-"
            if latency.p50 is not None and latency.interval_95 is not None:
                time = f"{latency.p50:.3g} [{latency.interval_95[0]:.3g}, {latency.interval_95[1]:.3g}]"
            name = "" if row else there.device
            table.add_row(escape(name), escape(document.graph), size(document.memory.file_bytes), time)
    console.print(table)
    for there in devices:
        for advice in there.advice:
            why = because(advice)
            console.print(
                f"int8 pays on {there.device}, {advice.int8.engine}: {advice.answer}, because {why}", markup=False
            )
        for reason in there.refused:
            console.print(f"not predicted for {there.device}: {reason}", markup=False)
