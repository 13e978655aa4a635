"""One thread that calls back at given times, for all requests of a session.

Nearly every alarm is switched off before its time, so setting and switching off cost a request next to nothing: no
thread is started or woken. What was switched off stays in the heap; when the thread wakes for one of them, it throws
away all that come before the next that still counts, and sleeps until that one.
"""

from __future__ import annotations

import heapq
import itertools
import math
import threading
import time
from collections.abc import Callable


class Alarm:
    """A call that is due at one time."""

    __slots__ = ("_call",)

    def __init__(self, call: Callable[[], None]) -> None:
        self._call: Callable[[], None] | None = call

    @property
    def is_off(self) -> bool:
        """Was it switched off?"""
        return self._call is None

    def off(self) -> None:
        """Switches it off. A call that has begun goes on: what it does must bear that."""
        self._call = None

    def ring(self) -> None:
        """Calls, unless it was switched off."""
        call = self._call
        if call is not None:
            call()


class Alarms:
    """A context that is closed with its session. Safe from several threads."""

    def __init__(self) -> None:
        """The thread starts with the first alarm."""
        self._changed = threading.Condition()
        self._heap: list[tuple[float, int, Alarm]] = []
        self._numbers = itertools.count()
        self._wakes_s = -math.inf  # when the thread looks again by itself; it does so soon
        self._thread: threading.Thread | None = None
        self._closed = False

    def at(self, due_s: float, call: Callable[[], None]) -> Alarm:
        """Sets an alarm.

        Args:
            due_s: By `time.perf_counter`.
            call: Short, and never raises: all alarms share the thread.
        """
        alarm = Alarm(call)
        with self._changed:
            heapq.heappush(self._heap, (due_s, next(self._numbers), alarm))
            if self._thread is None and not self._closed:
                self._thread = threading.Thread(target=self._work, name="edgekit-alarms", daemon=True)
                self._thread.start()
            elif due_s < self._wakes_s:
                self._changed.notify()
        return alarm

    def close(self) -> None:
        """Ends the thread; what is not due yet is not called any more."""
        with self._changed:
            self._closed, thread = True, self._thread
            self._changed.notify()
        if thread is not None:
            thread.join()

    def _due(self) -> bool:
        """Is it time for the next one that was not switched off?"""
        while self._heap and self._heap[0][2].is_off:
            heapq.heappop(self._heap)
        return bool(self._heap) and self._heap[0][0] <= time.perf_counter()

    def _work(self) -> None:
        while True:
            with self._changed:
                while not self._closed and not self._due():
                    self._wakes_s = self._heap[0][0] if self._heap else math.inf
                    left = None if not self._heap else max(self._wakes_s - time.perf_counter(), 0.0)
                    self._changed.wait(left)
                    self._wakes_s = -math.inf
                if self._closed:
                    return
                _, _, alarm = heapq.heappop(self._heap)
            alarm.ring()
