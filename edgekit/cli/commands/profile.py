"""`edgekit profile`: measures a bundle or a bare graph on this machine."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import msgspec
import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from edgekit.cli.app import JsonFlag, QuietFlag
from edgekit.cli.output import Output
from edgekit_runtime.errors import UsageError
from edgekit_runtime.measurement import Measurement

_COLOURS = {"sound": "green", "noisy": "yellow", "invalid": "red"}


def command(
    source: Annotated[str, typer.Argument(metavar="BUNDLE|FILE", help="A bundle, or an .onnx or .tflite file.")],
    device: Annotated[str, typer.Option(metavar="NAME", help="Only `local` (this machine) so far.")] = "local",
    engine: Annotated[str | None, typer.Option(help="onnxruntime, litert, ...; the first installed one.")] = None,
    graph: Annotated[str | None, typer.Option(metavar="ID", help="One graph of a bundle, say onnx.int8.")] = None,
    threads: Annotated[str, typer.Option(metavar="1,4", help="Numbers of threads to try.")] = "1",
    batch: Annotated[str, typer.Option(metavar="1,8", help="Batch sizes to try.")] = "1",
    size: Annotated[
        list[str] | None, typer.Option(metavar="AXIS=N", help="Size of a bare file's dynamic axis; repeatable.")
    ] = None,
    duration: Annotated[
        float | None, typer.Option(metavar="S", help="Seconds of sampling a graph; by default all ends in 30 s.")
    ] = None,
    memory_limit: Annotated[
        float | None, typer.Option(metavar="MB", help="Memory the process may take; what needs more exits with 4.")
    ] = None,
    report: Annotated[Path | None, typer.Option(metavar="DIR", help="Write the report there, too.")] = None,
    json: JsonFlag = False,
    quiet: QuietFlag = False,
) -> int:
    """Measures latency, memory and operators, each figure with a verdict.

    Every graph runs in fresh processes that take turns. What a sample cannot support is withheld, and what
    disturbed the measurement is named. A bundle keeps its measurements (outside its identity).

    Example:  edgekit profile student.edge --threads 1,2 --report report/
    """
    from edgekit.profiler.measure import check_device, make_plan, run_plan

    check_device(device)
    output = Output(json=json, quiet=quiet)
    plan = make_plan(
        source,
        engine=engine,
        graph=graph,
        threads=integers("--threads", threads),
        batch=integers("--batch", batch),
        sizes=axis_sizes(size or []),
        duration_s=duration,
        memory_limit_mb=memory_limit,
    )
    for remark in plan.remarks:
        output.say(escape(f"left out: {remark}"))
    with output.steps("profile", plan.steps) as steps:
        measurements = run_plan(plan, steps.advance)
    document: dict[str, Any] = {"measurements": measurements}
    if report is not None:
        document["report"] = str(_report(plan, measurements, report))
        output.say(escape(f"report: {document['report']}"))
    over = [m for m in measurements if memory_limit is not None and m.latency_ms.n == 0]
    if over:
        message = "; ".join(reason for m in over for reason in m.verdict.reasons)
        document["error"] = {"kind": "gate_failed", "message": message, "remedy": "see --memory-limit"}
    output.result(msgspec.to_builtins(document), lambda console: render(console, measurements))
    return 4 if over else 0


def integers(option: str, text: str) -> tuple[int, ...]:
    """`1,4` as numbers.

    Raises:
        UsageError: Something in it is no whole number.
    """
    try:
        return tuple(int(part) for part in text.split(","))
    except ValueError:
        raise UsageError(f"{option} takes whole numbers separated by commas, got {text!r}", remedy="say 1,4") from None


def axis_sizes(pairs: list[str]) -> dict[str, int]:
    """`sequence=512` as a mapping.

    Raises:
        UsageError: Something in it is not of that form, or not above 0.
    """
    found = {}
    for pair in pairs:
        name, _, number = pair.partition("=")
        if not name or not number.isdecimal() or int(number) < 1:
            raise UsageError(f"--size takes AXIS=N, got {pair!r}", remedy="say --size sequence=512")
        found[name] = int(number)
    return found


def render(console: Console, measurements: list[Measurement]) -> None:
    """Two tables of 80 columns, one line a measurement, with the reasons of every verdict below."""
    from edgekit.report.numbers import MISSING, bytes_, interval, significant
    from edgekit.report.write import shapes

    time, memory = (
        _table("engine", "thr", "p50 ms", "95 % interval", "p99 ms", "verdict"),
        _table("open ms", "first ms", "file", "opened", "peak", "inputs"),
    )
    for m in measurements:
        latency, colour = m.latency_ms, _COLOURS[m.verdict.kind]
        middle = interval(latency.interval_95).replace(" to ", MISSING)
        name = escape(m.graph)
        time.add_row(
            name,
            escape(m.engine),
            str(m.threads),
            significant(latency.p50),
            middle,
            significant(latency.p99),
            f"[{colour}]{m.verdict.kind}[/]",
        )
        sizes = (bytes_(m.memory.file_bytes), bytes_(m.memory.open_bytes), bytes_(m.memory.peak_rss_bytes))
        memory.add_row(name, significant(m.open_ms), significant(m.first_ms), *sizes, escape(shapes(m.inputs)))
    console.print(time)
    console.print()
    console.print(memory)
    for m in measurements:
        held = [f"{name} withheld: {reason}" for name, reason in m.withheld.items()]
        lines = [f"{m.verdict.kind}: {reason}" for reason in m.verdict.reasons] + held
        if lines:
            console.print(
                escape(f"\n{m.graph}, {m.engine}, {m.threads} thread{'s' * (m.threads > 1)}, {shapes(m.inputs)}")
            )
        for line in lines:
            console.print(escape(f"  {line}"))


def _table(*columns: str) -> Table:
    table = Table(box=None, pad_edge=False, padding=(0, 1))
    table.add_column("graph", overflow="fold", min_width=11)
    for name in columns:
        numbers = name not in ("engine", "verdict", "inputs")
        fold = name in ("inputs",)
        table.add_column(name, justify="right" if numbers else "left", no_wrap=not fold, overflow="fold")
    return table


def _report(plan: Any, measurements: list[Measurement], folder: Path) -> Path:
    from edgekit.report import write_report

    bundles = {job.target.bundle.bundle_id: job.target.bundle for job in plan.jobs if job.target.bundle is not None}
    return write_report([*bundles.values(), *measurements], folder)[0]
