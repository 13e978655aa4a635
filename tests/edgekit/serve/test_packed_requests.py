"""Over a real server: requests that a codec packs far smaller than the example by which the actions were priced."""

from __future__ import annotations

import io
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("grpc", reason="gRPC is not installed: pip install 'edgekit[server]'")
pytest.importorskip("prometheus_client", reason="prometheus_client is not installed: pip install 'edgekit[server]'")
pytest.importorskip("zstandard", reason="zstandard is not installed: pip install 'edgekit[remote]'")

import edgekit_runtime as er
from edgekit.demo.relay import Relay
from edgekit_runtime.adaptive import journal
from edgekit_runtime.remote.session import AdaptiveSession
from edgekit_runtime.testing import make_bundle

pytestmark = pytest.mark.alone

WIDTH = 2560
ONES = np.ones((1, WIDTH), np.float32)
LOCAL_MS = 120.0  # at 30 Mbit/s and 10 ms the server answers in a sixth of that, on a busy machine too


class Still:
    """A device that nobody else uses."""

    def read(self) -> tuple[float, float | None]:
        return 0.0, None


@pytest.fixture
def wide(tmp_path: Path) -> Path:
    """Its example is noise, which no codec makes much smaller: 10 KB are declared."""
    rng, file = np.random.default_rng(0), io.BytesIO()
    np.savez(file, x=rng.normal(size=(1, WIDTH)).astype(np.float32))
    weights = rng.normal(size=(WIDTH, 4)).astype(np.float32)
    return make_bundle(tmp_path / "wide.edge", weights=weights, files={"golden/inputs.npz": file.getvalue()})


@pytest.fixture
def session(start, wide, tmp_path) -> Iterator[AdaptiveSession]:
    """Behind a link of 30 Mbit/s and 10 ms."""
    with start((wide,)) as (address, _):
        port = int(address.rsplit(":", 1)[1])
        local = er.open(wide)
        whole = local.run

        def run(inputs):
            time.sleep(LOCAL_MS / 1e3)
            return whole(inputs)

        local.run = run
        with (
            Relay("127.0.0.1", port, mbps=30.0, rtt_ms=10.0) as relay,
            AdaptiveSession(local, f"grpc://127.0.0.1:{relay.port}", probe=Still(), log=tmp_path / "log") as opened,
        ):
            yield opened


def until_settled(session: AdaptiveSession, inputs: np.ndarray, seconds: float = 30.0) -> list:
    """Requests until eight of the last ten were sent: a while on a busy machine."""
    results, end = [], time.monotonic() + seconds
    while time.monotonic() < end:
        results.append(session.infer({"x": inputs}))
        if len(results) > 20 and sum(result.decision.kind == "offload" for result in results[-10:]) >= 8:
            break
    return results


def test_inputs_that_are_all_alike_are_sent_over_a_good_link_and_the_record_says_why(session, tmp_path, wide) -> None:
    results = until_settled(session, ONES)
    assert sum(result.decision.kind == "offload" for result in results[-10:]) >= 8
    last = results[-1].decision
    packed = [share for share in last.load.shares if share.up < 0.5]
    assert packed and all(":" in share.action for share in packed)  # by a codec; plain tensors are as declared
    sent = next(result.decision for result in reversed(results) if result.decision.kind == "offload")
    assert sent.action in {share.action for share in packed}
    declared = session.controller.actions[sent.action].bytes_up
    assert declared > 9_000 and sent.alternatives[0].bytes_up < 0.5 * declared
    assert f"{sent.action} was seen to take x0." in sent.explain()
    head, entries = journal.read(tmp_path / "log")
    assert [journal.again(head, entry).action for entry in entries] == [row.decision.action for row in results]


def test_what_was_learned_of_packed_requests_is_unlearned_when_they_grow(session) -> None:
    until_settled(session, ONES)
    noise = np.random.default_rng(1).normal(size=(1, WIDTH)).astype(np.float32)
    grown = until_settled(session, noise)
    used = {result.decision.action for result in grown[-10:] if result.timing.server_ms}
    shares = {share.action: share.up for share in grown[-1].decision.load.shares}
    assert used and all(shares.get(action, 1.0) > 0.15 for action in used)
