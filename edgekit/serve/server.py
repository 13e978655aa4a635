"""Start, health, and a graceful end: on SIGTERM what has begun is answered, what comes new is refused."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import signal
from collections.abc import Callable, Coroutine, Iterator, Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any

import grpc

from edgekit.serve.batcher import Batcher, Queue, Workers
from edgekit.serve.metrics import Metrics
from edgekit.serve.models import Models
from edgekit.serve.service import Door, Service
from edgekit_runtime.errors import UsageError
from edgekit_runtime.remote.client import MAX_MESSAGE_BYTES
from edgekit_runtime.remote.pem import check_authority, check_pair

_GRACE_S = 10.0


@dataclasses.dataclass(frozen=True)
class Options:
    """How a server serves.

    Attributes:
        bundles: Served.
        host: Loopback by default.
        port: 0: a free one.
        threads: Of one run of an engine.
        workers: Runs at the same time.
        most: Samples of one batch.
        wait_ms: A batch stays open for others at most this long.
        limit_ms: Longest wait for a worker that is admitted.
        cert: PEM certificate; with `key` the server speaks TLS.
        key: Its key.
        client_ca: Only clients with a certificate of this authority (mutual TLS).
        token: Bearer token; empty: none is asked for.
        metrics_port: For Prometheus, on the same host; None: none; 0: a free one.
        backend: `local`: in this process; `ray`: replicas on Ray Serve.
        replicas: With Ray: of each bundle, at the beginning and at least.
        max_replicas: With Ray: at most; more than `replicas` lets Ray's autoscaling decide.
        ray_address: Of a running cluster; empty: a local Ray is started.
    """

    bundles: tuple[Path, ...]
    host: str = "127.0.0.1"
    port: int = 8001
    threads: int = 1
    workers: int = 2
    most: int = 8
    wait_ms: float = 2.0
    limit_ms: float = 1000.0
    cert: Path | None = None
    key: Path | None = None
    client_ca: Path | None = None
    token: str = ""
    metrics_port: int | None = None
    backend: str = "local"
    replicas: int = 1
    max_replicas: int = 1
    ray_address: str = ""


def loop_runner() -> Callable[[Coroutine[Any, Any, None]], None]:
    """What runs `serve`: uvloop where it is installed, which takes a ninth off a round trip, else asyncio."""
    try:
        import uvloop
    except ModuleNotFoundError:  # Windows has none
        return asyncio.run
    return uvloop.run  # type: ignore[no-any-return]


async def serve(
    options: Options,
    started: Callable[[int, int | None], None] = lambda port, metrics: None,
    stop: asyncio.Event | None = None,
) -> None:
    """Serves until SIGTERM, SIGINT or `stop`.

    Args:
        options: What and how.
        started: Told the ports when requests are taken.
        stop: Ends it from within the process.

    Raises:
        UsageError: A port that is taken, a file that cannot be read, an address for everybody without token or TLS.
        Refused: A bundle cannot be taken.
    """
    check(options)
    models = Models(options.bundles, options.threads)
    metrics = Metrics()
    try:
        batchers, end = await _queues(options, models)
    except BaseException:
        models.close()
        raise
    from edgekit import __version__

    service = Service(models, batchers, metrics, __version__)
    server = grpc.aio.server(
        interceptors=(Door(options.token),) if options.token else (),
        options=(
            ("grpc.max_receive_message_length", MAX_MESSAGE_BYTES),
            ("grpc.max_send_message_length", MAX_MESSAGE_BYTES),
            ("grpc.so_reuseport", 0),
            ("grpc.http2.min_ping_interval_without_data_ms", 10_000),
        ),
        maximum_concurrent_rpcs=8192,  # a stream counts while it is open; what is admitted the batchers decide
    )
    server.add_generic_rpc_handlers((service.handlers(),))
    try:
        port = _bind(server, options)
        scraped = _metrics(metrics, options)
        await server.start()
        with _told(stop) as told:  # before anybody learns the port: an early SIGTERM ends it well, too
            started(port, scraped[0] if scraped else None)
            await told.wait()
        await service.drain()
        await server.stop(_GRACE_S)
        if scraped:
            scraped[1]()
    finally:
        del server  # gRPC ends it in this loop; left to the garbage collector it would look for a closed one
        await asyncio.sleep(0)
        for batcher in batchers.values():
            await batcher.close()
        await asyncio.to_thread(end)
        models.close()


async def _queues(options: Options, models: Models) -> tuple[Mapping[str, Queue], Callable[[], None]]:
    """What runs each model, and how all of it is ended."""
    if options.backend == "ray":
        from edgekit.serve.on_ray import Application, Scale

        scale = Scale(**{row.name: getattr(options, row.name) for row in fields(Scale)})
        models.free()  # the replicas run them; here only names, shapes and hashes are needed
        application = await asyncio.to_thread(Application, options.bundles, models, scale)
        return application.handles, application.close
    workers = Workers(options.workers)
    limits = {"most": options.most, "wait_ms": options.wait_ms, "limit_ms": options.limit_ms}
    return {model.name: Batcher(model, workers, **limits) for model in models}, workers.close  # type: ignore[arg-type]


def check(options: Options) -> None:
    """Refuses what would open a machine to everybody, and files that are not there.

    Raises:
        UsageError: What does not fit together.
    """
    _check_backend(options)
    if bool(options.cert) != bool(options.key):
        raise UsageError("a certificate needs its key and a key its certificate", remedy="--tls-cert and --tls-key")
    if options.client_ca and not options.cert:
        raise UsageError("clients can only show a certificate over TLS", remedy="--tls-cert and --tls-key")
    open_to_all = options.host not in ("127.0.0.1", "localhost", "::1")
    if open_to_all and not (options.token or options.client_ca):
        raise UsageError(
            f"{options.host} can be reached from outside, and anybody could use this server",
            remedy="--token-file FILE with --tls-cert and --tls-key, or --client-ca, or --host 127.0.0.1",
        )
    if open_to_all and not options.cert:
        raise UsageError("a token would travel in the clear", remedy="--tls-cert and --tls-key")
    if options.cert and options.key:
        check_pair(options.cert, options.key, ("--tls-cert", "--tls-key"))
    if options.client_ca:
        check_authority(options.client_ca, "--client-ca")


def _check_backend(options: Options) -> None:
    if options.backend not in ("local", "ray"):
        raise UsageError(f"--backend {options.backend} is not known", remedy="local or ray")
    if options.backend == "local" and (options.replicas > 1 or options.max_replicas > 1 or options.ray_address):
        raise UsageError("replicas and clusters belong to --backend ray", remedy="--backend ray, or --workers N")
    if 1 < options.max_replicas < options.replicas:
        raise UsageError(
            f"--max-replicas {options.max_replicas} is less than --replicas {options.replicas}",
            remedy="as many or more, or leave it out",
        )


def _bind(server: grpc.aio.Server, options: Options) -> int:
    host = f"[{options.host}]" if ":" in options.host else options.host
    address = f"{host}:{options.port}"
    try:
        if options.cert and options.key:
            pair = (options.key.read_bytes(), options.cert.read_bytes())
            ca = options.client_ca.read_bytes() if options.client_ca else None
            credentials = grpc.ssl_server_credentials([pair], ca, require_client_auth=ca is not None)
            return server.add_secure_port(address, credentials)
        return server.add_insecure_port(address)
    except RuntimeError as error:
        raise UsageError(
            f"{address} cannot be listened on: {error}", remedy="another --port, or 0 for a free one"
        ) from error


def _metrics(metrics: Metrics, options: Options) -> tuple[int, Callable[[], None]] | None:
    if options.metrics_port is None:
        return None
    from prometheus_client import start_http_server

    try:
        server, thread = start_http_server(options.metrics_port, options.host, metrics.registry)
    except OSError as error:
        raise UsageError(f"--metrics-port {options.metrics_port}: {error.strerror}", remedy="another one") from error

    def stop() -> None:
        server.shutdown()
        server.server_close()
        thread.join()

    return server.server_port, stop


@contextlib.contextmanager
def _told(stop: asyncio.Event | None) -> Iterator[asyncio.Event]:
    """What is set when the server shall end: the caller's event, or one that SIGTERM and SIGINT set."""
    if stop is not None:
        yield stop
        return
    told, loop = asyncio.Event(), asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, told.set)
    try:
        yield told
    finally:
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.remove_signal_handler(number)
