"""Cascades of two students: what is certified, how their inputs are found, and every pair that cannot be one."""

from __future__ import annotations

import json
from pathlib import Path

import msgspec
import numpy as np
import pytest

import edgekit_runtime as er
from edgekit.cli.app import run
from edgekit_converters.exits.calibrate import Found, NothingCertified, Request, calibrate_exits
from edgekit_runtime.bundle import Bundle
from edgekit_runtime.cascade import digest
from edgekit_runtime.errors import Refused, UsageError
from tests.edgekit.serve.cascade import ALL, RISK, SEEN, WEIGHTS, requests, samples, saved, student, students, texts

BYTES = '[inputs.x]\nkind = "bytes"\nlength = {}\n'


def cascade(folder: Path, small: Path, big: Path, data: Path, **changes: object) -> tuple[Bundle, tuple[Found, ...]]:
    request = Request(data, **{"risks": (RISK,), "first": small, **changes})  # type: ignore[arg-type]
    return calibrate_exits(big, folder / "made.edge", request, lambda line: None, force=True)


def test_the_operating_point_names_the_small_bundle_and_keeps_its_risk_on_new_samples(tmp_path: Path) -> None:
    small, big = students(tmp_path)
    made, (found,) = cascade(tmp_path, small, big, saved(tmp_path / "d.npz", requests(500, 1)))
    (point,) = made.manifest.operating_points
    assert found.reason == "" and point.first is not None
    with er.open_bundle(small) as bundle:
        assert point.first.bundle_id == bundle.bundle_id and point.first.sha256 == bundle.graph("onnx.fp32").sha256
    assert point.chain_sha256 == digest(point.first, made.graph("onnx.fp32").sha256)
    assert not point.first.shared and point.output == "y" and point.n == 500
    assert 0.2 < point.exit_fractions[0] < 1 and point.empirical_risk <= RISK
    (action,) = made.manifest.actions
    assert (action.kind, action.operating_point) == ("cascade", point.id)
    x = samples(20_000, 2)
    logits = x[:, :SEEN] @ WEIGHTS[:SEEN]
    sure = er.exits.score("max_softmax", logits) >= point.thresholds[0]
    assert (sure & (logits.argmax(1) != (x @ WEIGHTS).argmax(1))).mean() <= RISK
    made.check_files()


def test_exits_stay_when_a_cascade_comes_and_a_second_cascade_takes_the_place_of_the_first(tmp_path: Path) -> None:
    small, big = students(tmp_path)
    data = saved(tmp_path / "d.npz", requests(500, 1))
    made, _ = cascade(tmp_path, small, big, data)
    kept = msgspec.structs.replace(made.manifest.operating_points[0], id="an exit", first=None)
    found = msgspec.structs.replace(made.manifest, operating_points=(kept, *made.manifest.operating_points))
    (made.root / "manifest.json").write_bytes(er.manifest.dump(found))
    again, _ = calibrate_exits(
        made.root, tmp_path / "again.edge", Request(data, (0.4,), first=small), lambda line: None
    )
    assert [point.id for point in again.manifest.operating_points] == ["an exit", "onnx.fp32.cascade.small.risk0.4"]
    assert [action.operating_point for action in again.manifest.actions] == ["onnx.fp32.cascade.small.risk0.4"]


def test_students_that_take_the_same_arrays_share_them(tmp_path: Path) -> None:
    small = student(tmp_path / "small.edge", np.where(np.arange(ALL)[:, None] < SEEN, WEIGHTS, 0))
    big = student(tmp_path / "big.edge", WEIGHTS)
    made, _ = cascade(tmp_path, small, big, saved(tmp_path / "d.npz", {"x": samples(300, 1)}))
    (point,) = made.manifest.operating_points
    assert point.first is not None and point.first.shared


def test_raw_texts_go_through_the_preprocessing_of_each(tmp_path: Path) -> None:
    rules = {name: {"assets/preprocess.toml": BYTES.format(n).encode()} for name, n in (("small", SEEN), ("big", ALL))}
    small, big = students(tmp_path, **rules)
    made, _ = cascade(tmp_path, small, big, texts(tmp_path / "texts.jsonl", 300), risks=(0.6,))
    (point,) = made.manifest.operating_points
    assert point.first is not None and not point.first.shared and point.n == 300


def test_raw_texts_that_one_of_the_two_cannot_read_name_the_student(tmp_path: Path) -> None:
    small, big = students(tmp_path, small={"assets/preprocess.toml": BYTES.format(SEEN).encode()})
    with pytest.raises(Refused, match="big: the bundle does not say how 'text' becomes a tensor"):
        cascade(tmp_path, small, big, texts(tmp_path / "texts.jsonl", 300), risks=(0.6,))


def test_labels_count_only_what_the_full_student_had_right(tmp_path: Path) -> None:
    small, big = students(tmp_path)
    arrays = requests(500, 1)
    full = (arrays["x"] @ WEIGHTS).argmax(1)
    labels = np.where(np.arange(500) % 2, full, (full + 1) % 4)
    data = saved(tmp_path / "d.npz", {**arrays, "labels": labels})
    _, (with_labels,) = cascade(tmp_path, small, big, data, risks=(0.1,))
    _, (without,) = cascade(tmp_path, small, big, data, risks=(0.1,), agreement=True)
    assert with_labels.point.labels and not without.point.labels
    assert with_labels.point.exit_fractions[0] > without.point.exit_fractions[0]


