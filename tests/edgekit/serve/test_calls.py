"""A call is sent by the thread that wants its answer, and given up from another."""

from __future__ import annotations

import contextlib
import socket
import threading
import time

import msgspec
import numpy as np
import pytest

pytest.importorskip("grpc", reason="gRPC is not installed: pip install 'edgekit[server]'")
pytest.importorskip("prometheus_client", reason="prometheus_client is not installed: pip install 'edgekit[server]'")

from edgekit_runtime.adaptive import Policy
from edgekit_runtime.adaptive.choose import Decision
from edgekit_runtime.errors import Unreachable
from edgekit_runtime.remote.client import Client
from tests.edgekit.serve.test_adaptive_session import bundle, opened, right  # noqa: F401  # a fixture

pytestmark = pytest.mark.alone

X = np.arange(8, dtype=np.float32).reshape(2, 4)


@pytest.fixture
def stuck(monkeypatch):
    """While it is set the server's runs wait."""
    from edgekit.serve import models

    whole, slow, end = models.Model.run, threading.Event(), time.monotonic() + 60

    def run(self, tensors):
        while slow.is_set() and time.monotonic() < end:
            time.sleep(0.01)
        return whole(self, tensors)

    monkeypatch.setattr(models.Model, "run", run)
    yield slow
    slow.clear()


@pytest.mark.parametrize("streams", [False, True])
def test_a_call_is_given_up_at_once_and_the_connection_serves_on(start, bundle, stuck, streams) -> None:  # noqa: F811
    with start((bundle,), most=1) as (address, _):
        client = Client(f"grpc://{address}", streams=streams)
        client.call("tiny", {"x": X})
        stuck.set()
        call = client.request("tiny", {"x": X})
        begun = time.monotonic()
        threading.Timer(0.2, call.cancel).start()
        with pytest.raises(Unreachable):
            call.result()
        assert 0.15 < time.monotonic() - begun < 5
        stuck.clear()
        assert client.call("tiny", {"x": X}).tensors["y"].shape == (2, 3)
        client.close()


def test_a_call_that_was_given_up_before_it_was_sent_is_not_sent() -> None:
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        server.listen(1)
        server.settimeout(0.3)
        client = Client(f"grpc://127.0.0.1:{server.getsockname()[1]}")
        call = client.request("tiny", {"x": X})
        call.cancel()
        with pytest.raises(Unreachable, match="given up"):
            call.result()
        with pytest.raises(TimeoutError):
            server.accept()
        client.close()


def test_giving_up_what_has_ended_changes_nothing(start, bundle) -> None:  # noqa: F811
    with start((bundle,)) as (address, _):
        client = Client(f"grpc://{address}")
        for _ in range(5):
            call = client.request("tiny", {"x": X})
            assert call.result().tensors["y"].shape == (2, 3)
            call.cancel()
        assert len(client._lanes._all) == 1  # one channel served them all
        client.close()


def test_closing_a_client_ends_what_is_out_and_refuses_what_follows(start, bundle, stuck) -> None:  # noqa: F811
    with start((bundle,), most=1) as (address, _):
        client = Client(f"grpc://{address}")
        client.call("tiny", {"x": X})
        stuck.set()
        threading.Timer(0.2, client.close).start()
        with pytest.raises(Unreachable):
            client.call("tiny", {"x": X})
        with pytest.raises(Unreachable, match="closed"):
            client.call("tiny", {"x": X})
        stuck.clear()


def test_a_race_between_the_answer_and_giving_up_loses_no_channel(start, bundle) -> None:  # noqa: F811
    with start((bundle,)) as (address, _):
        client, answered, ended = Client(f"grpc://{address}"), 0, 0
        for step in range(60):
            call = client.request("tiny", {"x": X})
            timer = threading.Timer(step * 5e-5, call.cancel)
            timer.start()
            with contextlib.suppress(Unreachable):
                answered += call.result().tensors["y"].shape == (2, 3)
            ended += 1
            timer.join()
            lanes = client._lanes
            assert set(lanes._free) == lanes._all  # nothing is out, nothing that was closed is kept
        assert ended == 60 and client.call("tiny", {"x": X}).tensors["y"].shape == (2, 3)
        client.close()


@pytest.mark.parametrize("deadline_ms", [None, 1000.0])
def test_a_hedge_that_is_first_frees_the_request_and_is_told_apart(start, bundle, stuck, deadline_ms) -> None:  # noqa: F811
    policy = Policy(deadline_ms=deadline_ms)
    with start((bundle,), most=1) as (address, _), opened(bundle, address, local_ms=30.0, policy=policy) as session:
        plan = session.controller.plan

        def forced(now_s: float, samples: int = 1):
            found = plan(now_s, samples)
            old = found.decision
            place = next(at for at, name in enumerate(old.actions.index) if name.startswith("offload"))
            decision = Decision(old.actions, place, 1.0, old.link, old.load, old.policy)
            return msgspec.structs.replace(found, decision=decision, hedge_ms=100.0, race="")

        session.controller.plan = forced
        stuck.set()
        begun = time.monotonic()
        result = session.infer({"x": X})
        assert right(result) and 0.12 < time.monotonic() - begun < 5
        assert result.timing.fallback == "the answer was overdue" and result.timing.local_ms > 0
        assert not session._line.controller._flights  # it was given up, and that was learned
        stuck.clear()
