"""The page of policies: which cells it names, and what it counts."""

from __future__ import annotations

from benchmarks import policies
from benchmarks.policy_cells import Cell
from edgekit.simulate.traces import LoadTrace, constant
from edgekit_runtime.adaptive import ActionCost

ACTIONS = (
    ActionCost(id="local", kind="local", head_ms=50),
    ActionCost(id="offload:jpeg@90", kind="offload", offload_fraction=1.0, bytes_up=1000),
    ActionCost(id="split:a", kind="split", head_ms=5, offload_fraction=1.0, bytes_up=1000, split_point="a", depth=0),
)


def _row(
    student: str, adaptive: float, fixed: tuple[float, ...], oracle: float | None = None, common: float = 1.0
) -> policies.Row:
    cell = Cell(student, "pi4", "shared", constant(40, 8), ACTIONS, LoadTrace.constant(), 0.2, 0)
    best = min(fixed)
    return policies.Row(cell, adaptive, best if oracle is None else oracle, fixed, best, common, 0)


def test_every_cell_more_than_three_percent_behind_is_named_the_worst_first() -> None:
    rows = [
        _row("a", 103.1, (100.0, 120.0, 130.0)),
        _row("b", 102.9, (100.0, 120.0, 130.0)),
        _row("c", 109.0, (150.0, 100.0, 130.0)),
        _row("d", 60.0, (100.0, 120.0, 130.0)),
    ]
    page = policies._behind(rows).splitlines()[2:]
    assert page == [
        "| c / pi4 / shared / rtt=40,mbps=8 | 109.0 | 100.0 (offload:jpeg@90) | +9.0 % |",
        "| a / pi4 / shared / rtt=40,mbps=8 | 103.1 | 100.0 (local) | +3.1 % |",
    ]
    assert policies._behind(rows[1:2]) == "None.\n"


def test_the_worst_cell_decides_the_target() -> None:
    hard = _row("x", 60.0, (100.0, 100.0, 100.0), oracle=55.0, common=0.5)
    assert "**missed**" in policies._targets([hard, _row("a", 103.1, (100.0, 120.0, 130.0))]).split("\n")[3]
    assert "met" in policies._targets([hard, _row("a", 102.9, (100.0, 120.0, 130.0))]).split("\n")[3]


def test_the_page_says_in_how_many_cells_each_rule_is_right() -> None:
    rows = [
        _row("a", 50.0, (50.0, 70.0, 80.0)),
        _row("b", 50.0, (50.0, 70.0, 80.0)),
        _row("c", 50.0, (90.0, 50.0, 80.0)),
        _row("d", 50.0, (90.0, 80.0, 50.0)),
        _row("e", 50.0, (90.0, 80.0, 85.0), oracle=45.0, common=0.6),
    ]
    told = policies._always(rows)
    assert 'local" is right in 2 cells' in told
    assert 'offload" in 1 (' in told
    assert "that sends in 1; in 1 choosing matters" in told
    assert "Of 5 cells" in told


def test_the_steps_of_the_load_meet_their_targets() -> None:
    page = policies._steps()
    assert "missed" not in page
    assert page.count("| met |") == 3
