"""What may lose accuracy is offered under a named risk only."""

from __future__ import annotations

import msgspec
import pytest

from edgekit_runtime.adaptive import ActionCost, Policy
from edgekit_runtime.adaptive.risk import losing, loss, may_lose, offered, why_not
from edgekit_runtime.manifest import Action, OperatingPoint

LOCAL = ActionCost(id="local", kind="local", head_ms=50, accuracy_drop=0.03)
ZSTD = ActionCost(id="offload:zstd", kind="offload", offload_fraction=1.0, codec="bitshuffle-zstd", accuracy_drop=0.03)
JPEG = ActionCost(
    id="offload:jpeg@90", kind="offload", offload_fraction=1.0, codec="jpeg@90", accuracy_drop=0.0,
    accuracy_drop_high=0.02,
)  # fmt: skip
ROWS = ActionCost(id="split:p:int8-row", kind="split", offload_fraction=1.0, codec="int8-row", accuracy_drop=None)
EXIT = ActionCost(id="exit:0.01", kind="exit", accuracy_drop=0.004, accuracy_drop_high=0.01)
CASCADE = ActionCost(id="cascade:0.05", kind="cascade", accuracy_drop=0.02, accuracy_drop_high=0.05)
ALL = (LOCAL, ZSTD, JPEG, ROWS, EXIT, CASCADE)


def test_early_answers_and_lossy_codecs_may_lose_a_graph_that_passed_its_gate_does_not() -> None:
    assert [row.id for row in ALL if not may_lose(row)] == ["local", "offload:zstd"]


@pytest.mark.parametrize(
    ("risk", "ids"),
    [
        (None, ["local", "offload:zstd"]),
        (0.0, ["local", "offload:zstd"]),
        (0.01, ["local", "offload:zstd", "exit:0.01"]),
        (0.02, ["local", "offload:zstd", "offload:jpeg@90", "exit:0.01"]),
        (1.0, ["local", "offload:zstd", "offload:jpeg@90", "exit:0.01", "cascade:0.05"]),  # never what is not measured
    ],
)
def test_the_upper_end_decides_and_what_is_left_out_has_its_reason(risk, ids) -> None:
    kept, left_out = offered(ALL, Policy(max_risk=risk))
    assert [row.id for row in kept] == ids
    assert set(left_out) == {row.id for row in ALL} - set(ids)
    assert left_out["split:p:int8-row"] == "what it costs in accuracy was not measured"
    if risk is None:
        assert left_out["exit:0.01"] == "may lose 0.01 of accuracy, and the policy names no max_risk"
    elif risk < 0.05:
        assert left_out["cascade:0.05"] == f"may lose 0.05 of accuracy, {risk:g} is allowed"


def test_a_loss_without_an_interval_counts_as_not_measured() -> None:
    assert why_not(0.0, None, Policy(max_risk=1.0)) == "what it costs in accuracy was not measured"


def test_loss_is_counted_from_the_graph_that_runs_here() -> None:
    point = OperatingPoint(
        id="p", graph_chain=("g",), thresholds=(0.9,), risk=0.01, confidence_level=0.95, n=500, empirical_risk=0.004,
        exit_fractions=(0.5, 0.5),
    )  # fmt: skip
    assert loss(None) == (0.0, 0.0)  # its gate is told by inspect
    assert loss(point) == (0.004, 0.01)
    codec = Action(id="a", kind="offload", graphs=("g",), codec="jpeg@90")
    assert loss(codec) == (None, None)
    assert loss(msgspec.structs.replace(codec, accuracy_drop=0.01, interval_95=(0.0, 0.02))) == (0.01, 0.02)
    assert loss(msgspec.structs.replace(codec, accuracy_drop=-0.1, interval_95=(-0.2, -0.01))) == (0.0, 0.0)
    assert losing(LOCAL, None).highest_drop == 0.0 and losing(EXIT, codec).highest_drop is None
