"""`edgekit demo`."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Annotated, Any

import msgspec
import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from edgekit.cli.app import JsonFlag, QuietFlag
from edgekit.cli.bundle_tables import size
from edgekit.cli.demo_tables import elsewhere_plain, elsewhere_told
from edgekit.cli.extras import missing
from edgekit.cli.output import Output
from edgekit.report.numbers import significant
from edgekit_runtime.errors import Refused

MARKS = {"sound": "", "noisy": " ~", "invalid": " !"}
LEGEND = "~ noisy, ! invalid: other work on this machine disturbed the measurement"


def command(
    folder: Annotated[Path, typer.Option(help="Where everything is left.")] = Path("build/demo"),
    json: JsonFlag = False,
    quiet: QuietFlag = False,
) -> None:
    """Shows the whole path on two small students: train, convert, prove, measure, report, run with a server.

    Uses scikit-learn's bundled pictures only; needs no network.

    Example: edgekit demo
    """
    if lacking := missing("convert", "tokenizers", "image", "report", "remote", "server", "demo"):
        raise Refused(f"the demo needs {', '.join(lacking)}", remedy="pip install 'edgekit[all]'")
    from edgekit.demo import away, show
    from edgekit_runtime.bundle import read_arrays

    output = Output(json=json, quiet=quiet)
    output.say(f"everything goes to {folder}/; a second run uses what is there")
    with output.steps("demo", show.steps(folder) + len(away.PHASES) + 2) as steps:
        sections, index = show.show(folder, steps.advance)
        pictures = read_arrays(folder / "material" / "digits" / "eval.npz")["image"]
        served = away.show(sections[0].bundle, {"image": pictures}, steps.advance)
    document = {
        "sections": [msgspec.to_builtins(_plain(section)) for section in sections],
        "away": msgspec.to_builtins(served),
        "report": str(index),
    }
    output.result(document, lambda console: _render(console, sections, served, index))


def _plain(section: Any) -> dict[str, Any]:
    return {
        "title": section.title,
        "bundle": str(section.bundle),
        "lines": [
            {
                "graph": line.graph,
                "bytes": line.bytes,
                "p50_ms": line.measured.latency_ms.p50 if line.measured else None,
                "interval_95": line.measured.latency_ms.interval_95 if line.measured else None,
                "accuracy": line.accuracy,
                "note": line.note,
            }
            for line in section.lines
        ],
        "int8_pays": [{"answer": a.answer, "because": a.because, "where": a.where} for a in section.advice],
        "elsewhere": [elsewhere_plain(there) for there in section.elsewhere],
    }


def _render(console: Console, sections: list[Any], served: Any, index: Path) -> None:
    for section in sections:
        console.print(f"\n[bold]{escape(section.title)}[/], {section.parameters:,} parameters")
        console.print(_table(section))
        if any(line.measured and line.measured.verdict.kind != "sound" for line in section.lines):
            console.print(LEGEND)
        for line in section.lines:
            if line.note:
                console.print(f"{line.graph} failed: {line.note[:160]}", markup=False)
        for advice in section.advice:
            console.print(f"int8 pays here: {advice.answer}, because {advice.because} ({advice.where})", markup=False)
        elsewhere_told(console, section.elsewhere)
    _render_away(console, served)
    first = sections[0].bundle
    console.print(f"\nreport   {index}", markup=False)
    console.print(f"bundle   {first}", markup=False)
    console.print("\nyour own model:")
    if activation := _activation(Path(sys.prefix), os.environ.get("PATH", "")):
        console.print(f"  {activation}", markup=False)
    console.print("  edgekit convert model.py:build --weights model.safetensors \\", markup=False)
    console.print("      --calibration calib.npz --eval eval.npz -o model.edge", markup=False)
    console.print("  edgekit profile model.edge --report report/", markup=False)
    console.print("""  python -c "import edgekit_runtime as er; er.open('model.edge').run(...)\"""", markup=False)


def _activation(prefix: Path, path: str) -> str:
    """What makes a new shell find `edgekit` and `python` of this environment; empty where it finds them."""
    if str(prefix / "bin") in path.split(os.pathsep) or not (prefix / "bin" / "activate").is_file():
        return ""
    return f". {os.path.relpath(prefix)}/bin/activate"


def _render_away(console: Console, served: Any) -> None:
    from edgekit.demo.away import INTERVAL_S, RTT_MS, SLOWER

    told = f"a device {SLOWER} times slower than this machine, a server, {RTT_MS:g} ms between them"
    console.print(f"\n[bold]A link that goes away[/]: {told}")
    table = Table(box=None, pad_edge=False)
    for title in ("phase", "requests", "lost", "overtaken", "mean ms", "p95 ms"):
        table.add_column(title, justify="left" if title == "phase" else "right", overflow="fold")
    for line in served.phases:
        mean, high = ("-" if ms is None else f"{ms:.1f}" for ms in (line.mean_ms, line.p95_ms))
        table.add_row(line.title, str(line.requests), str(line.lost), str(line.fallbacks), mean, high)
    console.print(table)
    console.print("overtaken: sent, and answered by the local run after all\nactions chosen:")
    for line in served.phases:
        actions = ", ".join(f"{name} {count}" for name, count in line.actions.items())
        console.print(f"  {line.title}: {actions}", markup=False)
    simulated = {name: "-" if ms is None else f"{ms:.1f} ms" for name, ms in served.simulated_ms.items()}
    console.print(
        f"mean {served.mean_ms:.1f} ms; simulated over the same link and load: adaptive {simulated['adaptive']}, best "
        f"fixed action ({served.best_fixed_action}) {simulated['best_fixed']}, oracle {simulated['oracle']}",
        markup=False,
    )
    if served.interval_ms > 1e3 * INTERVAL_S:
        told = f"{served.interval_ms:.0f} ms apart, not {1e3 * INTERVAL_S:.0f}"
        console.print(
            f"a local run took too long for the demo's pace here; simulated requests are {told}, so that none queues",
            markup=False,
        )


def _table(section: Any) -> Table:
    table = Table(box=None, pad_edge=False, collapse_padding=True)
    for title in ("graph", "size", "ms, median [95 %]", "top-1 %", "points lost [95 %]"):
        table.add_column(title, justify="left" if title == "graph" else "right", overflow="fold")
    for line in section.lines:
        quality, latency = line.accuracy, line.measured.latency_ms if line.measured else None
        time = top = lost = "-"
        if latency is not None and latency.p50 is not None and latency.interval_95 is not None:
            mark = MARKS[line.measured.verdict.kind]
            low, high = latency.interval_95
            time = f"{significant(latency.p50)} [{significant(low)}, {significant(high)}]{mark}"
        if quality is not None:
            low, high = quality.interval_95
            top = f"{100 * quality.value:.1f}"
            lost = f"{100 * quality.drop:+.1f} [{100 * low:+.1f}, {100 * high:+.1f}]"
        elif line.graph.endswith("fp32"):
            top, lost = _reference(section), "the student"
        table.add_row(escape(line.graph), size(line.bytes) if line.bytes else "failed", time, top, lost)
    return table


def _reference(section: Any) -> str:
    judged = [line.accuracy for line in section.lines if line.accuracy is not None]
    return f"{100 * judged[0].reference:.1f}" if judged else "-"
