"""`edgekit agent`: on a device, lets a workstation profile there."""

from __future__ import annotations

import contextlib
import logging
import secrets
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console

from edgekit.cli.app import JsonFlag, QuietFlag
from edgekit.cli.output import Output
from edgekit.files import check_writable
from edgekit_runtime.errors import UsageError

if TYPE_CHECKING:
    from edgekit.agent.server import Agent, Settings


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
    from edgekit.agent.server import Settings

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
    with _kept_in(folder) as place, _listening(settings, place) as agent:
        try:
            _announce(output, agent.port, settings, token if made else "")
            agent.serve()
        except KeyboardInterrupt:
            output.say("stopped")  # as it was asked to: no failure


@contextlib.contextmanager
def _listening(settings: Settings, folder: Path) -> Iterator[Agent]:
    """An agent that is closed with the block.

    Raises:
        UsageError: The address cannot be had.
    """
    from edgekit.agent.server import Agent

    try:
        agent = Agent(settings, folder)
    except OSError as error:
        where = f"{settings.host}:{settings.port}"
        raise UsageError(f"the agent cannot listen on {where}: {error.strerror}", remedy="--port N") from error
    try:
        yield agent
    finally:
        agent.close()


def _announce(output: Output, port: int, settings: Settings, new_token: str) -> None:
    """Says where the agent is, and the token that was made up for it."""
    host = "localhost" if settings.host in ("127.0.0.1", "::1") else settings.host
    document: dict[str, object] = {"address": f"tcp://{host}:{port}", "tls": settings.cert is not None}
    if new_token:
        document["token"] = new_token

    def render(console: Console) -> None:
        tls = "TLS" if settings.cert else "no TLS"
        console.print(f"edgekit agent at {document['address']}, {tls}; Ctrl-C ends it", markup=False)
        if new_token:
            console.print(f"token (write it to a file, give it as --token-file): {new_token}", markup=False)

    output.result(document, render)


def _token(path: Path | None, needed: bool) -> tuple[str, bool]:
    """The token, and whether it was made up here."""
    if path is None:
        return (secrets.token_urlsafe(24), True) if needed else ("", False)
    if not path.is_file():
        raise UsageError(f"--token-file: there is no file {path}", remedy=f"openssl rand -base64 24 > {path}")
    token = path.read_text(encoding="utf-8").strip()
    if len(token) < 16:
        raise UsageError(
            f"--token-file: {path} holds {len(token)} characters, a token has 16 or more",
            remedy=f"openssl rand -base64 24 > {path}",
        )
    return token, False


@contextlib.contextmanager
def _kept_in(folder: Path | None) -> Iterator[Path]:
    if folder is None:
        with tempfile.TemporaryDirectory(prefix="edgekit-agent-") as name:
            yield Path(name)
        return
    check_writable(folder, "--folder")
    folder.mkdir(parents=True, exist_ok=True)
    yield folder
