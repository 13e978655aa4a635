from __future__ import annotations

import contextlib
import socket
import threading
import time
from collections.abc import Iterator

import pytest

from edgekit.demo.relay import Relay

pytestmark = pytest.mark.alone


@pytest.fixture
def echo() -> Iterator[int]:
    """The port of a server that answers each connection with what it gets."""
    listener = socket.create_server(("127.0.0.1", 0))

    def serve(connection: socket.socket) -> None:
        with connection:
            while data := connection.recv(65536):
                connection.sendall(data)

    def accept() -> None:
        while True:
            try:
                connection, _ = listener.accept()
            except OSError:
                return
            threading.Thread(target=serve, args=(connection,), daemon=True).start()

    threading.Thread(target=accept, daemon=True).start()
    yield listener.getsockname()[1]
    listener.shutdown(socket.SHUT_RDWR)
    listener.close()


def received(connection: socket.socket, size: int) -> bytes:
    parts = b""
    while len(parts) < size:
        got = connection.recv(size - len(parts))
        if not got:
            break
        parts += got
    return parts


def test_bytes_pass_unchanged_at_the_bandwidth_of_the_link(echo: int) -> None:
    sent = bytes(range(256)) * 200  # 51,200 bytes: 205 ms at 2 Mbit/s, each way at the same time
    with (
        Relay("127.0.0.1", echo, mbps=2.0, rtt_ms=20.0) as relay,
        socket.create_connection(("127.0.0.1", relay.port)) as connection,
    ):
        start = time.monotonic()
        connection.sendall(sent)
        assert received(connection, len(sent)) == sent
        took_s = time.monotonic() - start
    # Never quicker than bandwidth and round trip allow; the burst saved up is 2 kbit a direction.
    assert took_s >= 0.205 + 0.020 - 0.003


def test_a_dead_link_holds_everything_until_it_is_back(echo: int) -> None:
    with (
        Relay("127.0.0.1", echo, mbps=0.0, rtt_ms=2.0) as relay,
        socket.create_connection(("127.0.0.1", relay.port)) as connection,
    ):
        connection.sendall(b"held")
        connection.settimeout(0.3)
        with pytest.raises(TimeoutError):
            connection.recv(4)
        connection.settimeout(20)
        relay.set(40.0)
        assert received(connection, 4) == b"held"


def test_nobody_behind_the_relay_ends_the_connection() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    with (
        Relay("127.0.0.1", port, mbps=40.0, rtt_ms=2.0) as relay,
        socket.create_connection(("127.0.0.1", relay.port)) as connection,
    ):
        connection.settimeout(20)
        assert connection.recv(1) == b""


def test_closing_ends_open_connections(echo: int) -> None:
    relay = Relay("127.0.0.1", echo, mbps=40.0, rtt_ms=2.0)
    with socket.create_connection(("127.0.0.1", relay.port)) as connection:
        connection.settimeout(20)
        connection.sendall(b"first")
        assert received(connection, 5) == b"first"
        relay.close()
        with contextlib.suppress(ConnectionResetError):  # the other way in which a connection ends
            assert connection.recv(1) == b""
