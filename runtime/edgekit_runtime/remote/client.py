"""One channel to one V2 server: TLS, token, calls that can be cancelled, errors of gRPC translated here."""

from __future__ import annotations

import dataclasses
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import numpy as np

from edgekit_runtime.engines.base import Arrays
from edgekit_runtime.errors import Refused, Unreachable, UsageError

SCHEMES = ("grpc", "grpcs")
DEFAULT_PORT = 8001
MAX_MESSAGE_BYTES = 64 << 20
SERVICE = "/inference.GRPCInferenceService/"
RETRY_AFTER = "retry-after-ms"
_OPTIONS = (
    ("grpc.max_receive_message_length", MAX_MESSAGE_BYTES),
    ("grpc.max_send_message_length", MAX_MESSAGE_BYTES),
    ("grpc.keepalive_time_ms", 20_000),
    ("grpc.keepalive_timeout_ms", 5_000),
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 2_000),
    # The session decides itself what is tried again; a channel that does so on its own would hide a dead server.
    ("grpc.enable_retries", 0),
)


@dataclasses.dataclass(frozen=True)
class Credentials:
    """How a server is trusted and how it trusts us. Paths of PEM files, or nothing.

    Attributes:
        ca: Certificate that signed the server's; None: the system's.
        cert: Our own, for mutual TLS.
        key: Its key.
        token: Bearer token; sent over TLS, or to this machine itself.
    """

    ca: Path | None = None
    cert: Path | None = None
    key: Path | None = None
    token: str = ""


@dataclasses.dataclass(frozen=True)
class Reply:
    """An answer of the server.

    Attributes:
        tensors: By name.
        parameters: Of the answer.
        network_ms: Round trip less the server's residence time.
        bytes_up: Of the request message.
        bytes_down: Of the answer message.
    """

    tensors: Arrays
    parameters: dict[str, Any]
    network_ms: float
    bytes_up: int
    bytes_down: int

    def number(self, name: str) -> float:
        """A numeric parameter; 0 where the server does not give it."""
        value = self.parameters.get(name, 0.0)
        return float(value) if isinstance(value, (int, float)) else 0.0


class Late(Refused):
    """The server had no time for it: overloaded, or the deadline has passed. Not its fault and not ours."""

    def __init__(self, message: str, retry_after_s: float | None) -> None:
        super().__init__(message, remedy="the local answer serves; the server is left alone for a while")
        self.retry_after_s = retry_after_s


class Call:
    """A request on its way. `then` is called once, from a thread of gRPC, when it ends in whatever way."""

    def __init__(self, future: Any, started: float, bytes_up: int, request_id: str) -> None:
        self._future, self._started, self._bytes_up, self._id = future, started, bytes_up, request_id
        self._ended: float | None = None
        future.add_done_callback(lambda _: self._end())

    def _end(self) -> None:
        self._ended = time.perf_counter()

    def then(self, call: Callable[[], None]) -> None:
        """Calls back when it has ended; at once when it has."""
        self._future.add_done_callback(lambda _: call())

    def cancel(self) -> None:
        """Gives it up."""
        self._future.cancel()

    def result(self, timeout_s: float | None = None) -> Reply:
        """The answer.

        Raises:
            Unreachable: No answer came.
            Late: The server refused for want of time.
            Refused: The server refuses this request, or its answer is not one to it.
        """
        import grpc

        from edgekit_runtime.remote import messages

        try:
            answer = self._future.result(timeout_s)
        except grpc.RpcError as error:
            raise translated(error) from error
        except (grpc.FutureTimeoutError, grpc.FutureCancelledError) as error:
            raise Unreachable("no answer came in time", remedy="the local answer serves") from error
        if answer.id != self._id:
            raise Refused(f"the answer is to {answer.id[:40]!r}, not to this request", remedy="look at the server")
        parameters = messages.read_parameters(answer.parameters)
        residence = parameters.get("residence_ms", 0.0)
        total_ms = ((self._ended or time.perf_counter()) - self._started) * 1e3
        network_ms = max(total_ms - (float(residence) if isinstance(residence, (int, float)) else 0.0), 0.0)
        return Reply(messages.read_response(answer), parameters, network_ms, self._bytes_up, answer.ByteSize())


