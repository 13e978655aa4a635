"""A real student cut in two: head here, tail on a real server, the same answer bit by bit."""

from __future__ import annotations

import time
from pathlib import Path

import msgspec
import numpy as np
import pytest

pytest.importorskip("grpc", reason="gRPC is not installed: pip install 'edgekit[server]'")
pytest.importorskip("prometheus_client", reason="prometheus_client is not installed: pip install 'edgekit[server]'")

import edgekit_runtime as er
from edgekit.devices import load
from edgekit.planner import plan, price
from edgekit.planner.times import Times
from edgekit_runtime.remote.exchange import Exchange

X = np.random.default_rng(0).normal(size=(4, 3, 32, 32)).astype(np.float32)


@pytest.fixture(scope="module")
def cut(tmp_path_factory) -> Path:
    torch = pytest.importorskip("torch")
    import edgekit

    torch.manual_seed(0)
    module = torch.nn.Sequential(
        torch.nn.Conv2d(3, 16, 3, padding=1, stride=2),
        torch.nn.ReLU(),
        torch.nn.Conv2d(16, 32, 3, padding=1, stride=2),
        torch.nn.ReLU(),
        torch.nn.AdaptiveAvgPool2d(1),
        torch.nn.Flatten(),
        torch.nn.Linear(32, 10),
    )
    out = tmp_path_factory.mktemp("cut") / "small.edge"
    edgekit.convert(
        module, out=out, example={"input": X[:1]}, calibration={"input": X}, formats=["onnx"], split_points=("all",)
    )
    return out


@pytest.mark.slow  # a conversion
def test_every_split_over_a_socket_gives_the_answer_of_the_whole(start, cut) -> None:
    with start((cut,)) as (address, _), er.open(cut, server=f"grpc://{address}", threads=1) as session:
        name = session.local.inputs[0].name
        inputs = {name: X[:2]}
        want = session.local.run(inputs)
        splits = [offer for offer in session._offers.values() if offer.cost.kind == "split"]
        assert len(splits) >= 3
        for offer in splits:
            line, plan = session._line, session.controller.plan(time.monotonic())
            plan = msgspec.structs.replace(plan, hedge_ms=20_000.0, race="")
            result = Exchange(line, inputs, plan, offer, line.local, time.perf_counter()).result()
            assert result.timing.server_ms > 0, result.timing.fallback
            assert {key: value.tobytes() for key, value in result.outputs.items()} == {
                key: value.tobytes() for key, value in want.items()
            }
        results = [session.infer(inputs) for _ in range(20)]
        assert all(np.array_equal(result.outputs[key], want[key]) for result in results for key in want)


@pytest.mark.slow  # shares the conversion
def test_a_cut_student_is_planned_with_its_split_points(cut) -> None:
    with er.open_bundle(cut) as bundle:
        rows = price(bundle, Times(bundle, load("pi4")), Times(bundle, load("x86-vnni"))).actions
        found = plan(rows)
    kinds = {row.kind for row in rows}
    assert {"local", "offload", "split"} <= kinds
    assert found.document()["verdict"]


@pytest.mark.slow  # shares the conversion
def test_the_pieces_of_a_cut_student_are_predicted_to_take_as_long_as_the_whole(cut) -> None:
    with er.open_bundle(cut) as bundle:
        times = Times(bundle, load("pi4"), threads=1)
        for point in bundle.manifest.split_points:
            pieces = sum(times.of(bundle.graph(name)).ms for name in (*point.before, *point.after))
            whole = times.of(bundle.graph(point.of)).ms
            # Every piece costs a run of its own (6 us there), and an engine fuses less across a cut.
            assert 0.9 * whole < pieces < 1.5 * whole
