"""Requests of several clients run together; more than can be answered in time are refused at the door.

    queue of one model   a4 a6 a4 b4 a6 …      the number: a length; only what has the same sizes can be joined
    a worker is free     a4 + a4 run as one batch, what stood between them keeps its place

A batch begins when a worker is free: the oldest request and what else fits it (same sizes but for the batch axis), up
to `most` samples. When less waits it stays open until its oldest request has waited `wait_ms`, or all that were seen
together lately are here again: a single client never waits for nobody. While another batch of the model runs, the time
is waited out: few large batches cost less than many small ones. All models share the workers, each batch takes one.

Admission knows how long the queue will take from what the model's runs took: a request that would wait longer than
`limit_ms`, or than its own deadline leaves, is refused with the time after which it is worth trying again.
"""

from __future__ import annotations

import asyncio
import dataclasses
import itertools
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Protocol, TypeVar

import numpy as np

from edgekit_runtime.engines.base import Arrays

_COMPANY_S = 0.2  # so long those are expected back that were inside together
_AT_ONCE_MS = 0.5  # of a request as last seen


_T = TypeVar("_T")


class Runs(Protocol):
    """What a batcher needs of a model."""

    @property
    def batch(self) -> str:
        """Symbol of the batch axis; empty: requests cannot be joined."""

    def run(self, tensors: Mapping[str, np.ndarray], /) -> Arrays:
        """Runs one request or a batch of them."""


class Queue(Protocol):
    """What the front needs of whatever runs a model: `Batcher` here, `on_ray.Handle` there."""

    @property
    def length(self) -> int:
        """Requests that wait."""

    async def submit(self, tensors: Arrays, deadline_ms: float | None = None) -> Answer:
        """Waits for the answer, or raises Overloaded."""

    async def close(self) -> None:
        """Ends it; what waits is refused."""


class Overloaded(Exception):
    """The request would wait too long."""

    def __init__(self, wait_ms: float, late: bool) -> None:
        super().__init__(f"it would wait {wait_ms:.0f} ms")
        self.wait_ms, self.late = wait_ms, late


@dataclasses.dataclass
class Answer:
    """Outputs of one request, how long it waited and who stood before it."""

    tensors: Arrays
    queue_ms: float
    queue_length: int
    batch: int


@dataclasses.dataclass
class _Waiting:
    tensors: Arrays
    key: tuple[object, ...]
    samples: int
    arrived: float
    before: int
    future: asyncio.Future[Answer]


class Workers:
    """Threads that run batches, shared by the models of a server."""

    def __init__(self, count: int) -> None:
        self.count = count
        self._executor = ThreadPoolExecutor(count, thread_name_prefix="edgekit-run")
        self._free = asyncio.Semaphore(count)

    async def taken(self) -> None:
        """Waits for a free one; `run` gives it back."""
        await self._free.acquire()

    def release(self) -> None:
        """Gives back what was taken and not used."""
        self._free.release()

    async def run(self, call: Callable[[], _T]) -> _T:
        """Runs in the thread that was taken."""
        try:
            return await asyncio.get_running_loop().run_in_executor(self._executor, call)
        finally:
            self._free.release()

    def close(self) -> None:
        """Ends the threads when they have done what they are at."""
        self._executor.shutdown()


