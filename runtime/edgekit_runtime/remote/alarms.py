"""One thread that calls back at given times, for all requests of a session.

Nearly every alarm is switched off before its time, so setting and switching off must cost a request next to nothing:
waking a thread on its way would take a fifth of a round trip on loopback. So the thread is hardly ever woken:

- What was switched off stays in the heap, and is thrown away when the thread looks.
- Each alarm may ring a little late (`slack_s`), and the thread looks only when the first would nearly be too late: so
  the next alarm may be a little earlier than those before it.
- With nothing to do it looks again after as long as alarms are set for lately, for a second; then it sleeps for good.
"""

from __future__ import annotations

import heapq
import itertools
import math
import threading
import time
from collections.abc import Callable

_LINGER_S, _SHORTEST_S = 1.0, 1e-3
_EARLY = 0.8  # so much of the time left the thread sleeps: the next alarm may be a little earlier than the last


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
    """Alarms of one session, closed with it. Safe from several threads."""

    def __init__(self) -> None:
        """The thread starts with the first alarm."""
        self._lock = threading.Lock()  # taken as it is for each alarm: a condition's own methods take twice as long
        self._changed = threading.Condition(self._lock)
        self._heap: list[tuple[float, float, int, Alarm]] = []  # when it would be too late, when it is due
        self._numbers = itertools.count()
        self._wakes_s = -math.inf  # when the thread looks again by itself; -inf: it is about to
        self._set_s = -math.inf  # when the last alarm was set, and for how long
        self._ahead_s = 0.0
        self._thread: threading.Thread | None = None
        self._closed = False

    def at(self, due_s: float, call: Callable[[], None], slack_s: float = 0.0) -> Alarm:
        """Sets an alarm.

        Args:
            due_s: By `time.perf_counter`; it never rings before.
            call: Short, and never raises: all alarms share the thread.
            slack_s: So much later is early enough.
        """
        alarm, late_s, now_s = Alarm(call), due_s + slack_s, time.perf_counter()
        with self._lock:
            heapq.heappush(self._heap, (late_s, due_s, next(self._numbers), alarm))
            self._set_s, self._ahead_s = now_s, max(late_s - now_s, 0.0)
            if self._thread is None and not self._closed:
                self._thread = threading.Thread(target=self._work, name="edgekit-alarms", daemon=True)
                self._thread.start()
            elif late_s < self._wakes_s:
                self._changed.notify()
        return alarm

    def close(self) -> None:
        """Ends the thread; what is not due yet is not called any more."""
        with self._changed:
            self._closed, thread = True, self._thread
            self._changed.notify()
        if thread is not None:
            thread.join()

    def _next(self) -> Alarm | None:
        """One that is due, out of the heap; None: there is none."""
        while self._heap and self._heap[0][3].is_off:
            heapq.heappop(self._heap)
        if self._heap and self._heap[0][1] <= time.perf_counter():
            return heapq.heappop(self._heap)[3]
        return None

    def _look_again_s(self) -> float:
        now_s = time.perf_counter()
        if not self._heap:
            return now_s + max(_EARLY * self._ahead_s, _SHORTEST_S) if now_s - self._set_s < _LINGER_S else math.inf
        left_s = self._heap[0][0] - now_s
        return now_s + (_EARLY * left_s if left_s > _SHORTEST_S else left_s)

    def _work(self) -> None:
        while True:
            with self._changed:
                while (alarm := self._next()) is None and not self._closed:
                    self._wakes_s = self._look_again_s()
                    left = max(self._wakes_s - time.perf_counter(), 0.0)
                    self._changed.wait(None if left == math.inf else left)
                    self._wakes_s = -math.inf
                if self._closed or alarm is None:
                    return
            alarm.ring()
