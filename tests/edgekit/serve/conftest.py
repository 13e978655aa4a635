"""A real server on a free loopback port, in a thread of its own."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from edgekit_runtime.testing import make_bundle


@contextlib.contextmanager
def running(bundles: tuple[Path, ...], **changes: Any) -> Iterator[tuple[str, int | None]]:
    """The address and the metrics port of a server; it is drained at the end."""
    from edgekit.serve import Options, serve  # each test file skips itself where gRPC is missing; this one cannot

    ready, ports, failed = threading.Event(), [], []
    loop = asyncio.new_event_loop()
    stop = asyncio.Event()

    def started(port: int, metrics: int | None) -> None:
        ports.append((port, metrics))
        ready.set()

    def work() -> None:
        asyncio.set_event_loop(loop)
        try:
            loop.run_until_complete(serve(Options(bundles=bundles, port=0, **changes), started, stop))
        except BaseException as error:  # noqa: BLE001 - raised in the test
            failed.append(error)
            ready.set()
        finally:
            loop.run_until_complete(loop.shutdown_asyncgens())
            loop.close()

    thread = threading.Thread(target=work)
    thread.start()
    assert ready.wait(30)
    if failed:
        thread.join()
        raise failed[0]
    try:
        yield f"127.0.0.1:{ports[0][0]}", ports[0][1]
    finally:
        loop.call_soon_threadsafe(stop.set)
        thread.join(30)
        assert not thread.is_alive()


@pytest.fixture
def start() -> Callable[..., contextlib.AbstractContextManager[tuple[str, int | None]]]:
    return running


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    return make_bundle(tmp_path / "tiny.edge")


@pytest.fixture(scope="session")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A student with exits (`early`), converted once."""
    pytest.importorskip("torch")
    from tests.edgekit.serve.early import build

    return build(tmp_path_factory.mktemp("early") / "early.edge")
