"""Actions that may lose accuracy, over a socket: int8 wires, pictures, exits here, exits and then the server."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import msgspec
import numpy as np
import pytest

import edgekit_runtime as er
from edgekit_runtime import codecs
from edgekit_runtime.adaptive import Policy
from edgekit_runtime.adaptive.actions import ActionSet
from edgekit_runtime.adaptive.controller import Plan
from edgekit_runtime.adaptive.explain import plain
from edgekit_runtime.chain import Chain
from edgekit_runtime.errors import Refused
from edgekit_runtime.exits import NEVER
from edgekit_runtime.remote.answers import Result
from edgekit_runtime.remote.exchange import Exchange
from edgekit_runtime.remote.session import AdaptiveSession
from tests.edgekit.serve.early import GRAPH, NAME, pictures, write

pytestmark = pytest.mark.slow  # a conversion, shared by all


@pytest.fixture(scope="module")
def address(whole) -> Iterator[str]:
    """`edgekit serve` in a process of its own."""
    process = subprocess.Popen(
        [sys.executable, "-m", "edgekit", "serve", str(whole), "--port", "0", "--json"],
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    text = ""
    while not text.rstrip().endswith("}"):
        line = process.stdout.readline()
        assert line, "the server ended"
        text += line
    yield json.loads(text)["url"]
    process.kill()
    process.stdout.close()
    process.wait(20)


def opened(path: Path, url: str, **policy: object) -> AdaptiveSession:
    found = er.open(path, graph=GRAPH, engine="onnxruntime", threads=1, server=url, policy=Policy(**policy))
    assert isinstance(found, AdaptiveSession)
    return found


def done(session: AdaptiveSession, action: str, inputs: dict[str, np.ndarray]) -> Result:
    """A request by one action over the socket; the local run has half a minute before it may help."""
    offer = session._offers[action]
    plan = session.controller.plan(time.monotonic())
    place = session.controller.actions.place(action)
    decision = type(plan.decision)(
        plan.decision.actions, place, 1.0, plan.decision.link, plan.decision.load, plan.decision.policy
    )
    line = session._line
    exchange = Exchange(line, inputs, Plan(decision, 30_000.0), offer, line.local, time.perf_counter())
    result = exchange.result()
    assert result.timing.fallback == ""
    return result


def names(session: AdaptiveSession) -> set[str]:
    return {row.id for row in session.controller.actions.actions}


def test_without_a_risk_in_the_policy_nothing_that_may_lose_accuracy_is_offered(whole, address) -> None:
    with opened(whole, address) as session:
        assert all(row.highest_drop == 0.0 for row in session.controller.actions.actions)
        assert {"exit:0.01", f"offload:{'jpeg@90'}"} <= set(session.left_out)
        assert all("max_risk" in session.left_out[name] for name in ("exit:0.01", "offload:jpeg@90"))
        assert any(name.endswith("int8-row") and "max_risk" in why for name, why in session.left_out.items())


def test_a_risk_that_is_too_small_leaves_the_exits_out_and_says_both_numbers(whole, address) -> None:
    with opened(whole, address, max_risk=0.005) as session:
        assert not any(row.kind == "exit" for row in session.controller.actions.actions)
        assert "0.01" in session.left_out["exit:0.01"] and "0.005" in session.left_out["exit:0.01"]


def test_int8_on_the_wire_is_an_action_of_its_own_with_the_accuracy_of_the_manifest(whole, address) -> None:
    with opened(whole, address, max_risk=1.0) as session:
        rows = [row for row in session.controller.actions.actions if row.codec == codecs.INT8_ROW]
        listed = {row.id: row for row in session.local.bundle.manifest.actions}
        assert rows
        x = pictures(3, 5)
        for row in rows:
            action = listed[f"split:{GRAPH}.{row.split_point}:{codecs.INT8_ROW}"]
            assert row.accuracy_drop_high == max(action.interval_95[1], action.accuracy_drop, 0.0)
            plain = next(
                r
                for r in session.controller.actions.actions
                if r.id.startswith(f"split:{row.split_point}") and r.codec != codecs.INT8_ROW
            )
            assert row.bytes_up < plain.bytes_up
            got = done(session, row.id, {NAME: x}).outputs["full"]
            with (
                Chain(session.local.bundle, GRAPH, stop=row.split_point) as head,
                Chain(session.local.bundle, GRAPH, start=row.split_point) as tail,
            ):
                wire = {
                    key: codecs.decode(row.codec, codecs.encode(row.codec, value), value.dtype.name, value.shape)
                    for key, value in head.run({NAME: x}).items()
                }
                assert np.array_equal(got, tail.run(wire)["full"])


@pytest.mark.parametrize("codec", ["jpeg@90", "webp@85"])
def test_pictures_travel_small_at_a_stated_quality(whole, address, codec) -> None:
    pytest.importorskip("PIL")
    with opened(whole, address, max_risk=1.0) as session:
        row = session.controller.actions[f"offload:{codec}"]
        least = min(
            r.bytes_up for r in session.controller.actions.actions if r.kind == "offload" and "@" not in r.codec
        )
        assert row.bytes_up < least and row.accuracy_drop is not None
        x = pictures(3, 6)
        got = done(session, row.id, {NAME: x}).outputs["full"]
        sent = codecs.decode(codec, codecs.encode(codec, x), "float32", x.shape)
        assert np.allclose(got, session.local.run({NAME: sent})["full"], rtol=1e-5, atol=1e-5)
        assert not np.array_equal(got, session.local.run({NAME: x})["full"])


def test_without_pillow_pictures_are_not_offered_and_the_pip_line_is_told(whole, address, monkeypatch) -> None:
    monkeypatch.setattr(codecs, "_installed", lambda name: name not in codecs.PICTURES)
    with opened(whole, address, max_risk=1.0) as session:
        assert "offload:jpeg@90" not in names(session)
        assert "edgekit[image]" in session.left_out["offload:jpeg@90"]


def test_exits_answer_here_and_the_rest_goes_to_the_server_from_where_it_stands(whole, address) -> None:
    with opened(whole, address, max_risk=0.01) as session:
        x = pictures(24, 7)
        (point,) = session.local.bundle.manifest.operating_points
        with Chain(session.local.bundle, GRAPH) as chain:
            early = chain.infer({NAME: x}, point)
            full = session.local.run({NAME: x})["full"]
            said = chain.scores({NAME: x})
        assert set(early.exits) == {0, 1, 2}  # else the test shows nothing
        got = session._offers["exit:0.01"].way.begin({NAME: x})
        assert np.array_equal(got.outputs["full"], early.outputs["full"])
        thens = [row for row in session.controller.actions.actions if row.id.startswith("exit:0.01:split:")]
        assert len(thens) == 2 and [row.offload_fraction for row in thens] == [0.5, 0.25]
        for last, row in enumerate(thens):
            assert (row.kind, row.accuracy_drop_high) == ("exit", 0.01)
            wanted = np.where((early.exits <= last)[:, None], early.outputs["full"], full)
            answer = done(session, row.id, {NAME: x})
            # Some rows went alone: a batch of another size may round another way.
            assert np.allclose(answer.outputs["full"], wanted, rtol=1e-5, atol=1e-6)
            assert answer.timing.server_ms > 0
            sure = np.flatnonzero(early.exits == 0)[:1]
            alone = done(session, row.id, {NAME: x[sure]})
            assert np.allclose(alone.outputs["full"], said[0][sure], rtol=1e-5, atol=1e-6)
            assert alone.timing.server_ms == 0 and alone.timing.uplink_ms == 0  # it never left the device
            on = np.flatnonzero(early.exits > last)[:1]
            assert np.allclose(done(session, row.id, {NAME: x[on]}).outputs["full"], full[on], rtol=1e-5, atol=1e-6)


def test_every_action_answers_with_the_same_names(whole, address) -> None:
    with opened(whole, address, max_risk=1.0) as session:
        for action in sorted(names(session)):
            offer = session._offers[action]
            outputs = (
                done(session, action, {NAME: pictures(2, 8)}).outputs
                if offer.model
                else offer.way.begin({NAME: pictures(2, 8)}).outputs
            )
            assert {name: array.shape for name, array in outputs.items()} == {"full": (2, 4)}, action


def test_exits_that_speak_in_the_full_answer_are_not_handed_over(whole, address, tmp_path) -> None:
    with er.open_bundle(whole) as bundle:
        found = bundle.manifest
        old = found.operating_points[0]
    mixed = msgspec.structs.replace(old, mixes=((1.0,), (0.5, 0.5), (0.2, 0.3, 0.5)))
    never = msgspec.structs.replace(
        old, id="never", risk=0.001, thresholds=(NEVER, NEVER, 0.0), exit_fractions=(0.0, 0.0, 1.0)
    )
    shutil.copytree(whole, tmp_path / "early.edge")
    write(tmp_path / "early.edge", found, (mixed, never))
    with opened(tmp_path / "early.edge", address, max_risk=0.01) as session:
        assert "exit:0.01" in names(session)
        assert not any(name.startswith("exit:0.01:split") for name in names(session))
        assert any("mixed into the full answer" in why for why in session.left_out.values())
        assert "sure enough" in session.left_out["exit:0.001"]


def test_a_point_of_another_chain_is_never_used(whole, address, tmp_path) -> None:
    with er.open_bundle(whole) as bundle:
        found = bundle.manifest
    point = msgspec.structs.replace(found.operating_points[0], chain_sha256="0" * 64)
    shutil.copytree(whole, tmp_path / "early.edge")
    write(tmp_path / "early.edge", found, (point,))
    with opened(tmp_path / "early.edge", address, max_risk=0.01) as session:
        assert not any(row.kind == "exit" for row in session.controller.actions.actions)
        assert "certified" in session.left_out["exit:0.01"]


def test_an_exit_that_fails_is_answered_by_the_local_run(whole, address, monkeypatch) -> None:
    with opened(whole, address, max_risk=0.01, privacy="local", objective="latency") as session:
        x = {NAME: pictures(2, 9)}
        costs = session.controller.actions.actions
        quick = [msgspec.structs.replace(row, head_ms=1e-3) if row.id == "exit:0.01" else row for row in costs]
        session.controller.actions = ActionSet(quick)  # chosen for sure

        def broken(*_: object) -> None:
            raise Refused("the engine failed", remedy="")

        monkeypatch.setattr(session._offers["exit:0.01"].way.chain, "infer", broken)
        result = session.infer(x)
        assert result.decision.action == "exit:0.01" and "the engine failed" in result.timing.fallback
        assert np.array_equal(result.outputs["full"], session.local.run(x)["full"])


def test_the_decision_tells_of_exits_and_lossy_wires_in_plain_words(whole, address) -> None:
    with opened(whole, address, max_risk=1.0) as session:
        told = session.infer({NAME: pictures(1)}).decision.explain()
        assert "exit:0.01:split:" in told and "offload:jpeg@90" in told and "int8-row" in told and "that is: " in told
        words = {row.id: plain(row) for row in session.controller.actions.actions}
    assert words["local"] == "all here"
    assert words["exit:0.01"] == "all here, leaving at the first exit that is sure; may lose 0.01 of accuracy"
    then = next(text for name, text in words.items() if name.startswith("exit:0.01:split:"))
    assert "else the tail on the server from stem on (50% of requests)" in then
    assert "sent as JPEG of quality 90" in words["offload:jpeg@90"]
    assert any("int8 with a scale a row" in text for text in words.values())


@pytest.mark.parametrize("policy", [{}, {"max_risk": 1.0}])
def test_a_session_and_a_plan_offer_the_same_actions_and_leave_out_the_same(whole, policy) -> None:
    from edgekit.devices import load
    from edgekit.planner import plan, price
    from edgekit.planner.times import Times

    with er.open_bundle(whole) as bundle:
        priced = price(bundle, Times(bundle, load("pi4")), Times(bundle, load("x86-vnni")), graph=GRAPH)
    planned = plan(priced.actions, policy=Policy(**policy))
    with opened(whole, "grpc://127.0.0.1:1", **policy) as session:
        mine = {row.id: row for row in session.controller.actions.actions}
        theirs = {row.id: row for row in planned.actions.actions}
        # Which lossless codecs of the inputs are worth it besides the smallest hangs on times of this very moment.
        both = {name for name in mine if not name.startswith("offload") or "@" in name} | {"offload"}
        assert both == {name for name in theirs if not name.startswith("offload") or "@" in name} | {"offload"}
        assert {row.kind for row in mine.values()} >= ({"exit", "split"} if policy else {"split"})
        for name in both:
            same = ("kind", "bytes_up", "offload_fraction", "accuracy_drop", "highest_drop", "split_point", "depth")
            assert [getattr(mine[name], field) for field in same] == [getattr(theirs[name], field) for field in same]
        said = {**priced.left_out, **planned.left_out}
        assert said.keys() == session.left_out.keys()
        assert all(said[name] == why for name, why in session.left_out.items() if "bytes" not in why)
