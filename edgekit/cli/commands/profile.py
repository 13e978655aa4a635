"""`edgekit profile`: measures a bundle or a bare graph here or on a board, or predicts."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import msgspec
import typer

from edgekit.cli.access import access_of
from edgekit.cli.app import JsonFlag, QuietFlag
from edgekit.cli.output import Output
from edgekit_runtime.errors import GateFailed, UsageError
from edgekit_runtime.measurement import Measurement

if TYPE_CHECKING:
    from edgekit.profiler.request import Request
    from edgekit.profiler.where import Access, Where


def command(
    source: Annotated[str, typer.Argument(metavar="BUNDLE|FILE", help="A bundle, or an .onnx or .tflite file.")],
    device: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME|tcp://HOST:PORT|ssh://USER@HOST",
            help="local (this machine, the default), an agent's address, or a device profile; repeatable.",
        ),
    ] = None,
    engine: Annotated[str | None, typer.Option(help="onnxruntime, litert, ...; the first installed one.")] = None,
    graph: Annotated[str | None, typer.Option(metavar="ID", help="One graph of a bundle, say onnx.int8.")] = None,
    threads: Annotated[str, typer.Option(metavar="1,4", help="Numbers of threads to try.")] = "1",
    batch: Annotated[str, typer.Option(metavar="1,8", help="Batch sizes to try.")] = "1",
    length: Annotated[
        str | None, typer.Option(metavar="16,64", help="Lengths of a bundle's dynamic axis to try.")
    ] = None,
    size: Annotated[
        list[str] | None, typer.Option(metavar="AXIS=N", help="Size of a bare file's dynamic axis; repeatable.")
    ] = None,
    duration: Annotated[
        float | None, typer.Option(metavar="S", help="Seconds of sampling a graph; by default all ends in 30 s.")
    ] = None,
    duty: Annotated[
        bool, typer.Option("--duty", help="Also after a pause, paced at 1, 5 and 30 Hz, in bursts: 25 s more a graph.")
    ] = False,
    memory_limit: Annotated[
        float | None, typer.Option(metavar="MB", help="Memory the process may take; what needs more exits with 4.")
    ] = None,
    token_file: Annotated[Path | None, typer.Option(metavar="FILE", help="An agent's token.")] = None,
    ca: Annotated[Path | None, typer.Option(metavar="PEM", help="Certificate that an agent's is checked by.")] = None,
    cert: Annotated[Path | None, typer.Option(metavar="PEM", help="Own certificate, for mutual TLS.")] = None,
    key: Annotated[Path | None, typer.Option(metavar="PEM", help="Its key.")] = None,
    remote_python: Annotated[
        str, typer.Option(metavar="PROGRAM", help="Python on a device reached by ssh.")
    ] = "python3",
    report: Annotated[Path | None, typer.Option(metavar="DIR", help="Write the report there, too.")] = None,
    json: JsonFlag = False,
    quiet: QuietFlag = False,
) -> int:
    """Measures latency, memory and operators, each figure with a verdict.

    Every graph runs in fresh processes that take turns. What a sample cannot support is withheld, and what
    disturbed the measurement is named. A bundle keeps its measurements (outside its identity).

    Always: opening, first run, latency with percentiles, throughput, memory (file, by opening, by the first run, peak),
    operators with who ran them, preprocessing and the session's own share. Only when asked: sweeps (--threads, --batch,
    --length) and the rhythms of applications (--duty).

    Example:  edgekit profile student.edge --threads 1,2 --report report/
    """
    from edgekit.cli.measured import render
    from edgekit.profiler.where import parse

    output = Output(json=json, quiet=quiet)
    places = [parse(text) for text in device or ["local"]]
    request = _request(engine, graph, (threads, batch, length), size or [], duration, memory_limit, duty)
    access = access_of(token_file, ca, cert, key, remote_python)
    if report is not None:
        from edgekit.report import check_ready

        check_ready(report)
    measurements = _taken(output, places, source, request, access)
    document: dict[str, Any] = {"measurements": measurements}
    if report is not None:
        document["report"] = str(_report(source, measurements, report))
        output.note(f"report: {document['report']}")
    error = None if memory_limit is None else _over(measurements)
    if error is not None:
        document["error"] = {"kind": error.kind, "message": error.message, "remedy": error.remedy}
    output.result(msgspec.to_builtins(document), lambda console: render(console, measurements))
    if error is None:
        return 0
    if json:  # the document holds the refusal: two documents would be none
        return error.exit_code
    raise error


def _request(
    engine: str | None,
    graph: str | None,
    sweeps: tuple[str, str, str | None],
    size: list[str],
    duration: float | None,
    memory_limit: float | None,
    duty: bool,
) -> Request:
    """What is asked, from the command line's texts; `sweeps` are threads, batch sizes and lengths."""
    from edgekit.profiler.request import Request

    threads, batch, length = sweeps
    return Request(
        engine=engine,
        graph=graph,
        threads=integers("--threads", threads),
        batch=integers("--batch", batch),
        length=integers("--length", length) if length is not None else (),
        sizes=axis_sizes(size),
        duration_s=duration,
        memory_limit_mb=memory_limit,
        duty=duty,
    )


def _taken(output: Output, places: list[Where], source: str, request: Request, access: Access) -> list[Measurement]:
    """The measurements of every place, one after the other, with their progress."""
    from edgekit.profiler.dispatch import take

    found: list[Measurement] = []
    for place in places:
        with output.growing("profile" if len(places) == 1 else place.text) as steps:

            def announce(total: int, remarks: tuple[str, ...], steps: Any = steps) -> None:
                steps.total = steps.done + total if total else steps.total
                for remark in remarks:
                    output.note(f"left out: {remark}")

            found += take(place, source, request, access, announce=announce, progress=steps.advance)
    return found


def _over(measurements: list[Measurement]) -> GateFailed | None:
    """The error of graphs that needed more memory than they may; None: there is none."""
    over = [m for m in measurements if m.latency_ms.n == 0 and not m.predicted]
    if not over:
        return None
    message = "; ".join(reason for m in over for reason in m.verdict.reasons)
    return GateFailed(message, remedy="a smaller graph (int8, a shorter length, batch 1), or a higher --memory-limit")


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


def _report(source: str, measurements: list[Measurement], folder: Path) -> Path:
    from edgekit.report import write_report
    from edgekit_runtime.bundle import open_bundle

    bundles = [open_bundle(source)] if any(m.bundle_id for m in measurements) else []
    return write_report([*bundles, *measurements], folder)[0]