class Batcher:
    """The queue of one model."""

    def __init__(self, model: Runs, workers: Workers, *, most: int, wait_ms: float, limit_ms: float) -> None:
        """Makes a queue.

        Args:
            model: What runs.
            workers: Where it runs.
            most: Samples of one batch; 1: none are joined.
            wait_ms: A batch stays open for others at most this long.
            limit_ms: Longest wait that is admitted.
        """
        self.model = model
        self._workers = workers
        self._most, self._wait_s, self._limit_ms = most, wait_ms / 1e3, limit_ms
        self._queue: deque[_Waiting] = deque()
        self._arrived = asyncio.Event()
        self._sample_ms = 0.0  # of one sample in a batch, as last seen
        self._ends: dict[int, float] = {}  # of batches that run: when they are expected to end
        self._numbers = itertools.count()
        self._inside = 0  # requests that wait or run
        self._together, self._seen_s = 1, 0.0  # most of them that were inside at once lately, and when
        self._task: asyncio.Task[None] | None = None
        self._runs: set[asyncio.Task[None]] = set()

    @property
    def length(self) -> int:
        """Requests that wait."""
        return len(self._queue)

    def wait_ms(self) -> float:
        """Expected wait of a request that arrives now."""
        queued = sum(row.samples for row in self._queue) * self._sample_ms / self._workers.count
        if len(self._ends) < self._workers.count:
            return queued
        return queued + max(min(self._ends.values()) - time.monotonic(), 0.0) * 1e3

    async def submit(self, tensors: Arrays, deadline_ms: float | None = None) -> Answer:
        """Waits for the answer.

        Args:
            tensors: Checked.
            deadline_ms: Time that is left for the answer; None: any.

        Raises:
            Overloaded: It would wait too long.
        """
        wait = self.wait_ms()
        late = deadline_ms is not None and wait + self._sample_ms > deadline_ms
        if late or wait > self._limit_ms:
            raise Overloaded(wait, late)
        if not self._inside and 0.0 < self._sample_ms * samples_of(self.model, tensors) < _AT_ONCE_MS:
            # Handing so little to another thread and back takes longer than the work itself.
            return self._at_once(tensors)
        if self._task is None:
            self._task = asyncio.get_running_loop().create_task(self._work())
        samples = samples_of(self.model, tensors)
        key = key_of(tensors)
        future: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()
        now = time.monotonic()
        self._queue.append(_Waiting(tensors, key, samples, now, len(self._queue), future))
        self._inside += 1
        if self._inside >= self._together or now - self._seen_s > _COMPANY_S:
            self._together, self._seen_s = self._inside, now
        self._arrived.set()
        try:
            return await future
        finally:
            self._inside -= 1

    def _at_once(self, tensors: Arrays) -> Answer:
        start, samples = time.monotonic(), samples_of(self.model, tensors)
        found = self.model.run(tensors)
        self._learn((time.monotonic() - start) * 1e3 / samples)
        return Answer(found, 0.0, 0, samples)

    def _learn(self, sample_ms: float) -> None:
        self._sample_ms = sample_ms if not self._sample_ms else 0.8 * self._sample_ms + 0.2 * sample_ms

    async def close(self) -> None:
        """Ends the worker; what waits is refused."""
        if self._task is not None:
            self._task.cancel()
        for row in self._queue:
            row.future.cancel()

    async def _work(self) -> None:
        while True:
            while not self._queue:
                self._arrived.clear()
                await self._arrived.wait()
            await self._workers.taken()
            try:
                batch = await self._gather()
            except BaseException:
                self._workers.release()
                raise
            if not batch:
                self._workers.release()
                continue
            task = asyncio.get_running_loop().create_task(self._run(batch))
            self._runs.add(task)
            task.add_done_callback(self._runs.discard)

    async def _gather(self) -> list[_Waiting]:
        """The next batch, taken from the queue."""
        batch = self._take([])
        until = batch[0].arrived + self._wait_s if batch and self.model.batch else 0.0
        while sum(row.samples for row in batch) < self._most and (left := until - time.monotonic()) > 0:
            if self._together == 1 or (self._inside >= self._together and not self._ends):
                break
            self._arrived.clear()
            try:
                await asyncio.wait_for(self._arrived.wait(), left)
            except asyncio.TimeoutError:
                break
            batch = self._take(batch)
        return batch

    def _take(self, batch: list[_Waiting]) -> list[_Waiting]:
        """Moves from the queue what fits to the oldest; those whose client has left are dropped."""
        most = self._most if self.model.batch else 1
        samples = sum(row.samples for row in batch)
        left: deque[_Waiting] = deque()
        while self._queue and samples < most:
            row = self._queue.popleft()
            if row.future.done():
                continue
            if batch and (row.key != batch[0].key or samples + row.samples > most):
                left.append(row)
                continue
            batch.append(row)
            samples += row.samples
        left.extend(self._queue)
        self._queue = left
        return batch

    async def _run(self, batch: list[_Waiting]) -> None:
        start, number = time.monotonic(), next(self._numbers)
        samples = sum(row.samples for row in batch)
        self._ends[number] = start + samples * self._sample_ms / 1e3
        try:
            found = await self._workers.run(lambda: run_joined(self.model, [row.tensors for row in batch]))
        except Exception as error:  # noqa: BLE001 - whatever the engine raises belongs to these requests alone
            for row in batch:
                if not row.future.done():
                    row.future.set_exception(error)
            return
        finally:
            del self._ends[number]
        self._learn((time.monotonic() - start) * 1e3 / samples)
        for row, tensors in zip(batch, found, strict=True):
            if not row.future.done():
                row.future.set_result(Answer(tensors, (start - row.arrived) * 1e3, row.before, samples))


def samples_of(model: Runs, tensors: Arrays) -> int:
    """Samples of one request; 1 where requests cannot be joined."""
    return int(next(iter(tensors.values())).shape[0]) if model.batch else 1


def key_of(tensors: Arrays) -> tuple[object, ...]:
    """What two requests must have in common to be joined: names, dtypes, and shapes but for the first axis."""
    return tuple((name, array.dtype.str, array.shape[1:]) for name, array in sorted(tensors.items()))


def run_joined(model: Runs, requests: Sequence[Arrays]) -> list[Arrays]:
    """Runs requests of one key as one batch, and gives each its own rows."""
    if len(requests) == 1:
        return [model.run(requests[0])]
    whole = {name: np.concatenate([row[name] for row in requests]) for name in requests[0]}
    outputs = model.run(whole)
    edges = np.cumsum([samples_of(model, row) for row in requests])[:-1]
    parts = {name: np.split(array, edges) for name, array in outputs.items()}
    return [{name: rows[place] for name, rows in parts.items()} for place in range(len(requests))]
