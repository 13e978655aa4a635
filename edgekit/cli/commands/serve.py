"""`edgekit serve`: the tail side."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from edgekit.cli.app import JsonFlag, QuietFlag
from edgekit.cli.output import Output
from edgekit_runtime.errors import Refused, UsageError


def command(
    bundles: Annotated[list[Path], typer.Argument(help="Bundles to serve: their full models and all tails.")],
    host: Annotated[str, typer.Option(help="Loopback unless told otherwise.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="0: a free one.")] = 8001,
    threads: Annotated[int, typer.Option(min=1, help="Of one run.")] = 1,
    workers: Annotated[int, typer.Option(min=1, help="Runs at the same time.")] = 2,
    batch: Annotated[int, typer.Option(min=1, help="Most samples run together.")] = 8,
    wait_ms: Annotated[float, typer.Option(min=0, help="A batch stays open for others this long.")] = 2.0,
    limit_ms: Annotated[float, typer.Option(min=0, help="Longest wait that is admitted.")] = 1000.0,
    tls_cert: Annotated[Path | None, typer.Option(help="PEM certificate.")] = None,
    tls_key: Annotated[Path | None, typer.Option(help="Its key.")] = None,
    client_ca: Annotated[Path | None, typer.Option(help="Only clients with a certificate of this authority.")] = None,
    token_file: Annotated[Path | None, typer.Option(help="Its first line is the token.")] = None,
    metrics_port: Annotated[int | None, typer.Option(min=0, max=65535, help="Prometheus; 0: a free one.")] = None,
    backend: Annotated[str, typer.Option(metavar="local|ray", help="In this process, or Ray Serve.")] = "local",
    replicas: Annotated[int, typer.Option(min=1, help="ray: of each bundle, at least.")] = 1,
    max_replicas: Annotated[int, typer.Option(min=1, help="ray: at most, by autoscaling.")] = 1,
    ray_address: Annotated[str, typer.Option(help="ray: of a running cluster; default: a local one.")] = "",
    json: JsonFlag = False,
    quiet: QuietFlag = False,
) -> None:
    """Serves full models and tails of bundles over gRPC (KServe V2) until SIGTERM; what has begun is answered.

    Example: edgekit serve student.edge --port 8001 --metrics-port 9090
    """
    try:
        from edgekit.serve import Options, serve
        from edgekit.serve.server import loop_runner
    except ModuleNotFoundError as error:
        raise Refused(f"the server needs {error.name}", remedy="pip install 'edgekit[server]'") from error
    output = Output(json=json, quiet=quiet)
    options = Options(
        bundles=tuple(bundles),
        host=host,
        port=port,
        threads=threads,
        workers=workers,
        most=batch,
        wait_ms=wait_ms,
        limit_ms=limit_ms,
        cert=tls_cert,
        key=tls_key,
        client_ca=client_ca,
        token=read_token(token_file),
        metrics_port=metrics_port,
        backend=backend,
        replicas=replicas,
        max_replicas=max_replicas,
        ray_address=ray_address,
    )
    scheme = "grpcs" if tls_cert else "grpc"

    def started(bound: int, metrics: int | None) -> None:
        document = {"url": f"{scheme}://{host}:{bound}", "metrics_port": metrics}
        output.result(document, lambda console: console.print(f"serving on {document['url']}", markup=False))

    loop_runner()(serve(options, started))


def read_token(path: Path | None) -> str:
    """The first line of a file.

    Raises:
        UsageError: It cannot be read, is empty, or others may read it.
    """
    if path is None:
        return ""
    try:
        text = path.read_text().splitlines()
        mode = path.stat().st_mode
    except OSError as error:
        raise UsageError(f"{path} cannot be read: {error.strerror}", remedy="name a file with the token") from error
    if not text or not text[0].strip():
        raise UsageError(f"{path} holds no token", remedy="put it on the first line")
    if mode & 0o077:
        raise UsageError(f"{path} can be read by others", remedy=f"chmod 600 {path}")
    return text[0].strip()
