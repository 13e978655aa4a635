"""Channels: a socket (plain or TLS), and a pair of pipes (ssh)."""

from __future__ import annotations

import contextlib
import os
import select
import socket


class SocketChannel:
    """A connected socket, with or without TLS around it."""

    def __init__(self, connected: socket.socket) -> None:
        self._socket = connected
        connected.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        with contextlib.suppress(OSError):  # not TCP
            connected.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def read(self, count: int, timeout_s: float) -> bytes:
        """See `wire.Channel`."""
        self._socket.settimeout(timeout_s)
        return self._socket.recv(count)

    def write(self, data: bytes) -> None:
        """See `wire.Channel`. A receiver that takes nothing for a minute counts as lost."""
        self._socket.settimeout(60.0)
        self._socket.sendall(data)

    def close(self) -> None:
        """See `wire.Channel`."""
        with contextlib.suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)
        self._socket.close()


class PipeChannel:
    """Two file descriptors."""

    def __init__(self, reads: int, writes: int) -> None:
        self._reads, self._writes = reads, writes

    def read(self, count: int, timeout_s: float) -> bytes:
        """See `wire.Channel`."""
        if not select.select([self._reads], [], [], timeout_s)[0]:
            raise TimeoutError(f"nothing came for {timeout_s:.0f} s")
        return os.read(self._reads, count)

    def write(self, data: bytes) -> None:
        """See `wire.Channel`."""
        left = memoryview(data)
        while left:
            left = left[os.write(self._writes, left) :]

    def close(self) -> None:
        """See `wire.Channel`."""
        for descriptor in {self._reads, self._writes}:
            with contextlib.suppress(OSError):
                os.close(descriptor)
