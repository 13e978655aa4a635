"""What wins where, from costs and from a bundle."""

from __future__ import annotations

import time
from pathlib import Path

import msgspec
import numpy as np
import pytest

from edgekit.devices import load
from edgekit.planner import Grid, actions_of, plan
from edgekit.planner.page import page
from edgekit.planner.times import Times
from edgekit_runtime import open_bundle
from edgekit_runtime.adaptive import ActionCost, Link, Load, Policy, choose
from edgekit_runtime.errors import Refused
from edgekit_runtime.manifest import Action, Exit, Graph, Manifest, OperatingPoint, SplitPoint, WireTensor
from edgekit_runtime.testing import make_bundle

LOCAL = ActionCost(id="local", kind="local", head_ms=50)
OFFLOAD = ActionCost(id="offload", kind="offload", offload_fraction=1.0, bytes_up=20_000, tail_ms=2)


def split(number: int, **changes: object) -> ActionCost:
    row = ActionCost(
        id=f"split{number}",
        kind="split",
        head_ms=5.0 + number,
        offload_fraction=1.0,
        bytes_up=9_000,
        tail_ms=2,
        split_point=f"p{number}",
        depth=number,
    )
    return msgspec.structs.replace(row, **changes)


def test_a_plan_says_what_choose_would() -> None:
    rows = (LOCAL, OFFLOAD, split(0), split(1))
    grid = Grid(rtt_ms=(5, 60), bandwidth_mbps=(0.5, 3.0, 40.0), device_load=(0.0, 0.5), server_load=(0.0,))
    found = plan(rows, grid)
    for place, winner in np.ndenumerate(found.winners):
        i, j, k, _ = place
        link = Link(rtt_ms=grid.rtt_ms[i], uplink_mbps=grid.bandwidth_mbps[j], downlink_mbps=grid.bandwidth_mbps[j])
        chosen = choose(rows, link, Load(device_slowdown=1 / (1 - grid.device_load[k])), Policy())
        assert found.actions.actions[winner].id == chosen.action
        assert found.times_ms[place] == pytest.approx(chosen.predicted_ms)


def test_at_a_crossover_both_actions_take_the_same_time() -> None:
    found = plan((LOCAL, OFFLOAD), Grid(rtt_ms=(20.0,), device_load=(0.0,), server_load=(0.0,)))
    (crossover,) = found.crossovers
    assert (crossover.below, crossover.above) == ("local", "offload")
    # 50 = 20 + 160 kbit / x + 2
    assert crossover.bandwidth_mbps == pytest.approx(160 / 28)


def test_a_model_that_is_not_to_be_split_is_told_so() -> None:
    found = plan((LOCAL, OFFLOAD, split(0, bytes_up=400_000)))
    assert found.dont_split and found.verdict.startswith("do not split this model")
    assert not plan((LOCAL, OFFLOAD, split(0))).dont_split
    assert "no split points" in plan((LOCAL, OFFLOAD)).verdict


def test_sixty_split_points_three_devices_and_a_hundred_links_are_planned_quickly() -> None:
    grid = Grid(
        rtt_ms=(5, 20, 50, 100), bandwidth_mbps=tuple(np.geomspace(0.1, 100, 25)), device_load=(0,), server_load=(0,)
    )
    start = time.perf_counter()
    for slower in (1, 3, 10):
        rows = (LOCAL, OFFLOAD, *(split(n, head_ms=slower * (1.0 + n)) for n in range(60)))
        plan(rows, grid).document()
    # The promise is one second; measured 0.03. A test must not fail because a neighbour is busy.
    assert time.perf_counter() - start < 10


def test_the_page_is_whole_and_needs_no_network() -> None:
    text = page(plan((LOCAL, OFFLOAD, split(0))), "a <plan>")
    assert "a &lt;plan&gt;" in text and text.count("<svg") == text.count("</svg>")
    assert "http://" not in text and "https://" not in text


