"""A cascade as an action of a session: here, and with the rest on a real server; nothing is lost, nothing wrong."""

from __future__ import annotations

import socket
from pathlib import Path

import msgspec
import numpy as np
import pytest

import edgekit_runtime as er
from edgekit_runtime.adaptive import Policy
from edgekit_runtime.adaptive.choose import Decision
from edgekit_runtime.adaptive.explain import plain
from edgekit_runtime.errors import InputMismatch, Refused, UsageError
from edgekit_runtime.remote.session import AdaptiveSession
from tests.edgekit.serve.cascade import ALL, RISK, SEEN, WEIGHTS, certified, requests, samples, saved, student, students

pytest.importorskip("grpc")

pytestmark = pytest.mark.alone
HERE, THERE = f"cascade:{RISK:g}", f"cascade:{RISK:g}:offload"


@pytest.fixture(scope="module")
def pair(tmp_path_factory) -> tuple[Path, Path]:
    return certified(tmp_path_factory.mktemp("cascade"))


def opened(pair: tuple[Path, Path], address: str, **changes: object) -> AdaptiveSession:
    options = {"first": pair[0], "policy": Policy(max_risk=0.5), **changes}
    found = er.open(pair[1], server=f"grpc://{address}", **options)
    assert isinstance(found, AdaptiveSession)
    return found


def only(session: AdaptiveSession, action: str, hedge_ms: float = 20_000.0) -> None:
    """Makes a session choose one action every time."""
    action = next(name for name in session._offers if name.startswith(action))
    plan, place = session.controller.plan, session.controller.actions.place(action)

    def forced(now_s: float, samples: int = 1):
        found = plan(now_s, samples)
        old = found.decision
        decision = Decision(old.actions, place, 1.0, old.link, old.load, old.policy)
        return msgspec.structs.replace(found, decision=decision, hedge_ms=hedge_ms, race="", ping=False)

    session.controller.plan = forced  # type: ignore[method-assign]


