"""A session that leans on a real server: never loses a request, never passes on a wrong answer."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import threading
import time
from pathlib import Path

import msgspec
import numpy as np
import pytest

pytest.importorskip("grpc", reason="gRPC is not installed: pip install 'edgekit[server]'")
pytest.importorskip("prometheus_client", reason="prometheus_client is not installed: pip install 'edgekit[server]'")

import edgekit_runtime as er
from edgekit_runtime.adaptive import Policy, journal
from edgekit_runtime.adaptive.controller import Settings
from edgekit_runtime.errors import InputMismatch, UsageError
from edgekit_runtime.remote.behind import send_behind
from edgekit_runtime.remote.session import AdaptiveSession
from edgekit_runtime.testing import make_bundle

pytestmark = pytest.mark.alone

X = np.arange(8, dtype=np.float32).reshape(2, 4)
W = np.arange(12, dtype=np.float32).reshape(4, 3)


class Still:
    """A device that nobody else uses."""

    def read(self) -> tuple[float, float | None]:
        return 0.0, None


def golden(folder: Path) -> bytes:
    import io

    file = io.BytesIO()
    np.savez(file, x=X[:1])
    return file.getvalue()


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    return make_bundle(tmp_path / "tiny.edge", files={"golden/inputs.npz": golden(tmp_path)})


@contextlib.contextmanager
def opened(bundle: Path, address: str, local_ms: float = 30.0, **options):
    local = er.open(bundle)
    whole = local.run

    def run(inputs):
        time.sleep(local_ms / 1e3)
        return whole(inputs)

    local.run = run
    with AdaptiveSession(local, f"grpc://{address}", probe=Still(), **options) as session:
        yield session


def found_out(session: AdaptiveSession, seconds: float = 30.0) -> list:
    """Requests until the session has found out that the server is worth its way: a while on a busy machine."""
    results, end = [], time.monotonic() + seconds
    while time.monotonic() < end and not any(result.timing.server_ms for result in results[-3:]):
        results.append(session.infer({"x": X}))
    return results


def right(result, x=X) -> bool:
    return np.allclose(result.outputs["y"], x @ W, rtol=1e-5)


def test_a_slow_device_leans_on_the_server_and_says_where_the_time_went(start, bundle, tmp_path) -> None:
    with start((bundle,)) as (address, _), opened(bundle, address, log=tmp_path / "log") as session:
        results = found_out(session)
        results += [session.infer({"x": X}) for _ in range(40)]
        assert all(right(result) for result in results)
        kinds = [result.decision.kind for result in results[-40:]]
        assert kinds.count("offload") >= 5  # after a hiccup of a busy machine it stays here for a while
        timing = next(row.timing for row in reversed(results) if row.timing.server_ms > 0)
        assert timing.uplink_ms > 0
        assert "link:" in results[-1].decision.explain()
    head, entries = journal.read(tmp_path / "log")
    assert len(entries) == len(results)
    assert [journal.again(head, entry).action for entry in entries] == [row.decision.action for row in results]


def test_a_quick_device_answers_itself(start, bundle) -> None:
    with start((bundle,)) as (address, _), opened(bundle, address, local_ms=0.0) as session:
        results = [session.infer({"x": X}) for _ in range(60)]
        assert all(right(result) for result in results)
        assert [result.decision.kind for result in results].count("local") > 50


def test_a_server_that_is_not_there_costs_no_request(bundle) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        with opened(bundle, address, local_ms=20.0) as session:
            results = [session.infer({"x": X}) for _ in range(20)]
        assert all(right(result) for result in results)


def test_a_server_that_never_answers_costs_no_request(bundle) -> None:
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen(8)
        address = f"127.0.0.1:{silent.getsockname()[1]}"
        with opened(bundle, address, local_ms=20.0, policy=Policy(deadline_ms=400)) as session:
            results = [session.infer({"x": X}) for _ in range(15)]
        assert all(right(result) for result in results)
        assert max(result.timing.total_ms for result in results) < 3000


def test_an_outage_in_the_middle_costs_no_request_and_the_server_is_used_again(start, bundle) -> None:
    with contextlib.ExitStack() as stack:
        first = contextlib.ExitStack()
        address, _ = first.enter_context(start((bundle,)))
        port = int(address.rsplit(":", 1)[1])
        settings = Settings(longest_backoff_s=1.0, longest_pause_s=0.5)
        session = stack.enter_context(opened(bundle, address, settings=settings))
        before = found_out(session)
        assert before[-1].timing.server_ms or before[-2].timing.server_ms or before[-3].timing.server_ms
        first.close()
        during = [session.infer({"x": X}) for _ in range(30)]
        stack.enter_context(_again(start, bundle, port))
        after = found_out(session)
        assert all(right(result) for result in (*before, *during, *after))
        assert all(result.timing.server_ms == 0 for result in during[5:])
        assert any(result.timing.server_ms > 0 for result in after)


@contextlib.contextmanager
def _again(start, bundle: Path, port: int):
    import asyncio

    from edgekit.serve import Options, serve

    ready, loop, stop = threading.Event(), asyncio.new_event_loop(), asyncio.Event()
    options = Options(bundles=(bundle,), port=port)
    thread = threading.Thread(target=lambda: loop.run_until_complete(serve(options, lambda *_: ready.set(), stop)))
    thread.start()
    assert ready.wait(20)
    try:
        yield
    finally:
        loop.call_soon_threadsafe(stop.set)
        thread.join(20)
        loop.close()


@pytest.mark.parametrize("kind", ["nan", "shape", "dtype", "name", "id", "error"])
def test_a_wrong_answer_never_gets_through(start, bundle, monkeypatch, kind) -> None:
    from edgekit_runtime.remote.writer import Writer

    whole = Writer.response

    def wrong(self, asked, tensors, *rest):
        y = tensors["y"].copy()
        changed = {
            "nan": {"y": y * np.float32("nan")},
            "shape": {"y": y[:, :2]},
            "dtype": {"y": y.astype(np.float64)},
            "name": {"z": y},
        }.get(kind, {"y": y})
        if kind == "error":
            raise RuntimeError("a bug of the server")
        if kind == "id":
            asked.id = "another"
        return whole(self, asked, changed, *rest)

    with start((bundle,)) as (address, _), opened(bundle, address) as session:
        monkeypatch.setattr(Writer, "response", wrong)
        results = [session.infer({"x": X}) for _ in range(15)]
        assert all(right(result) for result in results)
        assert all(result.timing.server_ms == 0 for result in results)


def test_an_overdue_answer_is_hedged_and_the_first_valid_one_wins(start, bundle, monkeypatch) -> None:
    from edgekit.serve import models

    whole, slow = models.Model.run, threading.Event()

    def run(self, tensors):
        time.sleep(1.0 if slow.is_set() else 0.0)
        return whole(self, tensors)

    monkeypatch.setattr(models.Model, "run", run)
    with start((bundle,)) as (address, _), opened(bundle, address) as session:
        found_out(session)
        slow.set()
        result = session.infer({"x": X})
        assert right(result) and result.timing.total_ms < 600
        if result.decision.kind == "offload":
            assert "overdue" in result.timing.fallback


def test_wrong_inputs_are_the_callers_and_nothing_else_breaks(start, bundle) -> None:
    with start((bundle,)) as (address, _), opened(bundle, address) as session:
        for _ in range(10):
            session.infer({"x": X})
        with pytest.raises(InputMismatch):
            session.infer({"x": X[:, :2]})
        assert right(session.infer({"x": X}))


def test_nothing_is_sent_when_nothing_may_leave(bundle) -> None:
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        server.listen(1)
        server.settimeout(0.3)
        address = f"127.0.0.1:{server.getsockname()[1]}"
        with opened(bundle, address, policy=Policy(privacy="local")) as session:
            assert all(right(session.infer({"x": X})) for _ in range(5))
        with pytest.raises(TimeoutError):
            server.accept()


def test_threads_and_event_loops_share_a_session(start, bundle) -> None:
    with start((bundle,)) as (address, _), opened(bundle, address, local_ms=5.0) as session:
        wrong: list[int] = []

        def work(number: int) -> None:
            for step in range(15):
                x = np.full((1, 4), number * 50 + step, np.float32)
                if not right(session.infer({"x": x}), x):
                    wrong.append(number)

        threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert wrong == []
        assert right(asyncio.run(session.infer_async({"x": X})))


def test_a_closed_session_says_so(start, bundle) -> None:
    with start((bundle,)) as (address, _), opened(bundle, address) as session:
        pass
    with pytest.raises(UsageError, match="closed"):
        session.infer({"x": X})


def test_open_takes_a_server_as_the_contract_says(start, bundle, tmp_path) -> None:
    with (
        start((bundle,), token="secret") as (address, _),
        er.open(
            bundle,
            server=f"grpc://{address}",
            token="secret",
            policy=er.Policy(objective="latency", deadline_ms=500, max_risk=0.01),
            log=tmp_path / "log",
        ) as session,
    ):
        result = session.infer({"x": X})
        assert right(result) and isinstance(result, er.Result)
        assert result.decision.action in result.decision.explain()


@pytest.mark.parametrize(
    ("server", "options"),
    [
        ("http://a:1", {}),
        ("grpc://127.0.0.1:1", {"polcy": 1}),
        ("grpcs://127.0.0.1:1", {"cert": "a.pem"}),
        ("grpcs://127.0.0.1:1", {"ca": "nowhere.pem"}),
    ],
)
def test_a_server_that_cannot_be_is_refused_when_opening(bundle, server, options) -> None:
    with pytest.raises(UsageError):
        er.open(bundle, server=server, **options)
    with pytest.raises(UsageError, match="without a server"):
        er.open(bundle, token="x")


def test_a_server_with_another_bundle_of_the_same_name_is_refused_by_hash(start, bundle, tmp_path) -> None:
    (tmp_path / "other").mkdir()
    twin = make_bundle(tmp_path / "other" / "tiny.edge", weights=np.zeros((4, 3), np.float32))
    with start((twin,)) as (address, _), opened(bundle, address) as session:
        results = [session.infer({"x": X}) for _ in range(30)]
        assert all(right(result) for result in results)
        assert all(result.timing.server_ms == 0 for result in results)


def test_a_probe_goes_behind_its_request_and_teaches_the_link(start, bundle, monkeypatch) -> None:
    from edgekit.serve import models

    whole, runs = models.Model.run, []

    def run(self, tensors):
        runs.append(time.monotonic())
        return whole(self, tensors)

    with start((bundle,)) as (address, _), opened(bundle, address, local_ms=300.0) as session:
        found_out(session)
        monkeypatch.setattr(models.Model, "run", run)
        plan = session.controller.plan(time.monotonic())
        name = plan.decision.action  # with or without a codec: that hangs on how quick the machine is
        plan = msgspec.structs.replace(plan, probe=name, hedge_ms=5000.0, race="", ping=False)
        assert plan.decision.kind == "offload"
        learned: list[er.adaptive.Outcome] = []
        observe = session.controller.observe
        monkeypatch.setattr(
            session.controller, "observe", lambda now, outcome: (learned.append(outcome), observe(now, outcome))
        )
        send_behind(session._line, {"x": X}, plan, session._offers[name])
        assert len(runs) == 1 and [outcome.action for outcome in learned] == [name]
        assert learned[0].network_ms is not None and not session.controller._flights
        monkeypatch.setattr(session.controller, "plan", lambda now, samples: plan)
        assert right(session.infer({"x": X}))
        end = time.monotonic() + 30
        while (len(learned) < 3 or session.controller._flights) and time.monotonic() < end:
            time.sleep(0.01)
        assert len(runs) == 3 and len(learned) == 3 and not session.controller._flights


def test_a_probe_that_fails_says_nothing_of_the_server(start, bundle) -> None:
    with start((bundle,)) as (address, _), opened(bundle, address, local_ms=300.0) as session:
        found_out(session)
        plan = session.controller.plan(time.monotonic())
        plan = msgspec.structs.replace(plan, probe=plan.decision.action, hedge_ms=0.001, race="")
        assert plan.decision.kind == "offload"
        send_behind(session._line, {"x": X}, plan, session._offers[plan.probe])
        assert not session.controller._flights
        assert session.controller._failures == 0 and session.controller.plan(time.monotonic()).decision.link.up
