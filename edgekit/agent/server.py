"""The agent's side: one connection a thread, one profile at a time, each in a process of its own."""

from __future__ import annotations

import contextlib
import dataclasses
import hmac
import logging
import os
import queue
import signal
import socket
import ssl
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import msgspec

from edgekit.agent import wire
from edgekit.agent.channels import SocketChannel
from edgekit.agent.job import Order
from edgekit.agent.store import Store
from edgekit.agent.wire import Lost, Wire
from edgekit_runtime.errors import EdgekitError, Refused, UsageError

PEM = "--cert takes a certificate and --key its private key, without a password, both as PEM files"
_log = logging.getLogger("edgekit.agent")
LOOPBACK = ("127.0.0.1", "::1", "localhost")
_MOST_CONNECTIONS = 8
_GREETING_S = 10.0
_IDLE_S = 60.0
_ALIVE_S = 1.0  # a workstation that has gone is noticed by the second one that it does not take


@dataclasses.dataclass(frozen=True)
class Settings:
    """How an agent is run.

    Attributes:
        host: Address to listen on.
        port: 0: any free one.
        token: What a workstation has to say; empty: certificates (or ssh) stand for it.
        cert: The agent's certificate; None: no TLS, which only loopback may do.
        key: Its key.
        client_ca: Workstations must show a certificate signed by this one.
        most_mb: Contents kept, and the largest taken.
        memory_limit_mb: Memory a graph may take; None: the machine's.
        job_limit_s: CPU seconds, and seconds of the clock, that one profile may take.
    """

    host: str = "127.0.0.1"
    port: int = 0
    token: str = dataclasses.field(default="", repr=False)
    cert: Path | None = None
    key: Path | None = None
    client_ca: Path | None = None
    most_mb: float = 2048.0
    memory_limit_mb: float | None = None
    job_limit_s: int = 1800

    def check(self) -> None:
        """Refuses what would open the machine to its network.

        Raises:
            UsageError: No authentication, or no TLS beyond loopback.
        """
        if self.host not in LOOPBACK and self.cert is None:
            raise UsageError(
                f"beyond loopback ({self.host}) an agent speaks TLS only",
                remedy="give --cert and --key, or listen on 127.0.0.1 and use ssh://USER@HOST from the workstation",
            )
        if (self.cert is None) != (self.key is None) or (self.client_ca is not None and self.cert is None):
            raise UsageError("--cert and --key belong together, and --client-ca needs both", remedy="give both")
        if not self.token and self.client_ca is None:
            raise UsageError("an agent needs a token or certificates of its workstations", remedy="--token-file FILE")


class Agent:
    """Serves workstations until closed.

    Args:
        settings: Checked before anything is opened.
        folder: Where contents are kept.
    """

    def __init__(self, settings: Settings, folder: Path) -> None:
        settings.check()
        self._settings = settings
        self.sessions = Sessions(settings, folder)
        self._tls = _tls(settings)
        family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
        self._listener = socket.create_server((settings.host, settings.port), family=family, backlog=_MOST_CONNECTIONS)
        self.port: int = self._listener.getsockname()[1]
        self._places = threading.Semaphore(_MOST_CONNECTIONS)
        self._closed = False

    def serve(self) -> None:
        """Takes connections until `close`."""
        while not self._closed:
            try:
                connected, address = self._listener.accept()
            except OSError:  # closed under us
                break
            if not self._places.acquire(blocking=False):
                connected.close()
                continue
            threading.Thread(target=self._one, args=(connected, str(address[0])), daemon=True).start()

    def close(self) -> None:
        """Stops taking connections and ends a running profile."""
        self._closed = True
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self.sessions.close()

    def _one(self, connected: socket.socket, address: str) -> None:
        try:
            connected.settimeout(_GREETING_S)
            if self._tls is not None:
                connected = self._tls.wrap_socket(connected, server_side=True)
            self.sessions.serve(Wire(SocketChannel(connected)), self._settings.token)
        except OSError as error:  # ssl's errors too: a port scan, a client without a certificate
            _log.warning("%s: %s", address, error)
            connected.close()
        finally:
            self._places.release()