class Client:
    """A channel to one server, kept open. Safe from several threads."""

    def __init__(self, url: str, credentials: Credentials | None = None) -> None:
        """Opens a channel; no byte is sent before the first call.

        Args:
            url: `grpc://HOST:PORT` or `grpcs://HOST:PORT`.
            credentials: For TLS and the token.

        Raises:
            UsageError: A scheme, port or certificate file that cannot be.
            Refused: gRPC is not installed.
        """
        grpc = _grpc()
        self.credentials = credentials or Credentials()
        self.secure, self.address = parse(url)
        if self.credentials.token and not self.secure and not _is_here(self.address):
            raise UsageError(
                "a token would travel in the clear", remedy=f"grpcs://{self.address}, or a server on this machine"
            )
        if self.secure:
            self._channel = grpc.secure_channel(self.address, self._tls(grpc), options=_OPTIONS)
        else:
            self._channel = grpc.insecure_channel(self.address, options=_OPTIONS)
        self._metadata = (("authorization", f"Bearer {self.credentials.token}"),) if self.credentials.token else ()
        self._calls: dict[str, Any] = {}
        self._count = 0
        self._lock = threading.Lock()

    def infer(
        self,
        model: str,
        tensors: Mapping[str, np.ndarray],
        *,
        version: str = "",
        parameters: Mapping[str, Any] | None = None,
        codec: Mapping[str, str] | None = None,
        timeout_s: float = 30.0,
    ) -> Call:
        """Sends a request; returns at once.

        Args:
            model: Name on the server.
            tensors: By name.
            version: Empty: the server's default.
            parameters: Of the request.
            codec: By tensor name, for our own server only.
            timeout_s: After which the call ends as unreachable.
        """
        from edgekit_runtime.remote import messages
        from edgekit_runtime.remote.generated import open_inference_pb2 as pb

        with self._lock:
            self._count += 1
            request_id = str(self._count)
        message = messages.request(model, version, tensors, request_id=request_id, parameters=parameters, codec=codec)
        started = time.perf_counter()
        future = self._method("ModelInfer", pb.ModelInferResponse).future(
            message, timeout=timeout_s, metadata=self._metadata
        )
        return Call(future, started, message.ByteSize(), request_id)

    def ping(self, timeout_s: float = 2.0) -> float:
        """Round trip of an empty request, ms.

        Raises:
            Unreachable: No answer came.
        """
        from edgekit_runtime.remote.generated import open_inference_pb2 as pb

        start = time.perf_counter()
        self._ask("ServerLive", pb.ServerLiveRequest(), pb.ServerLiveResponse, timeout_s)
        return (time.perf_counter() - start) * 1e3

    def ready(self, model: str, version: str = "", timeout_s: float = 2.0) -> bool:
        """Does the server hold a model?

        Raises:
            Unreachable: No answer came.
            Refused: It holds no such model, or does not let us in.
        """
        from edgekit_runtime.remote.generated import open_inference_pb2 as pb

        asked = pb.ModelReadyRequest(name=model, version=version)
        return bool(self._ask("ModelReady", asked, pb.ModelReadyResponse, timeout_s).ready)

    def close(self) -> None:
        """Ends the channel and what is still on its way."""
        self._channel.close()

    def _ask(self, method: str, message: Any, kind: Any, timeout_s: float) -> Any:
        grpc = _grpc()
        try:
            return self._method(method, kind)(message, timeout=timeout_s, metadata=self._metadata)
        except grpc.RpcError as error:
            raise translated(error) from error

    def _method(self, name: str, kind: Any) -> Any:
        found = self._calls.get(name)
        if found is None:
            found = self._calls[name] = self._channel.unary_unary(
                SERVICE + name,
                request_serializer=lambda message: message.SerializeToString(),
                response_deserializer=kind.FromString,
            )
        return found

    def _tls(self, grpc: Any) -> Any:
        files = {name: getattr(self.credentials, name) for name in ("ca", "cert", "key")}
        if bool(files["cert"]) != bool(files["key"]):
            raise UsageError("a certificate needs its key and a key its certificate", remedy="give cert= and key=")
        read = {}
        for name, path in files.items():
            try:
                read[name] = Path(path).read_bytes() if path else None
            except OSError as error:
                raise UsageError(f"{name}={path} cannot be read: {error.strerror}", remedy="name a PEM file") from error
            if read[name] is not None and b"-----BEGIN" not in (read[name] or b""):
                raise UsageError(f"{name}={path} is no PEM file", remedy="it begins with -----BEGIN")
        return grpc.ssl_channel_credentials(read["ca"], read["key"], read["cert"])


def parse(url: str) -> tuple[bool, str]:
    """Is it TLS, and the address `HOST:PORT`.

    Raises:
        UsageError: A scheme, host or port that cannot be.
    """
    try:
        parts = urlsplit(url)
        port = parts.port or DEFAULT_PORT
    except ValueError as error:
        raise UsageError(f"{url!r} is no address of a server: {error}", remedy="grpcs://HOST:8001") from error
    if parts.scheme not in SCHEMES or not parts.hostname:
        raise UsageError(
            f"{url!r} is no address of a server", remedy=f"{' or '.join(f'{name}://HOST:PORT' for name in SCHEMES)}"
        )
    host = f"[{parts.hostname}]" if ":" in parts.hostname else parts.hostname
    return parts.scheme == "grpcs", f"{host}:{port}"


def translated(error: Any) -> Exception:
    """What an error of gRPC means here."""
    grpc = _grpc()
    code, details = error.code(), (error.details() or "")[:500]
    if code is grpc.StatusCode.RESOURCE_EXHAUSTED:
        trailing = {row.key: row.value for row in error.trailing_metadata() or ()}
        after = trailing.get(RETRY_AFTER)
        return Late(f"the server is overloaded: {details}", float(after) / 1e3 if after and after.isdigit() else None)
    if code is grpc.StatusCode.DEADLINE_EXCEEDED:
        return Late(f"the deadline has passed: {details}", None)
    if code in (grpc.StatusCode.UNAUTHENTICATED, grpc.StatusCode.PERMISSION_DENIED):
        return Refused(f"the server does not let us in: {details}", remedy="check token=, cert= and key=")
    if code is grpc.StatusCode.NOT_FOUND:
        return Refused(f"the server does not hold it: {details}", remedy="edgekit serve BUNDLE on the server")
    if code in (grpc.StatusCode.INVALID_ARGUMENT, grpc.StatusCode.FAILED_PRECONDITION):
        return Refused(f"the server refuses the request: {details}", remedy="look at its tensors and parameters")
    return Unreachable(f"the server gave no answer ({code.name.lower()}): {details}", remedy="the local answer serves")


def _grpc() -> Any:
    try:
        import grpc
    except ModuleNotFoundError as error:
        raise Refused("a server needs gRPC", remedy="pip install 'edgekit[remote]'") from error
    return grpc


def _is_here(address: str) -> bool:
    return address.rsplit(":", 1)[0] in ("localhost", "127.0.0.1", "[::1]")
