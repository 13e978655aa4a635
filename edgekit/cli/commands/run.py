"""`edgekit run`."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Annotated, Any, cast

import numpy as np
import typer
from rich.console import Console

from edgekit.cli.app import JsonFlag, QuietFlag
from edgekit.cli.output import Output
from edgekit_runtime import open as open_session
from edgekit_runtime.bundle import Arrays, read_arrays
from edgekit_runtime.errors import UsageError

# More numbers than this are written to a file instead of the terminal.
LARGE = 1000


def command(
    bundle: Annotated[Path, typer.Argument(help="A bundle, or a bare .onnx or .tflite file.")],
    inputs: Annotated[Path, typer.Option("--input", help="Arrays named as the inputs, .npz.")],
    graph: Annotated[str | None, typer.Option(help="Graph id; default: the best here.")] = None,
    engine: Annotated[str | None, typer.Option(help="Engine; default: the best here.")] = None,
    threads: Annotated[int | None, typer.Option(help="Threads of one operator.")] = None,
    out: Annotated[Path | None, typer.Option("-o", "--output", help="Write the outputs here, .npz.")] = None,
    json: JsonFlag = False,
    quiet: QuietFlag = False,
) -> None:
    """Runs a request through a bundle and says which graph and engine answered, and why.

    Example: edgekit run student.edge --input request.npz
    """
    output = Output(json=json, quiet=quiet)
    if not inputs.is_file():
        raise UsageError(f"--input {inputs}: no such file", remedy="an .npz with arrays named as the inputs")
    arrays = read_arrays(inputs)
    with open_session(bundle, graph=graph, engine=engine, threads=threads) as session:
        start = time.perf_counter_ns()
        answers = session.run(arrays)
        elapsed_ms = (time.perf_counter_ns() - start) / 1e6
        decision = {
            "kind": "local",
            "graph": session.graph.id,
            "engine": session.engine_name,
            "total_ms": elapsed_ms,
            "reasons": session.why.explain().splitlines(),
        }
    written = out
    if out is None and sum(a.size for a in answers.values()) > LARGE:
        written = Path(f"{bundle.stem}-outputs.npz")
    if written is not None:
        write_arrays(written, answers)
    document: dict[str, Any] = {
        "outputs": str(written) if written else {name: a.tolist() for name, a in answers.items()},
        "decisions": [decision],
    }
    output.result(document, lambda console: _render(console, answers, decision, written))


def _render(console: Console, answers: Arrays, decision: dict[str, Any], written: Path | None) -> None:
    for name, array in answers.items():
        text = "" if written else f" {np.array2string(array, precision=4, max_line_width=76)}"
        console.print(f"{name} {array.dtype}{list(array.shape)}{text}", markup=False)
    if written:
        console.print(f"written to {written}", markup=False)
    console.print(f"{decision['graph']} on {decision['engine']}, {decision['total_ms']:.3f} ms", markup=False)
    for reason in decision["reasons"]:
        console.print(f"  {reason}", markup=False)


def write_arrays(path: Path, arrays: Arrays) -> None:
    """Writes an .npz whole or not at all.

    Raises:
        UsageError: Nothing can be written there.
    """
    partial = path.with_name(f".{path.name}.partial")
    try:
        with partial.open("wb") as file:
            np.savez(file, **cast("dict[str, Any]", arrays))
        partial.replace(path)
    except OSError as error:
        raise UsageError(f"-o {path} cannot be written: {error.strerror}", remedy="name another file") from error
    finally:
        partial.unlink(missing_ok=True)
