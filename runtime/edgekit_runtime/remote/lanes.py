"""Ways to one server: a channel for each call that is out at the same time, and on it a stream, or unary calls.

    unary    ModelInfer         any V2 server                        a call of gRPC for each request
    stream   ModelStreamInfer   a server that is known to be ours    one call of gRPC for many requests, one after the
                                                                     other: two thirds of the round trip on loopback

A stream carries one request at a time, so an answer belongs to what was sent last, and giving a request up ends the
stream as it would end a call. A request that is refused ends it, too: with the status that the unary call would have,
so errors mean the same on both. A stream that has ended is opened anew for the next request; none grows old, so that a
server behind a balancer is not held for good. A server that has no streams is asked by unary calls from then on.
"""

from __future__ import annotations

import math
import queue
import threading
import time
from collections.abc import Callable
from typing import Any

from edgekit_runtime.errors import Refused, Unreachable
from edgekit_runtime.remote.alarms import Alarms
from edgekit_runtime.remote.grpc_errors import Late, grpc_package, translated

SERVICE = "/inference.GRPCInferenceService/"
_LIFE_S = 60.0  # of a stream; the server ends one that was idle for twice as long


class Lanes:
    """Channels to one server, one for each call that is out at the same time; gRPC joins them to one connection.

    A blocking call is ended from outside only with its channel. So each has a channel of its own, which is closed when
    the call is given up, and else serves the next.
    """

    def __init__(self, make: Callable[[], Any], metadata: Any = (), *, streams: bool = False) -> None:
        """Makes none yet.

        Args:
            make: A channel with everything of ours in it.
            metadata: Of every call.
            streams: The server is ours: requests go by streams.
        """
        from google.protobuf.message import DecodeError

        from edgekit_runtime.remote.generated import open_inference_pb2 as pb

        self._make, self.metadata, self.streams = make, metadata, streams
        self.grpc, self.broken = grpc_package(), DecodeError
        self.kinds = {
            kind.DESCRIPTOR.name: kind.FromString for kind in (pb.ModelInferResponse, pb.ModelStreamInferResponse)
        }
        self.alarms = Alarms()  # of streams, which have no time limit for one answer of their own
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
            lane = Lane(self._make(), self)
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
        self.alarms.close()


class Lane:
    """One channel, used by one request at a time."""

    def __init__(self, channel: Any, lanes: Lanes) -> None:
        self._channel, self._lanes = channel, lanes
        self._unary = channel.unary_unary(SERVICE + "ModelInfer")
        self._open = channel.stream_stream(SERVICE + "ModelStreamInfer")
        self._stream: _Stream | None = None
        self._closed = False
        self._lock = threading.Lock()  # of what follows
        self._due_s = self._rings_s = math.inf  # when the answer is too late; when the next alarm rings
        self._expired = False

    def close(self) -> None:
        """Ends the channel and what is on it."""
        self._closed = True
        self._channel.close()
        if self._stream is not None:
            self._stream.end()

    def ask(self, data: bytes, timeout_s: float) -> tuple[Any, int]:
        """Sends a request and waits.

        Args:
            data: A `ModelInferRequest`.
            timeout_s: Of the whole.

        Returns:
            A `ModelInferResponse`, and the bytes that came.

        Raises:
            Unreachable: No answer came.
            Late: The server refused for want of time, or the time is over.
            Refused: The server refuses this request, or its answer cannot be read.
        """
        grpc = self._lanes.grpc
        self._expired = False
        try:
            if not self._lanes.streams:
                return self._read("ModelInferResponse", self._unary(data, timeout_s, self._lanes.metadata))
            try:
                answer, size = self._read("ModelStreamInferResponse", self._over_stream(data, timeout_s))
            except grpc.RpcError as error:
                if error.code() is not grpc.StatusCode.UNIMPLEMENTED:
                    raise
                self._lanes.streams = False
                return self.ask(data, timeout_s)
        except grpc.RpcError as error:
            if self._expired:
                raise Late("the deadline has passed", None) from error
            raise translated(error) from error
        except ValueError as error:  # of gRPC: the channel was closed a moment before
            raise Unreachable(f"the channel is closed: {error}", remedy="the local answer serves") from error
        if answer.error_message:
            raise Refused(f"the server refuses the request: {answer.error_message[:500]}", remedy="look at the server")
        return answer.infer_response, size

    def _read(self, kind: str, data: bytes) -> tuple[Any, int]:
        try:
            return self._lanes.kinds[kind](data), len(data)
        except self._lanes.broken as error:
            raise Refused(f"the answer is no {kind}: {error}", remedy="look at the server") from error

    def _over_stream(self, data: bytes, timeout_s: float) -> bytes:
        now_s = time.perf_counter()
        stream = self._stream
        if stream is None or not stream.good(now_s):
            stream = self._renewed(now_s)
        self._limit(now_s + timeout_s)
        try:
            return stream.ask(data)
        finally:
            self._due_s = math.inf

    def _renewed(self, now_s: float) -> _Stream:
        if self._stream is not None:
            self._stream.end()
        stream = self._stream = _Stream(self._open, self._lanes.metadata, now_s)
        if self._closed:  # meanwhile, by another thread, which has not seen this one
            stream.end()
        return stream

    def _limit(self, due_s: float) -> None:
        """One alarm is enough for many requests: it looks when it rings whose turn it is, and is set again."""
        with self._lock:
            self._due_s = due_s
            early = due_s < self._rings_s
            if early:
                self._rings_s = due_s
        if early:
            self._lanes.alarms.at(due_s, self._rung)

    def _rung(self) -> None:
        """In the alarms' thread."""
        with self._lock:
            due_s, self._rings_s = self._due_s, math.inf
            self._expired = due_s <= time.perf_counter()
            if not self._expired and due_s < math.inf:
                self._rings_s = due_s
        if self._expired and self._stream is not None:
            self._stream.end()
        elif due_s < math.inf:
            self._lanes.alarms.at(due_s, self._rung)


class _Stream:
    """One `ModelStreamInfer`. gRPC's own thread takes the requests from a queue, and ends with it."""

    def __init__(self, call: Any, metadata: Any, now_s: float) -> None:
        self._requests: queue.SimpleQueue[bytes | None] = queue.SimpleQueue()
        self._replies = call(iter(self._requests.get, None), metadata=metadata)
        self._old_s = now_s + _LIFE_S

    def good(self, now_s: float) -> bool:
        """Can it take another request?"""
        return now_s < self._old_s and bool(self._replies.is_active())

    def ask(self, data: bytes) -> bytes:
        self._requests.put(data)
        try:
            return next(self._replies)  # type: ignore[no-any-return]
        except StopIteration:
            raise Unreachable("the server has ended the stream", remedy="the local answer serves") from None

    def end(self) -> None:
        """Ends it, and what is on it."""
        self._requests.put(None)
        self._replies.cancel()
