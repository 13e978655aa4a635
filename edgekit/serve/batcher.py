"""Requests of several clients run together; more than can be answered in time are refused at the door.

A batch begins when a worker is free: it takes what waits and fits (same sizes but for the batch axis), up to `most`
samples; when less waits it stays open for at most `wait_ms`, but only for a client that has company: a single one never
waits for nobody. Admission
knows how long the queue will take from what the model's runs took: a request that would wait longer than `limit_ms`, or
than its own deadline leaves, is refused with the time after which it is worth trying again.
"""

from __future__ import annotations

import asyncio
import dataclasses
import time
from collections import deque
from concurrent.futures import Executor

import numpy as np

from edgekit.serve.models import Model
from edgekit_runtime.engines.base import Arrays

_COMPANY_S = 0.2
_AT_ONCE_MS = 0.5  # of a request as last seen


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


class Batcher:
    """The queue of one model."""

    def __init__(self, model: Model, executor: Executor, *, most: int, wait_ms: float, limit_ms: float) -> None:
        """Makes a queue.

        Args:
            model: What runs.
            executor: Where it runs.
            most: Samples of one batch; 1: none are joined.
            wait_ms: A batch stays open for others at most this long.
            limit_ms: Longest wait that is admitted.
        """
        self.model = model
        self._executor = executor
        self._most, self._wait_s, self._limit_ms = most, wait_ms / 1e3, limit_ms
        self._queue: deque[_Waiting] = deque()
        self._arrived = asyncio.Event()
        self._sample_ms = 0.0  # of one sample in a batch, as last seen
        self._busy_until = 0.0
        self._running = 0
        self._company_s = -_COMPANY_S  # when a request last met another
        self._task: asyncio.Task[None] | None = None

    @property
    def length(self) -> int:
        """Requests that wait."""
        return len(self._queue)

    def wait_ms(self) -> float:
        """Expected wait of a request that arrives now."""
        queued = sum(row.samples for row in self._queue) * self._sample_ms
        return queued + max(self._busy_until - time.monotonic(), 0.0) * 1e3

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
        alone = not self._queue and not self._running
        if not alone:
            self._company_s = time.monotonic()
        elif 0.0 < self._sample_ms * self._samples(tensors) < _AT_ONCE_MS:
            # Handing so little to another thread and back takes longer than the work itself.
            return Answer(self.model.run(tensors), 0.0, 0, self._samples(tensors))
        if self._task is None:
            self._task = asyncio.get_running_loop().create_task(self._work())
        samples = self._samples(tensors)
        key = tuple((name, array.dtype.str, array.shape[1:]) for name, array in sorted(tensors.items()))
        future: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()
        self._queue.append(_Waiting(tensors, key, samples, time.monotonic(), len(self._queue), future))
        self._arrived.set()
        return await future

    def _samples(self, tensors: Arrays) -> int:
        return int(next(iter(tensors.values())).shape[0]) if self.model.batch else 1

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
            batch = await self._gather()
            if batch:
                await self._run(batch)

    async def _gather(self) -> list[_Waiting]:
        batch, samples = self._take([], 0)
        open_to_more = self._most > samples and bool(self.model.batch) and self._wait_s > 0
        if batch and open_to_more and time.monotonic() - self._company_s < _COMPANY_S:
            self._arrived.clear()
            try:
                await asyncio.wait_for(self._arrived.wait(), self._wait_s)
            except asyncio.TimeoutError:
                return batch
            batch, _ = self._take(batch, samples)
        return batch

    def _take(self, batch: list[_Waiting], samples: int) -> tuple[list[_Waiting], int]:
        """Moves from the queue what fits to the first; those whose client has left are dropped."""
        most = self._most if self.model.batch else 1
        while self._queue:
            row = self._queue[0]
            if row.future.done():
                self._queue.popleft()
                continue
            if batch and (row.key != batch[0].key or samples + row.samples > most):
                break
            batch.append(self._queue.popleft())
            samples += row.samples
            if samples >= most:
                break
        return batch, samples

    async def _run(self, batch: list[_Waiting]) -> None:
        start = time.monotonic()
        samples = sum(row.samples for row in batch)
        self._running = len(batch)
        self._busy_until = start + samples * self._sample_ms / 1e3
        try:
            found = await asyncio.get_running_loop().run_in_executor(self._executor, self._joined, batch)
        except Exception as error:  # noqa: BLE001 - whatever the engine raises belongs to these requests alone
            for row in batch:
                if not row.future.done():
                    row.future.set_exception(error)
            self._running = 0
            return
        self._running = 0
        took = (time.monotonic() - start) * 1e3 / samples
        self._sample_ms = took if not self._sample_ms else 0.8 * self._sample_ms + 0.2 * took
        self._busy_until = 0.0
        for row, tensors in zip(batch, found, strict=True):
            if not row.future.done():
                row.future.set_result(Answer(tensors, (start - row.arrived) * 1e3, row.before, samples))

    def _joined(self, batch: list[_Waiting]) -> list[Arrays]:
        if len(batch) == 1:
            return [self.model.run(batch[0].tensors)]
        whole = {name: np.concatenate([row.tensors[name] for row in batch]) for name in batch[0].tensors}
        outputs = self.model.run(whole)
        edges = np.cumsum([row.samples for row in batch])[:-1]
        parts = {name: np.split(array, edges) for name, array in outputs.items()}
        return [{name: rows[place] for name, rows in parts.items()} for place in range(len(batch))]