def wanted(session: AdaptiveSession, inputs: dict[str, np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """What a cascade answers by numpy alone, and which rows the small student does."""
    (point,) = session.local.bundle.manifest.operating_points
    small = inputs["first.x"] @ WEIGHTS[:SEEN]
    early = er.exits.score("max_softmax", small) >= point.thresholds[0]
    return np.where(early[:, None], small, inputs["x"] @ WEIGHTS), early


@pytest.mark.parametrize("action", [HERE, THERE])
@pytest.mark.parametrize("rows", [1, 32])
def test_each_row_is_answered_by_the_student_that_is_to_answer_it(start, pair, action, rows) -> None:
    with start((pair[1],)) as (address, _), opened(pair, address) as session:
        only(session, action)
        seen = np.zeros(2, int)
        for seed in range(12 if rows == 1 else 2):
            inputs = requests(rows, seed)
            answer, early = wanted(session, inputs)
            result = session.infer(inputs)
            assert result.decision.kind == "cascade" and result.timing.fallback == ""
            assert np.allclose(result.outputs["y"], answer, rtol=1e-4, atol=1e-5) and set(result.outputs) == {"y"}
            assert (result.timing.uplink_ms > 0) == (action == THERE and not early.all())
            seen += early.sum(), (~early).sum()
        assert seen.all()  # both students were asked, else the test shows nothing


def test_a_cascade_is_offered_only_under_a_named_risk_and_with_the_small_student(pair) -> None:
    with opened(pair, "127.0.0.1:1", policy=Policy()) as session:
        assert "names no max_risk" in session.left_out[HERE]
    with opened(pair, "127.0.0.1:1", policy=Policy(max_risk=RISK / 2)) as session:
        assert f"{RISK / 2:g} is allowed" in session.left_out[HERE]
    with opened(pair, "127.0.0.1:1", first=None) as session:
        assert "first=PATH of small" in session.left_out[HERE] and HERE not in session._offers
        session.infer({"x": samples(2, 1)})  # and the small student's arrays are not asked for
    with opened(pair, "127.0.0.1:1") as session:
        words = {row.id: plain(row) for row in session.controller.actions.actions}
        assert words[HERE].startswith("all here, a cheaper student first")
        assert "the full one on the server the rest" in next(text for name, text in words.items() if THERE in name)
        assert session.controller.actions[HERE].highest_drop == RISK


def test_an_absent_or_another_small_student_is_refused(pair, tmp_path) -> None:
    with pytest.raises(Refused, match=r"nowhere\.edge does not exist"):
        opened(pair, "127.0.0.1:1", first=tmp_path / "nowhere.edge")
    other = student(tmp_path / "small.edge", WEIGHTS[:SEEN] * 2)
    with pytest.raises(Refused, match="certified with small"):
        opened(pair, "127.0.0.1:1", first=other)
    _, plain_student = students(tmp_path / "plain")
    with pytest.raises(UsageError, match="no cascade is certified"):
        opened((pair[0], plain_student), "127.0.0.1:1")


def test_a_cascade_of_other_graphs_is_never_used(pair, tmp_path) -> None:
    import shutil

    shutil.copytree(pair[1], tmp_path / "big.edge")
    with er.open_bundle(pair[1]) as bundle:
        point = msgspec.structs.replace(bundle.manifest.operating_points[0], chain_sha256="0" * 64)
        found = msgspec.structs.replace(bundle.manifest, operating_points=(point,))
    (tmp_path / "big.edge" / "manifest.json").write_bytes(er.manifest.dump(found))
    with opened((pair[0], tmp_path / "big.edge"), "127.0.0.1:1") as session:
        assert "other graphs" in session.left_out[HERE]


@pytest.mark.parametrize(
    ("inputs", "words"),
    [
        ({"x": samples(2, 1)}, "lacks first.x"),
        ({**requests(2, 1), "first.x": samples(3, 1)[:, :SEEN]}, "2 samples for the student, 3"),
        ({**requests(2, 1), "first.x": samples(2, 1)}, "first.x"),
        ({**requests(2, 1), "x": samples(2, 1)[:, :SEEN]}, "do not fit"),
        ({**requests(2, 1), "first.z": samples(2, 1)}, "first.z"),
    ],
)
def test_inputs_that_do_not_fit_are_the_callers(pair, inputs, words) -> None:
    with opened(pair, "127.0.0.1:1") as session, pytest.raises(InputMismatch, match=words):
        session.infer(inputs)


def test_raw_items_become_the_inputs_of_both(tmp_path) -> None:
    from edgekit_converters.exits.calibrate import Request, calibrate_exits
    from tests.edgekit.serve.cascade import texts

    rule = '[inputs.x]\nkind = "bytes"\nlength = {}\n'
    small, big = students(
        tmp_path,
        **{name: {"assets/preprocess.toml": rule.format(n).encode()} for name, n in (("small", SEEN), ("big", ALL))},
    )
    request = Request(texts(tmp_path / "t.jsonl", 200), (0.6,), first=small)
    made, _ = calibrate_exits(big, tmp_path / "made.edge", request, lambda line: None)
    with opened((small, made.root), "127.0.0.1:1", policy=Policy(max_risk=1.0)) as session:
        inputs = session.encode(text="abcdefghij")
        assert {name: array.shape for name, array in inputs.items()} == {"x": (1, ALL), "first.x": (1, SEEN)}
        assert session.infer(inputs).outputs["y"].shape == (1, 4)


def test_a_server_that_dies_or_never_answers_costs_no_request(start, pair) -> None:
    inputs = requests(16, 4)
    full = inputs["x"] @ WEIGHTS
    with start((pair[1],)) as (address, _):
        session = opened(pair, address)
        only(session, THERE)
        assert session.infer(inputs).timing.server_ms > 0
    with session:
        for _ in range(3):
            result = session.infer(inputs)
            assert result.timing.fallback and np.allclose(result.outputs["y"], full, rtol=1e-4, atol=1e-5)
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen(8)
        with opened(pair, f"127.0.0.1:{silent.getsockname()[1]}") as session:
            only(session, THERE, hedge_ms=100.0)
            result = session.infer(inputs)
            assert "overdue" in result.timing.fallback
            assert np.allclose(result.outputs["y"], full, rtol=1e-4, atol=1e-5)


def test_another_full_student_of_the_same_name_is_refused_by_hash(start, pair, tmp_path) -> None:
    twin = student(tmp_path / "big.edge", WEIGHTS * 3)  # the name that the certified one kept
    with start((twin,)) as (address, _), opened(pair, address) as session:
        only(session, THERE)
        inputs = requests(16, 4)
        result = session.infer(inputs)
        assert "another version" in result.timing.fallback
        assert np.allclose(result.outputs["y"], inputs["x"] @ WEIGHTS, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("action", [HERE, THERE])
def test_drift_closes_every_action_of_the_certificate_and_the_session_goes_on(start, pair, action) -> None:
    with start((pair[1],)) as (address, _), opened(pair, address, check_fraction=1.0) as session:
        only(session, action)
        rng = np.random.default_rng(5)
        for _ in range(60):
            x = samples(16, int(rng.integers(1 << 30)))
            # The world has changed: the small student's numbers have nothing to do with the full one's any more.
            session.infer({"x": x, "first.x": rng.permutation(x)[:, :SEEN]})
        session._line.workers.submit(lambda: None).result()
        ids = {name for name in session._offers if name.startswith("cascade")}
        assert len(ids) == 2 and set(session.controller.policy.without) == ids
        assert all("differ from the full one" in session.left_out[name] for name in ids)
        del session.controller.plan  # as it chooses by itself
        inputs = requests(8, 6)
        result = session.infer(inputs)
        assert result.decision.kind != "cascade" and "switched off" in result.decision.explain()
        assert np.allclose(result.outputs["y"], inputs["x"] @ WEIGHTS, rtol=1e-4, atol=1e-5)


def test_without_drift_nothing_is_closed_and_only_the_asked_share_is_checked(pair) -> None:
    with opened(pair, "127.0.0.1:1", check_fraction=0.5) as session:
        only(session, HERE)
        for seed in range(100, 130):
            session.infer(requests(16, seed))
        session._line.workers.shutdown(wait=True)
        alarm = session._line.watch.alarms[HERE]
        assert not session.controller.policy.without and not alarm.closed
        early = sum(int(wanted(session, requests(16, seed))[1].sum()) for seed in range(100, 130))
        assert 0.35 * early < alarm.checked < 0.65 * early and alarm.disagreed <= 0.1 * alarm.checked
    with opened(pair, "127.0.0.1:1", check_fraction=0.0) as session:
        assert session._line.watch.alarms == {}
    with pytest.raises(UsageError, match="check_fraction is 2"):
        opened(pair, "127.0.0.1:1", check_fraction=2)


def test_a_certificate_on_labels_is_not_watched(pair, tmp_path) -> None:
    import shutil

    shutil.copytree(pair[1], tmp_path / "big.edge")
    with er.open_bundle(pair[1]) as bundle:
        point = msgspec.structs.replace(bundle.manifest.operating_points[0], labels=True)
        found = msgspec.structs.replace(bundle.manifest, operating_points=(point,))
    (tmp_path / "big.edge" / "manifest.json").write_bytes(er.manifest.dump(found))
    with opened((pair[0], tmp_path / "big.edge"), "127.0.0.1:1", check_fraction=1.0) as session:
        assert HERE in session._offers and session._line.watch.alarms == {}


def test_the_run_command_takes_the_small_student_and_says_why_a_cascade_is_left_out(
    start, pair, tmp_path, capsys
) -> None:
    import json

    from edgekit.cli.app import run

    file = saved(tmp_path / "request.npz", requests(2, 1))
    with start((pair[1],)) as (address, _):
        asked = ["run", str(pair[1]), "--input", str(file), "--json", "--policy", "max_risk=0.5"]
        assert run([*asked, "--server", f"grpc://{address}", "--first", str(pair[0])]) == 0
        told = json.loads(capsys.readouterr().out)
        assert any(row["kind"] == "cascade" for row in told["decisions"][0]["alternatives"])
        assert HERE not in told["left_out"]
        assert run([*asked, "--first", str(pair[0])]) == 2  # without a server there is nothing to choose
        assert "--server" in json.loads(capsys.readouterr().out)["error"]["remedy"]


def test_a_slim_bundle_keeps_the_cascade_of_the_graph_it_keeps(pair, tmp_path) -> None:
    from edgekit_converters.slim import keep_graphs

    slim = keep_graphs(pair[1], ("onnx.fp32",), tmp_path / "slim.edge")
    with opened((pair[0], slim.root), "127.0.0.1:1") as session:
        assert HERE in session._offers


@pytest.mark.parametrize("policy", [Policy(), Policy(max_risk=RISK / 2), Policy(max_risk=0.5)])
def test_a_session_a_plan_and_the_simulator_offer_the_same_lossy_actions(pair, policy) -> None:
    from edgekit.devices import load
    from edgekit.planner import plan, price
    from edgekit.planner.cascades import First
    from edgekit.planner.times import Times
    from edgekit.simulate import Setting, simulate
    from edgekit.simulate.traces import constant

    with er.open_bundle(pair[1]) as big, er.open_bundle(pair[0]) as small:
        own = First(small, Times(small, load("pi4")))
        rows = price(big, Times(big, load("pi4")), Times(big, load("x86-vnni")), (own,)).actions
    planned = plan(rows, policy=policy)
    study = simulate(Setting(rows, (constant(20, 10),), policy=policy, requests=5))
    with opened(pair, "127.0.0.1:1", policy=policy) as session:
        mine = {name for name in session._offers if name.startswith("cascade")}
        said = {name: why for name, why in session.left_out.items() if name == HERE}
    assert bool(mine) == (policy.max_risk == 0.5)
    assert {row.id for row in planned.actions.actions if row.kind == "cascade"} == mine
    assert {row.id for row in study.setting.actions if row.kind == "cascade"} == mine
    assert {name: why for name, why in planned.left_out.items() if name == HERE} == said
    assert study.left_out == planned.left_out == study.document()["left_out"] == planned.document()["left_out"]
