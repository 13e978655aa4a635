"""One call to a V2 server: who reads its answer, what it is, and what an error of gRPC means here."""

from __future__ import annotations

import dataclasses
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from edgekit_runtime.engines.base import Arrays
from edgekit_runtime.errors import Refused, Unreachable

RETRY_AFTER = "retry-after-ms"


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
    """A request on its way. It is driven by the thread that waits for its answer, or by one of the client's own.

        result()      the caller's thread reads the answer itself: no other thread is woken
        then(call)    a thread of the client reads it, which is there already, and calls back

    gRPC's own futures start a thread whenever a channel was idle, which costs as much as a third of a round trip.
    """

    def __init__(
        self, stream: Any, started: float, bytes_up: int, request_id: str, workers: ThreadPoolExecutor
    ) -> None:
        self._stream, self._started, self._bytes_up, self._id = stream, started, bytes_up, request_id
        self._workers = workers
        self._lock = threading.Lock()
        self._taken = False  # a thread reads the answer, or has read it
        self._done = threading.Event()
        self._calls: list[Callable[[], None]] = []
        self._answer: Any = None
        self._error: Exception | None = None
        self._total_ms = 0.0

    def then(self, call: Callable[[], None]) -> None:
        """Calls back once, in a thread of the client, when it has ended in whatever way; at once when it has."""
        with self._lock:
            ended = self._done.is_set()
            if not ended:
                self._calls.append(call)
        if ended:
            call()
        else:
            self._hand_over()

    def cancel(self) -> None:
        """Gives it up."""
        self._stream.cancel()

    def result(self, timeout_s: float | None = None) -> Reply:
        """The answer.

        Args:
            timeout_s: Longest wait; None: until the call ends, by its own timeout at the latest.

        Raises:
            Unreachable: No answer came.
            Late: The server refused for want of time.
            Refused: The server refuses this request, or its answer is not one to it.
        """
        if not self._done.is_set():
            if timeout_s is None and self._take():
                self._drive()
            else:
                self._hand_over()
                if not self._done.wait(timeout_s):
                    raise Unreachable("no answer came in time", remedy="the local answer serves")
        if self._error is not None:
            raise self._error
        return reply_of(self._answer, self._id, self._total_ms, self._bytes_up)

    def _take(self) -> bool:
        """Is it this thread that reads the answer?"""
        with self._lock:
            first, self._taken = not self._taken, True
        return first

    def _hand_over(self) -> None:
        if self._take():
            try:
                self._workers.submit(self._drive)
            except RuntimeError:  # the client is closed, and with it the call: it ends at once
                self._drive()

    def _drive(self) -> None:
        """Reads the answer and the status behind it."""
        import grpc

        try:
            self._answer = next(self._stream)
            self._total_ms = (time.perf_counter() - self._started) * 1e3
            next(self._stream, None)
        except grpc.RpcError as error:
            self._error = translated(error)
            self._error.__cause__ = error
        except StopIteration:
            self._error = Unreachable("the server ended the call without an answer", remedy="look at the server")
        except Exception as error:  # noqa: BLE001 - bytes that are no message, or a fault of gRPC: whoever waits is told
            self._error = Unreachable(f"the answer cannot be read: {error}", remedy="look at the server")
            self._error.__cause__ = error
        with self._lock:
            self._done.set()
            calls, self._calls = self._calls, []
        for call in calls:
            call()


def reply_of(answer: Any, request_id: str, total_ms: float, bytes_up: int) -> Reply:
    """The answer to a request as numpy, checked.

    Raises:
        Refused: It is to another request, or its tensors cannot be.
    """
    from edgekit_runtime.remote import messages

    if answer.id != request_id:
        raise Refused(f"the answer is to {answer.id[:40]!r}, not to this request", remedy="look at the server")
    parameters = messages.read_parameters(answer.parameters)
    residence = parameters.get("residence_ms", 0.0)
    network_ms = max(total_ms - (float(residence) if isinstance(residence, (int, float)) else 0.0), 0.0)
    return Reply(messages.read_response(answer), parameters, network_ms, bytes_up, answer.ByteSize())


def translated(error: Any) -> Exception:
    """What an error of gRPC means here."""
    grpc = grpc_package()
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


def grpc_package() -> Any:
    """gRPC, imported when a server is named.

    Raises:
        Refused: It is not installed.
    """
    try:
        import grpc
    except ModuleNotFoundError as error:
        raise Refused("a server needs gRPC", remedy="pip install 'edgekit[remote]'") from error
    return grpc