class Sessions:
    """What one connection may say, whatever carries it."""

    def __init__(self, settings: Settings, folder: Path) -> None:
        self._settings = settings
        self._store = Store(folder, int(settings.most_mb * 1e6))
        self._busy = threading.Lock()
        self._job: subprocess.Popen[bytes] | None = None

    def close(self) -> None:
        """Ends a running profile."""
        if self._job is not None:
            end(self._job)

    def serve(self, connection: Wire, token: str) -> None:
        """Serves one connection to its end. Nothing that the other side does ends more than its own connection."""
        try:
            self._greet(connection, token)
            offer: wire.Offer | None = None
            while True:
                message = connection.hear(_IDLE_S)
                if isinstance(message, wire.Offer):
                    offer = message
                    self._take(connection, offer)
                elif isinstance(message, wire.Start):
                    self._profile(connection, message)
                elif isinstance(message, wire.Calibrate):
                    self._run(connection, Order(calibrate=message, cpu_s=self._settings.job_limit_s))
                else:
                    raise Refused("an offer or a start is expected here")
        except Lost as error:
            _log.info("connection ended: %s", error)
        except EdgekitError as error:
            _log.warning("refused: %s", error.message)
            with contextlib.suppress(Lost):
                connection.say(wire.Failure(kind=error.kind, message=error.message, remedy=error.remedy))
        finally:
            connection.close()

    def _greet(self, connection: Wire, token: str) -> None:
        import edgekit
        from edgekit.profiler.environment import cpu_name
        from edgekit_runtime.machine import this_machine

        hello = connection.hear(_GREETING_S)
        if not isinstance(hello, wire.Hello):
            raise Refused("a greeting is expected first")
        if not hmac.compare_digest(hello.token.encode(), token.encode()):
            time.sleep(0.5)  # a guess costs time
            raise Refused("the token is not the agent's", remedy="give the agent's own with --token-file")
        if hello.version != wire.VERSION:
            raise Refused(
                f"the workstation speaks version {hello.version}, the agent {wire.VERSION}",
                remedy="install the same version of edgekit on both sides",
            )
        most = int(self._settings.most_mb * 1e6)
        connection.say(
            wire.Welcome(edgekit=edgekit.__version__, machine=cpu_name(), device=this_machine().id, most_bytes=most)
        )

    def _take(self, connection: Wire, offer: wire.Offer) -> None:
        content, missing = self._store.open(offer)
        connection.say(wire.Need(content=content, paths=tuple(file.path for file in missing)))
        for file in missing:
            self._store.take(content, offer, file, lambda: connection.hear_piece(_IDLE_S))
        self._store.finish(content, offer)
        connection.say(wire.Stored())

    def _profile(self, connection: Wire, start: wire.Start) -> None:
        path = self._store.path(start.content)
        request = start.request
        if self._settings.memory_limit_mb is not None:
            mb = min(self._settings.memory_limit_mb, request.memory_limit_mb or self._settings.memory_limit_mb)
            request = msgspec.structs.replace(request, memory_limit_mb=mb)
        self._run(connection, Order(path=str(path), request=request, cpu_s=self._settings.job_limit_s))

    def _run(self, connection: Wire, order: Order) -> None:
        """Runs one job in a process of its own and passes on what it says."""
        if not self._busy.acquire(blocking=False):
            raise _Busy("the agent is measuring for somebody else", remedy="try again when it is done")
        try:
            with tempfile.TemporaryDirectory(prefix="edgekit-job-") as folder:
                self._job = start_job(order, Path(folder))
                try:
                    last = relay(self._job, connection, self._settings.job_limit_s)
                finally:
                    end(self._job)
                    self._job = None
        finally:
            self._busy.release()
        connection.say(last)  # whoever hears it finds the agent free


class _Busy(EdgekitError):
    """Another profile is running."""

    kind = "busy"


def start_job(order: Order, folder: Path) -> subprocess.Popen[bytes]:
    """The limited process that profiles: own session, own folder, an environment without secrets."""
    kept = ("PATH", "LANG", "LC_ALL", "LD_LIBRARY_PATH", "OMP_NUM_THREADS", "VIRTUAL_ENV")
    environment = {name: os.environ[name] for name in kept if name in os.environ}
    environment |= {
        "PYTHONPATH": os.pathsep.join(entry for entry in sys.path if entry),
        "HOME": str(folder),
        "TMPDIR": str(folder),
    }
    job = subprocess.Popen(
        [sys.executable, "-m", "edgekit.agent.job"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        cwd=folder,
        env=environment,
        start_new_session=True,
    )
    assert job.stdin is not None
    with contextlib.suppress(BrokenPipeError):  # it died at once: told when its answer is missing
        job.stdin.write(msgspec.json.encode(order) + b"\n")
        job.stdin.flush()
    return job


Last = wire.Done | wire.Calibrated | wire.Failure


def relay(job: subprocess.Popen[bytes], connection: Wire, limit_s: float) -> Last:
    """Passes a job's messages on, with a sign of life while it is silent.

    Returns:
        The last message, which is left to the caller to send.

    Raises:
        Refused: The job died without an answer, or took too long.
        Lost: The workstation is gone.
    """
    lines: queue.SimpleQueue[bytes] = queue.SimpleQueue()

    def read() -> None:
        assert job.stdout is not None
        for line in job.stdout:
            lines.put(line)
        lines.put(b"")

    threading.Thread(target=read, daemon=True).start()
    until = time.monotonic() + limit_s
    while time.monotonic() < until:
        try:
            line = lines.get(timeout=_ALIVE_S)
        except queue.Empty:
            connection.say(wire.Alive())
            continue
        if not line:
            code = job.wait()
            why = f"was killed by {signal.Signals(-code).name}" if code < 0 else f"ended with status {code}"
            raise Refused(
                f"the process that measured on the device {why}",
                remedy="memory or a limit of the agent ran out, or the engine crashed: look at the device",
            )
        message = wire.decode(line)
        if isinstance(message, (wire.Done, wire.Calibrated, wire.Failure)):
            return message
        connection.say(message)
    raise Refused(f"the profile took longer than the {limit_s:.0f} s that the agent gives", remedy="--job-limit there")


def end(job: subprocess.Popen[bytes]) -> None:
    """Ends a job with everything it started: its workers end as their pipes close."""
    if job.poll() is None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(job.pid, signal.SIGKILL)
    job.wait()
    for pipe in (job.stdin, job.stdout):
        if pipe is not None:
            with contextlib.suppress(BrokenPipeError):
                pipe.close()


def _tls(settings: Settings) -> ssl.SSLContext | None:
    if settings.cert is None:
        return None
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    try:
        context.load_cert_chain(settings.cert, settings.key)
        if settings.client_ca is not None:
            context.load_verify_locations(settings.client_ca)
            context.verify_mode = ssl.CERT_REQUIRED
    except (OSError, ssl.SSLError) as error:
        raise UsageError(f"the agent's certificate cannot be used: {error}", remedy=PEM) from error
    return context
