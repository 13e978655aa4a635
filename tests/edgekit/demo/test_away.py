"""The demo's second half on a small student: real processes, a real link."""

from __future__ import annotations

import dataclasses
import io
import math
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

pytest.importorskip("grpc")
pytest.importorskip("onnxruntime")

from edgekit.demo import away
from edgekit.demo.slow import slower
from edgekit.simulate.engine import Answered
from edgekit_runtime import open as open_session
from edgekit_runtime.adaptive import ActionCost
from edgekit_runtime.testing import make_bundle

pytestmark = pytest.mark.alone

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


LOCAL = ActionCost(id="local", kind="local", head_ms=36.0)
OFFLOAD = ActionCost(
    id="offload", kind="offload", offload_fraction=1.0, bytes_up=17_000, bytes_down=400, tail_ms=1.7
)  # fmt: skip


@pytest.mark.parametrize("slowdown", [2.0, 4.0, 8.0])
def test_what_is_simulated_is_a_caller_that_waits_however_busy_the_machine_is(slowdown: float) -> None:
    lines = [away.PhaseLine(p.title, 25, 0, {}, 0, 50.0, 60.0, slowdown if p.busy else 1.0) for p in away.PHASES]
    study = away._compared((LOCAL, OFFLOAD), away.PHASES, lines, away.PHASE_S)
    # Four phases of five are busy, and requests that come by the clock at 120 ms would queue from 3.4 times on: 864 ms
    # instead of these at 4 times. 5 %: chance of single runs.
    local = away._mean_ms(dataclasses.replace(study, answers={"l": study.answers["always_local"]}), "l", 3.0, 5)
    assert local == pytest.approx(36.0 * (1 + 4 * slowdown) / 5, rel=0.05)
    assert study.best_fixed == "local"


def test_a_phase_is_as_slow_as_its_local_runs_were_and_as_believed_where_there_were_none() -> None:
    def answered(action: str, local_ms: float) -> SimpleNamespace:
        return SimpleNamespace(
            decision=SimpleNamespace(action=action), timing=SimpleNamespace(local_ms=local_ms)
        )  # fmt: skip

    ran = [answered("local", ms) for ms in (72.0, 90.0, 54.0)]
    assert away._slowdown([*ran, answered("offload", 500.0)], (LOCAL, OFFLOAD), 9.0) == pytest.approx(2.0)
    assert away._slowdown(ran[:1], (LOCAL, OFFLOAD), 9.0) == 9.0


def test_each_phase_counts_alike_and_a_lost_request_leaves_no_mean() -> None:
    lines = [away.PhaseLine(p.title, 25, 0, {}, 0, 50.0, 60.0, 1.0) for p in away.PHASES]
    study = away._compared((LOCAL, OFFLOAD), away.PHASES, lines, away.PHASE_S)
    rows = [Answered(at_s, ms, 0, 0, False, False) for at_s, ms in ((0.1, 10.0), (0.2, 10.0), (0.3, 10.0), (3.1, 40.0))]
    seen = dataclasses.replace(study, answers={"a": [rows], "b": [[rows[0]._replace(latency_ms=math.inf)]]})
    assert away._mean_ms(seen, "a", 3.0, 5) == 25.0
    assert away._mean_ms(seen, "b", 3.0, 5) is None


def test_the_table_tells_each_phase_and_what_it_is_compared_with() -> None:
    from rich.console import Console

    from edgekit.cli.commands.demo import _render_away

    line = away.PhaseLine("2 Mbit/s", 25, 0, {"local": 20, "offload:zstd": 5}, 3, 41.25, None, 1.0)
    out = io.StringIO()
    means = {"adaptive": 40.0, "best_fixed": None, "oracle": 30.0}
    _render_away(Console(file=out, width=160), away.Away((line,), 41.25, means, "local", 120.0))
    text = out.getvalue()
    assert "took too long" not in text
    _render_away(Console(file=out, width=160), away.Away((line,), 41.25, means, "local", 180.0))
    assert "180 ms apart, not 120" in out.getvalue()
    assert "local 20, offload:zstd 5" in text and "41.2" in text
    assert "adaptive 40.0 ms, best fixed action (local) -, oracle 30.0 ms" in text