def cut(found: Manifest) -> Manifest:
    """The tiny bundle with two segments, an exit between them and an operating point."""
    whole = found.graphs[0]

    def piece(name: str, role: str, macs: int) -> Graph:
        return msgspec.structs.replace(whole, id=name, role=role, macs=macs)

    graphs = (
        msgspec.structs.replace(whole, macs=40_000_000),
        piece("onnx.fp32.seg0", "segment", 30_000_000),
        piece("onnx.fp32.exit0", "exit", 1_000_000),
        piece("onnx.fp32.seg1", "segment", 10_000_000),
    )
    point = SplitPoint(
        id="onnx.fp32.middle",
        tensors=(WireTensor(name="h", dtype="int8", shape=("batch", 100)),),
        tail_inputs=("x",),
        bytes=100,
        before=("onnx.fp32.seg0",),
        after=("onnx.fp32.seg1",),
    )
    certified = OperatingPoint(
        id="risk1",
        graph_chain=("onnx.fp32.seg0", "onnx.fp32.exit0", "onnx.fp32.seg1"),
        thresholds=(0.9,),
        risk=0.01,
        confidence_level=0.95,
        n=1000,
        empirical_risk=0.004,
        exit_fractions=(0.6, 0.4),
    )
    return msgspec.structs.replace(
        found,
        graphs=graphs,
        split_points=(point,),
        exits=(Exit(id="e0", output="y", after="onnx.fp32.middle"),),
        operating_points=(certified,),
    )


def test_every_way_of_a_cut_bundle_has_its_cost(tmp_path: Path) -> None:
    with open_bundle(make_bundle(tmp_path / "tiny.edge", change=cut)) as bundle:
        device, server = Times(bundle, load("pi4")), Times(bundle, load("x86-vnni"))
        rows = {row.id: row for row in actions_of(bundle, device, server)}
        whole = device.of(bundle.graph("onnx.fp32")).ms
        assert set(rows) >= {"local", "exit:risk1", "offload", "split:onnx.fp32.middle"}
        assert rows["local"].head_ms == pytest.approx(whole)
        parts = [device.of(bundle.graph(f"onnx.fp32.{name}")).ms for name in ("seg0", "exit0", "seg1")]
        assert rows["exit:risk1"].head_ms == pytest.approx(parts[0] + parts[1] + 0.4 * parts[2])
        assert rows["exit:risk1"].highest_drop == 0.01
        split_row = rows["split:onnx.fp32.middle"]
        assert split_row.head_ms == pytest.approx(parts[0])
        assert split_row.bytes_up == 100 + 4 * 4 + 300  # the tensor, the input that the tail needs again, framing
        assert split_row.tail_ms == pytest.approx(server.of(bundle.graph("onnx.fp32.seg1")).ms)
        assert plan(tuple(rows.values())).verdict


def test_int8_on_a_float_wire_costs_the_accuracy_that_was_measured_for_this_very_split_point(tmp_path: Path) -> None:
    def change(found: Manifest) -> Manifest:
        found = cut(found)
        (point,) = found.split_points
        tensors = (msgspec.structs.replace(point.tensors[0], dtype="float32"),)
        points = tuple(msgspec.structs.replace(point, id=f"onnx.fp32.{n}", tensors=tensors) for n in ("a", "b", "c"))
        row = Action(id="", kind="split", graphs=(*point.before, *point.after), codec="int8-row", n=100)
        rows = (
            msgspec.structs.replace(row, id="split:onnx.fp32.a:int8-row", accuracy_drop=0.01, interval_95=(0.0, 0.02)),
            msgspec.structs.replace(row, id="split:onnx.fp32.b:int8-row", accuracy_drop=-0.1, interval_95=(-0.2, 0.0)),
        )
        return msgspec.structs.replace(found, split_points=points, actions=rows)

    with open_bundle(make_bundle(tmp_path / "tiny.edge", change=change)) as bundle:
        device, server = Times(bundle, load("pi4")), Times(bundle, load("x86-vnni"))
        rows = {row.id[-1]: row for row in actions_of(bundle, device, server) if row.kind == "split"}
    assert (rows["a"].accuracy_drop, rows["a"].accuracy_drop_high, rows["a"].codec) == (0.01, 0.02, "int8-row")
    assert (rows["b"].accuracy_drop, rows["b"].accuracy_drop_high) == (0.0, 0.0)
    assert rows["c"].accuracy_drop is None  # never measured


def test_a_graph_of_which_nothing_is_known_is_refused_with_the_way_out(tmp_path: Path) -> None:
    with open_bundle(make_bundle(tmp_path / "tiny.edge")) as bundle:
        times = Times(bundle, load("pi4"))
        with pytest.raises(Refused, match="edgekit profile BUNDLE --device pi4"):
            times.of(bundle.graph("onnx.fp32"))
        with pytest.raises(Refused, match="pi4"):
            actions_of(bundle, times, times)
