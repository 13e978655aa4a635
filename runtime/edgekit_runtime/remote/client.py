"""One connection to one V2 server: TLS, token, and the calls of the protocol."""

from __future__ import annotations

import dataclasses
import functools
import itertools
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import numpy as np

from edgekit_runtime.errors import UsageError
from edgekit_runtime.remote.call import Call, Reply
from edgekit_runtime.remote.grpc_errors import Late, grpc_package, translated
from edgekit_runtime.remote.lanes import SERVICE, Lanes
from edgekit_runtime.remote.pem import check_authority, check_pair

__all__ = ["Call", "Client", "Credentials", "Late", "Reply", "parse"]

SCHEMES = ("grpc", "grpcs")
DEFAULT_PORT = 8001
MAX_MESSAGE_BYTES = 64 << 20
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


class Client:
    """A connection to one server, kept open. Safe from several threads."""

    def __init__(self, url: str, credentials: Credentials | None = None, *, streams: bool = False) -> None:
        """Opens a channel; no byte is sent before the first call.

        Args:
            url: `grpc://HOST:PORT` or `grpcs://HOST:PORT`.
            credentials: For TLS and the token.
            streams: The server is `edgekit serve`: requests go by streams, which are quicker (`lanes`).

        Raises:
            UsageError: A scheme, port or certificate file that cannot be.
            Refused: gRPC is not installed.
        """
        grpc = grpc_package()
        self.credentials = credentials or Credentials()
        self.secure, self.address = parse(url)
        if self.credentials.token and not self.secure and not _is_here(self.address):
            raise UsageError(
                "a token would travel in the clear", remedy=f"grpcs://{self.address}, or a server on this machine"
            )
        if self.secure:
            make = functools.partial(grpc.secure_channel, self.address, self._tls(grpc), options=_OPTIONS)
        else:
            make = functools.partial(grpc.insecure_channel, self.address, options=_OPTIONS)
        self._metadata = (("authorization", f"Bearer {self.credentials.token}"),) if self.credentials.token else ()
        self._channel, self._lanes = make(), Lanes(make, self._metadata, streams=streams)
        from edgekit_runtime.remote.writer import Writer  # which needs protobuf, as gRPC does

        self._writer = Writer()
        self._calls: dict[str, Any] = {}
        self._count = itertools.count(1)

    def request(
        self,
        model: str,
        tensors: Mapping[str, np.ndarray],
        *,
        version: str = "",
        parameters: Mapping[str, Any] | None = None,
        codec: Mapping[str, str] | None = None,
        timeout_s: float = 30.0,
    ) -> Call:
        """A request, ready to be sent: `result()` does so, and waits.

        Args:
            model: Name on the server.
            tensors: By name.
            version: Empty: the server's default.
            parameters: Of the request.
            codec: By tensor name, for our own server only.
            timeout_s: Of the call, from when it is sent; it ends as unreachable then.
        """
        request_id = str(next(self._count))
        data = self._writer.request(model, version, tensors, request_id=request_id, parameters=parameters, codec=codec)
        return Call(self._lanes, data, request_id, timeout_s)

    def call(self, model: str, tensors: Mapping[str, np.ndarray], **options: Any) -> Reply:
        """Sends a request and waits. Arguments as `request` has them.

        Raises:
            Unreachable: No answer came.
            Late: The server refused for want of time.
            Refused: The server refuses this request, or its answer is not one to it.
        """
        return self.request(model, tensors, **options).result()

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
        self._lanes.close()
        self._channel.close()

    def _ask(self, method: str, message: Any, kind: Any, timeout_s: float) -> Any:
        grpc = grpc_package()
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
        if files["ca"]:
            check_authority(files["ca"], "ca")
        if files["cert"]:
            check_pair(files["cert"], files["key"], ("cert", "key"))
        read = {name: Path(path).read_bytes() if path else None for name, path in files.items()}
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


def _is_here(address: str) -> bool:
    return address.rsplit(":", 1)[0] in ("localhost", "127.0.0.1", "[::1]")
