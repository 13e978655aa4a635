"""`edgekit agent`: on a device, lets a workstation profile there."""

from __future__ import annotations

import contextlib
import logging
import secrets
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

import typer

from edgekit.cli.app import JsonFlag, QuietFlag
from edgekit.cli.output import Output
from edgekit_runtime.errors import UsageError


def command(
    host: Annotated[str, typer.Option(help="Address to listen on; beyond loopback only with TLS.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port; 0: any free one.")] = 7843,
    token_file: Annotated[
        Path | None, typer.Option(metavar="FILE", help="The token; without it a new one is printed.")
    ] = None,
    cert: Annotated[Path | None, typer.Option(metavar="PEM", help="The agent's certificate.")] = None,
    key: Annotated[Path | None, typer.Option(metavar="PEM", help="Its key.")] = None,
    client_ca: Annotated[
        Path | None, typer.Option(metavar="PEM", help="Workstations must show a certificate signed by this one.")
    ] = None,
    folder: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Where bundles are kept; a temporary one by default.")
    ] = None,
    most_mb: Annotated[float, typer.Option(metavar="MB", help="All bundles kept, and the largest taken.")] = 2048.0,
    memory_limit: Annotated[float | None, typer.Option(metavar="MB", help="Memory a graph may take.")] = None,
    job_limit: Annotated[int, typer.Option(metavar="S", help="Seconds one profile may take.")] = 1800,
    json: JsonFlag = False,
    quiet: QuietFlag = False,
) -> None:
    """Serves profiles of this device to workstations, until Ctrl-C or SIGTERM, which end it with 0.

    On loopback a token is enough; beyond it, TLS with a token, with certificates of the workstations, or both. Graphs
    run in a limited process of their own. Bundles travel once. Without an agent: --device ssh://USER@HOST.

    Example:  edgekit agent --host 0.0.0.0 --cert cert.pem --key key.pem --token-file token.txt
    """
    from edgekit.agent.server import Agent, Settings

    output = Output(json=json, quiet=quiet)
    token, made = _token(token_file, client_ca is None)
    settings = Settings(
        host=host,
        port=port,
        token=token,
        cert=cert,
        key=key,
        client_ca=client_ca,
        most_mb=most_mb,
        memory_limit_mb=memory_limit,
        job_limit_s=job_limit,
    )
    settings.check()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    with _kept_in(folder) as place:
        try:
            agent = Agent(settings, place)
        except OSError as error:
            raise UsageError(
                f"the agent cannot listen on {host}:{port}: {error.strerror}", remedy="--port N"
            ) from error
        address = f"tcp://{'localhost' if host in ('127.0.0.1', '::1') else host}:{agent.port}"
        document = {"address": address, "tls": cert is not None, **({"token": token} if made else {})}

        def render(console: object) -> None:
            output.out.print(f"edgekit agent at {address}, {'TLS' if cert else 'no TLS'}; Ctrl-C ends it", markup=False)
            if made:
                output.out.print(f"token (write it to a file, give it as --token-file): {token}", markup=False)

        try:
            output.result(document, render)
            agent.serve()
        except KeyboardInterrupt:
            output.say("stopped")  # as it was asked to: no failure
        finally:
            agent.close()


def _token(path: Path | None, needed: bool) -> tuple[str, bool]:
    """The token, and whether it was made up here."""
    if path is None:
        return (secrets.token_urlsafe(24), True) if needed else ("", False)
    if not path.is_file():
        raise UsageError(f"--token-file: there is no file {path}")
    token = path.read_text(encoding="utf-8").strip()
    if len(token) < 16:
        raise UsageError(f"--token-file: {path} holds {len(token)} characters, a token has 16 or more")
    return token, False


@contextlib.contextmanager
def _kept_in(folder: Path | None) -> Iterator[Path]:
    if folder is None:
        with tempfile.TemporaryDirectory(prefix="edgekit-agent-") as name:
            yield Path(name)
        return
    folder.mkdir(parents=True, exist_ok=True)
    yield folder
