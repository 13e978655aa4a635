"""Two cheaper students at hand: an action each, their inputs told apart by their names."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import edgekit_runtime as er
from edgekit_converters.exits.calibrate import Request, calibrate_exits
from edgekit_runtime.adaptive import Policy
from edgekit_runtime.errors import InputMismatch, UsageError
from edgekit_runtime.remote.session import AdaptiveSession
from tests.edgekit.serve.cascade import ALL, SEEN, WEIGHTS, certified, requests, samples, saved, student
from tests.edgekit.serve.test_cascade_session import only

pytest.importorskip("grpc")
LESS = 5
RISKS = {"small": 0.05, "tiny": 0.2}  # at these some leave early and some do not


@pytest.fixture(scope="module")
def three(tmp_path_factory) -> tuple[Path, Path, Path]:
    """The student that sees six numbers, one that sees five, and the full one with cascades of each."""
    folder = tmp_path_factory.mktemp("three")
    small, big = certified(folder, (RISKS["small"],))
    tiny = student(folder / "tiny.edge", WEIGHTS[:LESS])
    data = saved(folder / "less.npz", {"x": samples(500, 1), "first.x": samples(500, 1)[:, :LESS]})
    made, _ = calibrate_exits(big, folder / "both.edge", Request(data, (RISKS["tiny"],), first=tiny), lambda line: None)
    return small, tiny, made.root


def opened(three: tuple[Path, Path, Path], address: str = "127.0.0.1:1", **changes: object) -> AdaptiveSession:
    options = {"first": three[:2], "policy": Policy(max_risk=0.5), **changes}
    found = er.open(three[2], server=f"grpc://{address}", **options)
    assert isinstance(found, AdaptiveSession)
    return found


def both(n: int, seed: int) -> dict[str, np.ndarray]:
    x = samples(n, seed)
    return {"x": x, "first.small.x": x[:, :SEEN], "first.tiny.x": x[:, :LESS]}


@pytest.mark.parametrize(("name", "numbers"), [("small", SEEN), ("tiny", LESS)])
@pytest.mark.parametrize("there", [False, True])
def test_each_cascade_asks_its_own_first_student(start, three, name, numbers, there) -> None:
    with start((three[2],)) as (address, _), opened(three, address) as session:
        only(session, f"cascade:{name}:{RISKS[name]:g}" + (":offload" if there else ""))
        inputs = both(64, 3)
        (point,) = (p for p in session.local.bundle.manifest.operating_points if p.first.name == name)
        small = inputs["x"][:, :numbers] @ WEIGHTS[:numbers]
        early = er.exits.score("max_softmax", small) >= point.thresholds[0]
        assert early.any() and not early.all()
        result = session.infer(inputs)
        want = np.where(early[:, None], small, inputs["x"] @ WEIGHTS)
        assert result.timing.fallback == "" and (result.timing.uplink_ms > 0) == there
        assert np.allclose(result.outputs["y"], want, rtol=1e-4, atol=1e-5)


def test_with_one_of_them_named_the_other_is_told_and_its_arrays_are_not_asked_for(three) -> None:
    with opened(three, first=three[0]) as session:
        assert "first=PATH of tiny" in session.left_out[f"cascade:tiny:{RISKS['tiny']:g}"]
        assert f"cascade:small:{RISKS['small']:g}" in session._offers
        session.infer(requests(2, 1))


def test_what_does_not_fit_is_told(three) -> None:
    with pytest.raises(UsageError, match="not told apart"):
        opened(three, first=[three[0], three[0]])
    with opened(three) as session, pytest.raises(InputMismatch, match=r"first\.tiny\.x"):
        session.infer({name: array for name, array in both(2, 1).items() if "tiny" not in name})


def test_a_plan_offers_the_cascades_of_a_session_and_adds_what_the_first_students_encode(three, monkeypatch) -> None:
    from edgekit.devices import load
    from edgekit.planner import byte_work, cascades, plan, price
    from edgekit.planner.times import Times

    policy, pi4 = Policy(max_risk=0.5), load("pi4")
    with er.open_bundle(three[2]) as big, cascades.opened(three[:2], pi4) as first:
        device, server = Times(big, pi4), Times(big, load("x86-vnni"))
        bare = {row.id: row for row in price(big, device, server, first).actions}
        monkeypatch.setattr(
            cascades, "encode_ms", lambda bundle, inputs, seconds: 4.0 if bundle is first[0].bundle else 0.0
        )
        rows = price(big, device, server, first)
        found = {row.id: row for row in rows.actions}
    extra_ms = 4.0 * byte_work.slower_than_here(pi4)
    for name, row in found.items():
        wanted_ms = extra_ms if name.startswith("cascade:small:") else 0.0
        assert row.head_ms - bare[name].head_ms == pytest.approx(wanted_ms, abs=1e-9)
    with opened(three, policy=policy) as session:
        planned = plan(rows.actions, policy=policy)
        mine = {name for name in session._offers if name.startswith("cascade")}
        assert {row.id for row in planned.actions.actions if row.kind == "cascade"} == mine and len(mine) == 4
        assert {**rows.left_out, **planned.left_out} == session.left_out


def test_raw_texts_are_encoded_for_each(tmp_path) -> None:
    rule = '[inputs.x]\nkind = "bytes"\nlength = {}\n'

    def asset(numbers: int) -> dict[str, bytes]:
        return {"assets/preprocess.toml": rule.format(numbers).encode()}

    from tests.edgekit.serve.cascade import texts

    data, path = texts(tmp_path / "t.jsonl", 200), student(tmp_path / "big.edge", WEIGHTS, asset(ALL))
    small = [student(tmp_path / f"s{n}.edge", WEIGHTS[:n], asset(n)) for n in (SEEN, LESS)]
    for number, one in enumerate(small):
        path = calibrate_exits(path, tmp_path / f"m{number}.edge", Request(data, (0.6,), first=one), lambda _: None)[
            0
        ].root
    with opened((*small, path), policy=Policy(max_risk=1.0)) as session:
        inputs = session.encode(text="abcdefghij")
        shapes = {"x": (1, ALL), f"first.s{SEEN}.x": (1, SEEN), f"first.s{LESS}.x": (1, LESS)}
        assert {name: array.shape for name, array in inputs.items()} == shapes
        assert session.infer(inputs).outputs["y"].shape == (1, 4)
