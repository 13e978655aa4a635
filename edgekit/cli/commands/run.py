"""`edgekit run`."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, cast

import msgspec
import numpy as np
import typer
from rich.console import Console

from edgekit.cli.app import JsonFlag, QuietFlag
from edgekit.cli.output import Output
from edgekit.cli.policies import read_policy, render_left_out
from edgekit.files import whole_file
from edgekit_runtime import open as open_session
from edgekit_runtime.bundle import Arrays, read_arrays
from edgekit_runtime.cascade import PREFIX
from edgekit_runtime.errors import BundleInvalid, Refused, Unreachable, UsageError

if TYPE_CHECKING:
    from edgekit_runtime.remote.session import AdaptiveSession
    from edgekit_runtime.session import Session

# Outputs, decisions, and why other actions are not offered.
Answered = tuple[Arrays, list[dict[str, Any]], dict[str, str]]

# More numbers than this are written to a file instead of the terminal.
LARGE = 1000
# Reasons shown of a decision: what was chosen and its nearest rivals, so that --watch stays on a small screen.
_REASONS = 4


def command(
    bundle: Annotated[Path, typer.Argument(help="A bundle, or a bare .onnx or .tflite file.")],
    inputs: Annotated[Path, typer.Option("--input", help="Arrays named as the inputs, .npz.")],
    graph: Annotated[str | None, typer.Option(help="Graph id; default: the best here.")] = None,
    engine: Annotated[str | None, typer.Option(help="Engine; default: the best here.")] = None,
    threads: Annotated[int | None, typer.Option(help="Threads of one operator.")] = None,
    out: Annotated[Path | None, typer.Option("-o", "--output", help="Write the outputs here, .npz.")] = None,
    server: Annotated[
        str | None, typer.Option(metavar="URL", help="grpc:// or grpcs://HOST:PORT: choose per request.")
    ] = None,
    ca: Annotated[Path | None, typer.Option(help="Certificate that signed the server's.")] = None,
    cert: Annotated[Path | None, typer.Option(help="Our own certificate, for mutual TLS.")] = None,
    key: Annotated[Path | None, typer.Option(help="Its key.")] = None,
    token_file: Annotated[Path | None, typer.Option(help="Its first line is the token.")] = None,
    policy: Annotated[list[str] | None, typer.Option(metavar="KEY=VALUE", help="As er.Policy; repeatable.")] = None,
    first: Annotated[
        list[Path] | None,
        typer.Option(metavar="SMALL.edge", help="With a server: a cheaper student of its cascades; repeatable."),
    ] = None,
    log: Annotated[Path | None, typer.Option(help="Write every decision here, for edgekit why.")] = None,
    repeat: Annotated[int, typer.Option(min=1, help="So many requests, with a server.")] = 1,
    watch: Annotated[bool, typer.Option("--watch", help="Show estimates, choices and latency as they change.")] = False,
    json: JsonFlag = False,
    quiet: QuietFlag = False,
) -> None:
    """Runs a request through a bundle and says which graph and engine answered, and why.

    With --server each request is answered here or there, whichever is expected to be better.

    Example: edgekit run student.edge --input request.npz
    """
    output = Output(json=json, quiet=quiet)
    if not inputs.is_file():
        raise UsageError(f"--input {inputs}: no such file", remedy="an .npz with arrays named as the inputs")
    arrays = _request(inputs)
    if server is None and (ca or cert or key or token_file or policy or first or log or watch or repeat > 1):
        raise UsageError("there is nothing to choose without a server", remedy="--server grpc://HOST:8001")
    if not first and (names := [name for name in arrays if name.startswith(PREFIX)]):
        raise UsageError(
            f"--input holds {', '.join(names)}, which only a cascade's first student takes",
            remedy="--first SMALL.edge with --server, or leave these arrays out",
        )
    if server is not None:
        _tell_of(output, server, bundle, ca=ca, cert=cert, key=key, token_file=token_file)
    if server is not None:
        from edgekit.cli.commands.serve import read_token

        remote: dict[str, Any] = {"ca": ca, "cert": cert, "key": key, "token": read_token(token_file), "log": log}
        remote |= {"first": first or None, "policy": read_policy(policy or [])}
        session = open_session(bundle, graph, engine, threads, server=server, **remote)
        answers, rows, left_out = _there(session, arrays, repeat, output.err if watch else None)
    else:
        answers, rows, left_out = _here(open_session(bundle, graph=graph, engine=engine, threads=threads), arrays)
    written = _written(out, bundle, answers)
    document: dict[str, Any] = {
        "outputs": str(written) if written else {name: a.tolist() for name, a in answers.items()},
        "decisions": rows,
    }
    if server is not None:
        document["left_out"] = left_out
    told = None if quiet else left_out
    output.result(document, lambda console: _render(console, answers, rows[-1], written, told, brief=watch))


def _there(session: AdaptiveSession, arrays: Arrays, repeat: int, live: Console | None) -> Answered:
    """Requests through a session that chooses: the last answer, every decision, and what is not offered."""
    from edgekit.cli.live import requests

    with session:
        results = requests(session, arrays, repeat, live)
        return results[-1].outputs, [_decided(result) for result in results], dict(session.left_out)


def _here(session: Session, arrays: Arrays) -> Answered:
    """One request on this machine."""
    with session:
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
    return answers, [decision], {}


def _tell_of(output: Output, server: str, bundle: Path, *, token_file: Path | None, **files: Path | None) -> None:
    """Says why a server will not answer, if it will not: requests are answered here then, which alone tells nothing.

    Raises:
        UsageError: An address, certificate or token file that cannot be.
    """
    from edgekit.cli.commands.serve import read_token
    from edgekit_runtime import open_bundle
    from edgekit_runtime.remote.client import Client, Credentials

    if bundle.suffix in (".onnx", ".tflite"):
        return  # refused with its own words: a bare file has no name on a server
    with open_bundle(bundle) as opened:
        name = opened.manifest.name
    # What goes wrong is told in our words; gRPC's own lines would break the view.
    os.environ.setdefault("GRPC_VERBOSITY", "NONE")
    client = Client(server, Credentials(**files, token=read_token(token_file)))
    try:
        ready, why = client.ready(name), "it is not ready"
    except (Unreachable, Refused) as error:
        ready, why = False, error.told
    finally:
        client.close()
    if not ready:
        output.note(f"the server {server} does not answer for {name}: {why}; requests are answered here")


def _request(path: Path) -> Arrays:
    try:
        return read_arrays(path)
    except BundleInvalid as error:
        remedy = "write it with numpy.savez(FILE, NAME=array, ...); arrays of objects are not read"
        raise Refused(f"--input {error.message}", remedy=remedy) from error


def _written(out: Path | None, bundle: Path, answers: Arrays) -> Path | None:
    """Writes the outputs to a file that was asked for, or when they are many; None: to be shown."""
    written = out
    if out is None and sum(a.size for a in answers.values()) > LARGE:
        written = Path(f"{bundle.stem}-outputs.npz")
    if written is not None:
        write_arrays(written, answers)
    return written


def _decided(result: Any) -> dict[str, Any]:
    timing = msgspec.structs.asdict(result.timing)
    return {**result.decision.document(), "timing": timing, "total_ms": result.timing.total_ms}


def _render(
    console: Console,
    answers: Arrays,
    decision: dict[str, Any],
    written: Path | None,
    left_out: Mapping[str, str] | None,
    *,
    brief: bool = False,
) -> None:
    """Outputs and who answered; unless `left_out` is None, also the nearest rivals and what is not offered.

    `brief`: below a view that shall stay on the screen.
    """
    for name, array in answers.items():
        text = "" if written else f" {np.array2string(array, precision=4, max_line_width=76)}"
        console.print(f"{name} {array.dtype}{list(array.shape)}{text}", markup=False)
    if written:
        console.print(f"written to {written}", markup=False)
    who = f"{decision['graph']} on {decision['engine']}" if "graph" in decision else decision["action"]
    console.print(f"{who}, {decision['total_ms']:.3f} ms", markup=False)
    if left_out is None:
        return
    reasons = decision["reasons"]
    most = len(reasons) if "graph" in decision else 1 if brief else _REASONS
    for reason in reasons[:most]:
        console.print(f"  {reason}", markup=False)
    if len(reasons) > most:
        console.print(f"  … {len(reasons) - most} more actions, with the reasons of each: --json", markup=False)
    if brief and left_out:
        console.print(f"  … {len(left_out)} are not offered, each for its reason: --json", markup=False)
    elif left_out:
        render_left_out(console, left_out, each=1)


def write_arrays(path: Path, arrays: Arrays) -> None:
    """Writes an .npz whole or not at all.

    Raises:
        UsageError: Nothing can be written there.
    """
    with whole_file(path, "-o") as partial, partial.open("wb") as file:
        np.savez(file, **cast("dict[str, Any]", arrays))
