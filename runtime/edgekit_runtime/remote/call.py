"""One call to a V2 server: how it is sent and given up, and what its answer is."""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping
from typing import Any

import msgspec

from edgekit_runtime.engines.base import Arrays
from edgekit_runtime.errors import Refused, Unreachable
from edgekit_runtime.remote import messages
from edgekit_runtime.remote.lanes import Lane, Lanes


class Reply(msgspec.Struct, frozen=True, eq=False):
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


class Call:
    """A request that can be sent once, by the thread that wants its answer: no other is woken for it.

    result()   sends and reads in the caller's thread
    cancel()   from another one: `result` ends at once
    """

    def __init__(self, lanes: Lanes, data: bytes, request_id: str, timeout_s: float) -> None:
        self._lanes, self._data, self._id = lanes, data, request_id
        self._timeout_s = timeout_s
        self._lock = threading.Lock()
        self._lane: Lane | None = None
        self._cancelled = False

    @property
    def bytes_up(self) -> int:
        """Of the request message."""
        return len(self._data)

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
        lane = self._take()
        start = time.perf_counter()
        try:
            answer, size = lane.ask(self._data, self._timeout_s)
            total_ms = (time.perf_counter() - start) * 1e3
        finally:
            with self._lock:
                ours, self._lane = self._lane is lane, None
            if ours:
                self._lanes.give(lane)
        return reply_of(answer, self._id, total_ms, len(self._data), size)

    def _take(self) -> Lane:
        lane = self._lanes.take()
        with self._lock:
            if not self._cancelled:
                self._lane = lane
                return lane
        self._lanes.give(lane)
        raise Unreachable("the request was given up before it was sent", remedy="the local answer serves")


def reply_of(answer: Any, request_id: str, total_ms: float, bytes_up: int, bytes_down: int) -> Reply:
    """The answer to a request as numpy, checked.

    Raises:
        Refused: It is to another request, or its tensors cannot be.
    """
    if answer.id != request_id:
        raise Refused(f"the answer is to {answer.id[:40]!r}, not to this request", remedy="look at the server")
    rows = answer.parameters
    residence_ms, queue_ms = _number(rows, "residence_ms"), _number(rows, "queue_ms")
    return Reply(messages.read_response(answer), rows, total_ms, residence_ms, queue_ms, bytes_up, bytes_down)


def _parameter(rows: Mapping[str, Any], name: str) -> Any:
    row = rows.get(name)
    return None if row is None else messages.read_parameter(row)


def _number(rows: Mapping[str, Any], name: str) -> float:
    row = rows.get(name)
    # Those that are not set are 0; our own server writes the first.
    return 0.0 if row is None else float(row.double_param or row.int64_param or row.uint64_param)
