"""One call to a V2 server: how it is sent and given up, what its answer is, and what an error of gRPC means here."""

from __future__ import annotations

import dataclasses
import threading
import time
from collections.abc import Callable, Mapping
from typing import Any

from edgekit_runtime.engines.base import Arrays
from edgekit_runtime.errors import Refused, Unreachable

RETRY_AFTER = "retry-after-ms"
SERVICE = "/inference.GRPCInferenceService/"


@dataclasses.dataclass(frozen=True)
class Reply:
    """An answer of the server.

    Attributes:
        tensors: By name.
        rows: Parameters of the answer as they came; those that are asked for are read.
        total_ms: Round trip.
        residence_ms: Of it in the server, as it says; 0 where it does not.
        queue_ms: Of that, waiting.
        bytes_up: Of the request message.
        bytes_down: Of the answer message.
    """

    tensors: Arrays
    rows: Mapping[str, Any]
    total_ms: float
    residence_ms: float
    queue_ms: float
    bytes_up: int
    bytes_down: int

    @property
    def network_ms(self) -> float:
        """Round trip less the server's residence time."""
        return max(self.total_ms - self.residence_ms, 0.0)

    @property
    def server_ms(self) -> float:
        """Time in the server, waiting left out."""
        return max(self.residence_ms - self.queue_ms, 0.0)

    def parameter(self, name: str) -> Any:
        """The plain value of one parameter; None where the server does not give it."""
        return _parameter(self.rows, name)

    def number(self, name: str) -> float:
        """A numeric parameter; 0 where the server does not give it."""
        return _number(self.rows, name)


class Late(Refused):
    """The server had no time for it: overloaded, or the deadline has passed. Not its fault and not ours."""

    def __init__(self, message: str, retry_after_s: float | None) -> None:
        super().__init__(message, remedy="the local answer serves; the server is left alone for a while")
        self.retry_after_s = retry_after_s


class Lanes:
    """Channels to one server, one for each call that is out at the same time; gRPC joins them to one connection.

    A blocking call is the shortest way there and back, and gRPC ends it from outside only with its channel. So each
    has a channel of its own, which is closed when the call is given up, and else serves the next.
    """

    def __init__(self, make: Callable[[], Any]) -> None:
        """Makes none yet.

        Args:
            make: A channel with everything of ours in it.
        """
        self._make = make
        self._lock = threading.Lock()
        self._free: list[Lane] = []
        self._all: set[Lane] = set()
        self._closed = False

    def take(self) -> Lane:
        """One that nobody else uses; the one used last, which is still in the caches.

        Raises:
            Unreachable: They are closed.
        """
        with self._lock:
            if self._closed:
                raise Unreachable("the channel is closed", remedy="open the session again")
            if self._free:
                return self._free.pop()
            lane = Lane(self._make())
            self._all.add(lane)
            return lane

    def give(self, lane: Lane) -> None:
        """Gives back one whose call has ended."""
        with self._lock:
            self._free.append(lane)

    def drop(self, lane: Lane) -> None:
        """Closes one, and ends what is on it."""
        with self._lock:
            self._all.discard(lane)
        lane.close()

    def close(self) -> None:
        """Closes all, and ends what is on them."""
        with self._lock:
            self._closed = True
            lanes = tuple(self._all)
        for lane in lanes:
            lane.close()


class Lane:
    """One channel and its ModelInfer."""

    def __init__(self, channel: Any) -> None:
        from edgekit_runtime.remote.generated import open_inference_pb2 as pb

        self.close = channel.close
        self.ask = channel.unary_unary(
            SERVICE + "ModelInfer",
            request_serializer=pb.ModelInferRequest.SerializeToString,
            response_deserializer=pb.ModelInferResponse.FromString,
        )


class Call:
    """A request that can be sent once, by the thread that wants its answer: no other is woken for it.

    result()   sends and reads in the caller's thread
    cancel()   from another one: `result` ends at once
    """

    def __init__(self, lanes: Lanes, message: Any, request_id: str, timeout_s: float, metadata: Any) -> None:
        self._lanes, self._message, self._id = lanes, message, request_id
        self._timeout_s, self._metadata = timeout_s, metadata
        self._lock = threading.Lock()
        self._lane: Lane | None = None
        self._cancelled = False

    def cancel(self) -> None:
        """Gives it up; nothing happens when it has ended."""
        with self._lock:
            self._cancelled = True
            lane, self._lane = self._lane, None
        if lane is not None:
            self._lanes.drop(lane)

    def result(self) -> Reply:
        """The answer.

        Raises:
            Unreachable: No answer came.
            Late: The server refused for want of time.
            Refused: The server refuses this request, or its answer is not one to it.
        """
        grpc = grpc_package()
        lane = self._take()
        start = time.perf_counter()
        try:
            answer = lane.ask(self._message, timeout=self._timeout_s, metadata=self._metadata)
            total_ms = (time.perf_counter() - start) * 1e3
        except grpc.RpcError as error:
            raise translated(error) from error
        except ValueError as error:  # of gRPC: the channel was closed a moment before
            raise Unreachable(f"the channel is closed: {error}", remedy="the local answer serves") from error
        finally:
            with self._lock:
                ours, self._lane = self._lane is lane, None
            if ours:
                self._lanes.give(lane)
        return reply_of(answer, self._id, total_ms, self._message.ByteSize())

    def _take(self) -> Lane:
        lane = self._lanes.take()
        with self._lock:
            if not self._cancelled:
                self._lane = lane
                return lane
        self._lanes.give(lane)
        raise Unreachable("the request was given up before it was sent", remedy="the local answer serves")


def reply_of(answer: Any, request_id: str, total_ms: float, bytes_up: int) -> Reply:
    """The answer to a request as numpy, checked.

    Raises:
        Refused: It is to another request, or its tensors cannot be.
    """
    from edgekit_runtime.remote import messages

    if answer.id != request_id:
        raise Refused(f"the answer is to {answer.id[:40]!r}, not to this request", remedy="look at the server")
    rows = answer.parameters
    residence_ms, queue_ms = _number(rows, "residence_ms"), _number(rows, "queue_ms")
    return Reply(messages.read_response(answer), rows, total_ms, residence_ms, queue_ms, bytes_up, answer.ByteSize())


def _parameter(rows: Mapping[str, Any], name: str) -> Any:
    from edgekit_runtime.remote.messages import read_parameter

    row = rows.get(name)
    return None if row is None else read_parameter(row)


def _number(rows: Mapping[str, Any], name: str) -> float:
    value = _parameter(rows, name)
    return float(value) if isinstance(value, (int, float)) else 0.0


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
