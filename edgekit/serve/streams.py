"""Streams that are open: those that wait for a request are ended when the server stops, or when nobody uses them."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import math
import time
from collections.abc import Iterator

import grpc

STOPPING = "the server is being stopped"
_IDLE_S, _LOOK_S = 120.0, 15.0  # a client of ours opens a stream anew after half of that


@dataclasses.dataclass(eq=False)
class Stream:
    """One that is open.

    Attributes:
        context: Of gRPC.
        idle_s: Since when it waits for a request, by `time.monotonic`; infinite while one is worked on.
    """

    context: grpc.aio.ServicerContext
    idle_s: float


class Streams:
    """All of a server; used in its event loop."""

    def __init__(self) -> None:
        self._open: set[Stream] = set()
        self._sweeper: asyncio.Task[None] | None = None

    def __len__(self) -> int:
        return len(self._open)

    @contextlib.contextmanager
    def one(self, context: grpc.aio.ServicerContext) -> Iterator[Stream]:
        """A stream while it is open."""
        row = Stream(context, time.monotonic())
        self._open.add(row)
        if self._sweeper is None:
            self._sweeper = asyncio.get_running_loop().create_task(self._sweep())
        try:
            yield row
        finally:
            self._open.discard(row)

    async def end(self) -> None:
        """Ends those that wait for a request, and looks after the others no more."""
        if self._sweeper is not None:
            self._sweeper.cancel()
        await self.end_idle(math.inf, STOPPING)

    async def end_idle(self, before_s: float, why: str) -> None:
        """Ends those that wait for a request since before a time."""
        for row in [row for row in self._open if row.idle_s < before_s]:
            if row.idle_s < before_s:  # still: others were ended meanwhile
                with contextlib.suppress(grpc.aio.AbortError, grpc.aio.BaseError):  # which is how gRPC ends it
                    await row.context.abort(grpc.StatusCode.UNAVAILABLE, why)

    async def _sweep(self) -> None:
        while True:
            await asyncio.sleep(_LOOK_S)
            await self.end_idle(time.monotonic() - _IDLE_S, "the stream was idle")