def test_too_few_samples_are_told_with_the_number_needed(tmp_path: Path) -> None:
    small, big = students(tmp_path)
    with pytest.raises(NothingCertified) as caught:
        cascade(tmp_path, small, big, saved(tmp_path / "d.npz", requests(50, 1)), risks=(0.01,))
    (found,) = caught.value.found
    assert "too few" in found.reason and found.samples_needed == 299


@pytest.mark.parametrize(
    ("changes", "error", "words"),
    [
        ({"first": Path("nowhere.edge")}, Refused, "nowhere.edge does not exist"),
        ({"first_graph": "onnx.int8"}, UsageError, "no such full graph"),
        ({"answer": "z"}, UsageError, "no output 'z'"),
        ({"steps": "last"}, UsageError, "--first goes without --steps"),
        ({"combine": True}, UsageError, "--first goes without --combine"),
        ({"first": None, "first_graph": "onnx.fp32"}, UsageError, "without --first"),
    ],
)
def test_what_cannot_be_meant_is_told(tmp_path: Path, changes: dict[str, object], error: type, words: str) -> None:
    small, big = students(tmp_path)
    with pytest.raises(error, match=words):
        cascade(tmp_path, small, big, saved(tmp_path / "d.npz", requests(20, 1)), **changes)


def test_students_that_do_not_answer_the_same_question_are_refused(tmp_path: Path) -> None:
    _, big = students(tmp_path)
    data = saved(tmp_path / "d.npz", requests(20, 1))
    fewer = student(tmp_path / "fewer.edge", WEIGHTS[:SEEN, :3])
    with pytest.raises(Refused, match=r"\[1, 3\].*\[1, 4\]"):
        cascade(tmp_path, fewer, big, data)
    with pytest.raises(Refused, match="one bundle"):
        cascade(tmp_path, big, big, data)
    names = {key: {"assets/labels.txt": "\n".join(text).encode()} for key, text in (("small", "abcd"), ("big", "abdc"))}
    (tmp_path / "labelled").mkdir()
    labelled = students(tmp_path / "labelled", **names)
    with pytest.raises(Refused, match="label 2 is 'c' and 'd'"):
        cascade(tmp_path, *labelled, data)


def test_data_without_the_small_students_arrays_are_refused(tmp_path: Path) -> None:
    small, big = students(tmp_path)
    with pytest.raises(Refused, match=r"lacks first\.x"):
        cascade(tmp_path, small, big, saved(tmp_path / "d.npz", {"x": samples(20, 1), "first.z": samples(20, 1)}))


def test_the_commands_certify_show_and_plan_a_cascade(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    small, big = students(tmp_path)
    data, out = saved(tmp_path / "d.npz", requests(500, 1)), tmp_path / "made.edge"
    arguments = ["calibrate-exits", str(big), "--first", str(small), "--data", str(data), "--risk", "0.05,0.02"]
    assert run([*arguments, "-o", str(out), "--json"]) == 0
    rows = json.loads(capsys.readouterr().out)["operating_points"]
    assert [row["first"]["name"] for row in rows] == ["small", "small"]
    assert run(["inspect", str(out)]) == 0
    assert "small (onnx.fp32," in capsys.readouterr().out
    planning = ["plan", str(out), "--device", "pi4", "--link", "rtt=20,mbps=8", "--json"]
    assert run([*planning, "--first", str(small)]) == 0
    unnamed = json.loads(capsys.readouterr().out)
    assert {row["id"] for row in unnamed["actions"]} == {"local", "offload"}  # named, but no risk
    assert "max_risk" in unnamed["left_out"]["cascade:0.05"]
    planning += ["--policy", "max_risk=0.5"]
    assert run([*planning, "--first", str(small)]) == 0
    planned = json.loads(capsys.readouterr().out)
    ids = {row["id"] for row in planned["actions"]}
    assert {"cascade:0.05"} <= ids and any(name.startswith("cascade:0.05:offload") for name in ids)
    assert planned["left_out"] == {}
    assert run(planning) == 0
    left = json.loads(capsys.readouterr().out)
    assert "--first PATH, or first=PATH of small" in left["left_out"]["cascade:0.05"]
    assert not any(row["id"].startswith("cascade") for row in left["actions"])
    other = student(tmp_path / "other.edge", WEIGHTS[:SEEN] + 1)
    assert run([*planning, "--first", str(other)]) == 3
    assert "certified with small" in json.loads(capsys.readouterr().out)["error"]["message"]
    lived = ["simulate", str(out), "--first", str(small), "--device", "pi4", "--trace", "rtt=20,mbps=8", "--json"]
    assert run([*lived, "--requests", "20", "--policy", "max_risk=0.5"]) == 0
    assert json.loads(capsys.readouterr().out)["lost"] == 0


def test_a_command_that_certifies_nothing_ends_with_4_and_the_samples_needed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    small, big = students(tmp_path)
    data = saved(tmp_path / "few.npz", requests(40, 1))
    arguments = ["calibrate-exits", str(big), "--first", str(small), "--data", str(data), "--risk", "0.01"]
    assert run([*arguments, "-o", str(tmp_path / "made.edge"), "--json"]) == 4
    told = json.loads(capsys.readouterr().out)
    assert "40 samples are too few" in told["error"]["message"] and "299 samples" in told["error"]["remedy"]
    assert [row["samples_needed"] for row in told["operating_points"]] == [299]
