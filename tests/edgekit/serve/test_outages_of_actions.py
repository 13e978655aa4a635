"""What goes wrong on the other side, for every action that sends: no request is lost, no wrong answer gets through."""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from pathlib import Path

import msgspec
import numpy as np
import pytest

import edgekit_runtime as er
from edgekit_runtime.adaptive import Policy
from edgekit_runtime.adaptive.choose import Decision
from edgekit_runtime.errors import InputMismatch
from edgekit_runtime.remote.session import AdaptiveSession
from tests.edgekit.serve.early import GRAPH, NAME, build, pictures

pytestmark = [pytest.mark.alone, pytest.mark.slow]  # a conversion, shared by all

KINDS = ("exit:0.01:split:", "int8-row", "jpeg@90", "webp@85")
X = pictures(12, 7)


@contextlib.contextmanager
def only(path: Path, address: str, kind: str, hedge_ms: float = 5_000.0):
    """A session that chooses one kind of action every time, and that action's id."""
    pytest.importorskip("PIL")
    policy = Policy(max_risk=1.0)
    session = er.open(path, GRAPH, "onnxruntime", 1, server=f"grpc://{address}", policy=policy)
    assert isinstance(session, AdaptiveSession)
    with session:
        action = next(name for name in session._offers if kind in name)
        place, plan = session.controller.actions.place(action), session.controller.plan

        def forced(now_s: float, samples: int = 1):
            found = plan(now_s, samples)
            old = found.decision
            decision = Decision(old.actions, place, 1.0, old.link, old.load, old.policy)
            return msgspec.structs.replace(found, decision=decision, hedge_ms=hedge_ms, race="")

        session.controller.plan = forced
        yield session, action


def same(result, session: AdaptiveSession) -> bool:
    """Is it the local answer, which every fall-back gives?"""
    want = session.local.run({NAME: X})["full"]
    return set(result.outputs) == {"full"} and np.array_equal(result.outputs["full"], want)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("wrong", ["nan", "rows", "dtype", "name", "id", "hash", "error"])
def test_a_wrong_answer_never_gets_through(start, whole, monkeypatch, kind, wrong) -> None:
    from edgekit_runtime.remote.writer import Writer

    right = Writer.response

    def response(self, asked, tensors, numbers, sha256, version):
        full = tensors["full"].copy()
        changed = {
            "nan": {"full": full * np.float32("nan")},
            "rows": {"full": full[:1]},
            "dtype": {"full": full.astype(np.float64)},
            "name": {"early": full},
        }.get(wrong, {"full": full})
        if wrong == "error":
            raise RuntimeError("a bug of the server")
        if wrong == "id":
            asked.id = "another"
        return right(self, asked, changed, numbers, "0" * 64 if wrong == "hash" else sha256, version)

    with start((whole,)) as (address, _), only(whole, address, kind) as (session, action):
        monkeypatch.setattr(Writer, "response", response)
        for _ in range(3):
            result = session.infer({NAME: X})
            assert result.decision.action == action
            assert same(result, session)
            assert result.timing.fallback and result.timing.server_ms == 0


@pytest.mark.parametrize("kind", KINDS)
def test_a_server_that_dies_on_the_way_costs_no_request(start, whole, kind) -> None:
    with contextlib.ExitStack() as stack:
        server = contextlib.ExitStack()
        address, _ = server.enter_context(start((whole,)))
        session, _ = stack.enter_context(only(whole, address, kind))
        before = session.infer({NAME: X})
        assert before.timing.server_ms > 0 and before.timing.fallback == ""
        server.close()
        for _ in range(5):
            result = session.infer({NAME: X})
            assert same(result, session) and result.timing.fallback


@pytest.mark.parametrize("kind", KINDS)
def test_a_server_that_accepts_and_never_answers_is_overtaken(whole, kind) -> None:
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen(8)
        address = f"127.0.0.1:{silent.getsockname()[1]}"
        with only(whole, address, kind, hedge_ms=150.0) as (session, _):
            start = time.perf_counter()
            result = session.infer({NAME: X})
            assert same(result, session) and "overdue" in result.timing.fallback
            assert time.perf_counter() - start < 5


@pytest.fixture(scope="module")
def twin(tmp_path_factory) -> Path:
    """The same student with other weights, under the same name."""
    return build(tmp_path_factory.mktemp("twin") / "early.edge", seed=4)


@pytest.mark.parametrize("kind", KINDS)
def test_another_bundle_of_the_same_name_is_refused_by_hash(start, whole, twin, kind) -> None:
    with start((twin,)) as (address, _), only(whole, address, kind) as (session, _):
        result = session.infer({NAME: X})
        assert same(result, session)
        assert "another version" in result.timing.fallback


@pytest.mark.parametrize("kind", KINDS)
def test_inputs_that_do_not_fit_are_the_callers(start, whole, kind) -> None:
    with start((whole,)) as (address, _), only(whole, address, kind) as (session, _):
        for wrong in (X[:, :2], X[:, :, :16], X.astype(np.int64), X[0]):
            with pytest.raises(InputMismatch):
                session.infer({NAME: wrong})
        with pytest.raises(InputMismatch):
            session.infer({})
        assert session.infer({NAME: X}).timing.fallback == ""


def test_threads_that_share_a_session_get_their_own_rows_back(start, whole) -> None:
    """Parts of batches are answered here and there: none may end in another request, or in another row."""
    with start((whole,)) as (address, _), only(whole, address, KINDS[0]) as (session, action):
        way, wrong = session._offers[action].way, []
        full = session.local.run({NAME: X})["full"]
        left = way.chain.until({NAME: X}, way.point, way.last)
        want = np.where((left.exits <= way.last)[:, None], left.answers, full)

        def work(seed: int) -> None:
            rng = np.random.default_rng(seed)
            for _ in range(8):
                rows = rng.permutation(len(X))[: rng.integers(1, len(X) + 1)]
                got = session.infer({NAME: X[rows]}).outputs["full"]
                if not np.allclose(got, want[rows], rtol=1e-4, atol=1e-5):
                    wrong.append(rows)

        threads = [threading.Thread(target=work, args=(seed,)) for seed in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert wrong == []
