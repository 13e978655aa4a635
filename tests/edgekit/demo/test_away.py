"""The demo's second half on a small student: real processes, a real link."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("grpc")
pytest.importorskip("onnxruntime")

from edgekit.demo import away
from edgekit.demo.slow import slower
from edgekit_runtime import open as open_session
from edgekit_runtime.testing import make_bundle

X = np.arange(40, dtype=np.float32).reshape(10, 4)


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    golden = io.BytesIO()
    np.savez(golden, x=X[:1])
    return make_bundle(tmp_path / "tiny.edge", files={"golden/inputs.npz": golden.getvalue()})


def test_a_slower_engine_gives_the_same_answers_and_is_gone_afterwards(bundle: Path) -> None:
    with open_session(bundle) as usual, slower(3) as name, open_session(bundle, engine=name) as session:
        np.testing.assert_array_equal(session.run({"x": X})["y"], usual.run({"x": X})["y"])
    from edgekit_runtime import engines

    assert name not in engines.names()


@pytest.mark.slow
def test_no_request_is_lost_when_the_link_and_the_server_go(bundle: Path) -> None:
    told: list[str] = []
    found = away.show(bundle, {"x": X}, told.append, phase_s=1.0)
    assert [line.title for line in found.phases] == [phase.title for phase in away.PHASES]
    assert all(line.lost == 0 and line.requests > 0 for line in found.phases)
    assert all(line.mean_ms is not None and line.p95_ms >= 0 for line in found.phases)
    # Nothing can come back from a killed server.
    last = found.phases[-1]
    assert sum(last.actions.values()) == last.requests
    assert last.fallbacks >= last.requests - last.actions.get("local", 0)
    assert set(found.simulated_ms) == {"adaptive", "best_fixed", "oracle"}
    assert found.best_fixed_action == "local"
    assert told[0] == "starting the server"


def test_the_table_tells_each_phase_and_what_it_is_compared_with() -> None:
    from rich.console import Console

    from edgekit.cli.commands.demo import _render_away

    line = away.PhaseLine("2 Mbit/s", 25, 0, {"local": 20, "offload:zstd": 5}, 3, 41.25, None, 1.0)
    out = io.StringIO()
    means = {"adaptive": 40.0, "best_fixed": None, "oracle": 30.0}
    _render_away(Console(file=out, width=160), away.Away((line,), 41.25, means, "local"))
    text = out.getvalue()
    assert "local 20, offload:zstd 5" in text and "41.2" in text
    assert "adaptive 40.0 ms, best fixed action (local) -, oracle 30.0 ms" in text
