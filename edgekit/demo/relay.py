"""A link in user space: a TCP relay with a bandwidth each way and a delay, both changed while it runs.

    client ──► read 2 KiB ──► bucket (one each way, for all connections) ──► delay line ──► server
    client ◄── delay line ◄── bucket ◄── read 2 KiB ◄────────────────────────────────────── server

A bandwidth of 0 holds everything back until it rises again: nothing is dropped, as on a link that is out of reach.
"""

from __future__ import annotations

import asyncio
import contextlib
import math
import threading
import time

_CHUNK = 2048
_BURST_S = 1e-3  # what an idle link saves up: timers are not finer than this
_LINE = 4096  # chunks on their way at most


class Bucket:
    """Tokens (bits) that come in at the bandwidth; whoever sends pays first and waits until the debt is gone."""

    def __init__(self, mbps: float) -> None:
        self._mbps = mbps
        self._bits = 0.0
        self._at_s = time.monotonic()
        self._turn = asyncio.Lock()
        self._changed = asyncio.Event()

    def set(self, mbps: float) -> None:
        """Another bandwidth, at once."""
        self._fill()
        self._mbps = mbps
        self._changed.set()

    async def take(self, size: int) -> None:
        """Returns when so many bytes have passed."""
        async with self._turn:
            self._fill()
            self._bits -= size * 8
            while self._bits < 0 or self._mbps <= 0:
                wait_s = -self._bits / (self._mbps * 1e6) if self._mbps > 0 else None
                self._changed.clear()
                with contextlib.suppress(asyncio.TimeoutError):
                    await asyncio.wait_for(self._changed.wait(), wait_s)
                self._fill()

    def _fill(self) -> None:
        now = time.monotonic()
        rate = self._mbps * 1e6
        self._bits = min(self._bits + (now - self._at_s) * rate, max(rate * _BURST_S, 0.0))
        self._at_s = now


class Relay:
    """Listens on a free port (of loopback unless told otherwise) and passes on to a server, in a thread of its own.

    A context manager.

    Attributes:
        port: Where it listens.
    """

    def __init__(self, host: str, port: int, *, mbps: float, rtt_ms: float, listen: str = "127.0.0.1") -> None:
        """Starts.

        Args:
            host: Of the server.
            port: Of the server.
            mbps: Bandwidth each way.
            rtt_ms: Half of it is the delay each way.
            listen: Address to listen on.
        """
        self._target = (host, port)
        self._delay_s = rtt_ms / 2e3
        self._mbps, self._listen_on = mbps, listen
        self._loop = asyncio.new_event_loop()
        self._ready = threading.Event()
        self._thread = threading.Thread(target=self._work, name="edgekit-relay", daemon=True)
        self._thread.start()
        self._ready.wait()

    def set(self, mbps: float) -> None:
        """Another bandwidth, both ways; 0: nothing passes."""

        def change() -> None:
            for bucket in self._buckets:
                bucket.set(mbps)

        self._loop.call_soon_threadsafe(change)

    def close(self) -> None:
        """Ends all connections."""
        if self._thread.is_alive():
            self._loop.call_soon_threadsafe(self._stop.set)
            self._thread.join()

    def __enter__(self) -> Relay:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _work(self) -> None:
        with contextlib.closing(self._loop):
            self._loop.run_until_complete(self._listen())

    async def _listen(self) -> None:
        self._stop = asyncio.Event()
        self._buckets = (Bucket(self._mbps), Bucket(self._mbps))
        self._open: set[asyncio.Task[None]] = set()
        server = await asyncio.start_server(self._connection, self._listen_on, 0)
        self.port: int = server.sockets[0].getsockname()[1]
        self._ready.set()
        await self._stop.wait()
        server.close()
        for task in self._open:
            task.cancel()
        await asyncio.gather(*self._open, return_exceptions=True)
        await asyncio.sleep(0)  # a transport closes its socket in the loop's next turn

    async def _connection(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._open.add(task)
        there: asyncio.StreamWriter | None = None
        try:
            back, there = await asyncio.open_connection(*self._target)
            up, down = self._buckets
            pumps = [
                asyncio.ensure_future(self._pump(reader, there, up)),
                asyncio.ensure_future(self._pump(back, writer, down)),
            ]
            try:  # one side that ends, ends both
                await asyncio.wait(pumps, return_when=asyncio.FIRST_COMPLETED)
            finally:
                for pump in pumps:
                    pump.cancel()
                await asyncio.gather(*pumps, return_exceptions=True)
        except OSError:
            pass  # nobody is there: the client sees its connection end
        except asyncio.CancelledError:
            pass  # the relay ends
        finally:
            for end in (writer, there):
                if end is not None:
                    end.transport.abort()
            self._open.discard(task)

    async def _pump(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, bucket: Bucket) -> None:
        """One direction, until its source ends."""
        line: asyncio.Queue[tuple[float, bytes]] = asyncio.Queue(_LINE)
        deliver = asyncio.ensure_future(self._deliver(line, writer))
        try:
            while data := await reader.read(_CHUNK):
                await bucket.take(len(data))
                await line.put((time.monotonic() + self._delay_s, data))
            await line.put((-math.inf, b""))
            await deliver
        finally:
            deliver.cancel()
            await asyncio.gather(deliver, return_exceptions=True)

    async def _deliver(self, line: asyncio.Queue[tuple[float, bytes]], writer: asyncio.StreamWriter) -> None:
        while True:
            due_s, data = await line.get()
            if not data:
                return
            await asyncio.sleep(max(due_s - time.monotonic(), 0.0))
            writer.write(data)
            await writer.drain()
