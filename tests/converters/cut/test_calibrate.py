from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from edgekit.cli.app import run
from edgekit_converters.exits.calibrate import Request, calibrate_exits
from edgekit_runtime.bundle import Bundle
from edgekit_runtime.chain import Chain
from edgekit_runtime.errors import Refused, UsageError


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """400 pictures without labels."""
    path = tmp_path / "data.npz"
    np.savez(path, image=np.random.default_rng(1).normal(size=(400, 1, 8, 8)).astype(np.float32))
    return path


def silent(line: str) -> None:
    pass


def test_each_chain_gets_an_operating_point_a_risk_and_the_bundle_a_new_id(
    exits_bundle: Bundle, data: Path, tmp_path: Path
) -> None:
    made, found = calibrate_exits(exits_bundle.root, tmp_path / "new.edge", Request(data, (0.05, 0.3)), silent)
    assert made.bundle_id != exits_bundle.bundle_id
    made.check_files()
    assert len(found) == 8
    for item in found:
        assert item.point.n == 400 and len(item.point.thresholds) == 3 == len(item.point.exit_fractions)
        assert sum(item.point.exit_fractions) == pytest.approx(1)
    actions = {action.operating_point: action for action in made.manifest.actions}
    for point in made.manifest.operating_points:
        assert actions[point.id].kind == "exit" and actions[point.id].accuracy_drop == pytest.approx(
            point.empirical_risk
        )


def test_an_operating_point_answers_as_it_was_certified(exits_bundle: Bundle, data: Path, tmp_path: Path) -> None:
    made, _ = calibrate_exits(exits_bundle.root, tmp_path / "new.edge", Request(data, (0.3,)), silent)
    inputs = {"image": np.load(data)["image"]}
    points = {point.of: point for point in made.manifest.operating_points}
    for graph in ("onnx.int8", "tflite.int8"):
        with Chain(made, graph) as chain:
            answered = chain.infer(inputs, points[graph])
            full = chain.scores(inputs)[-1].argmax(-1)
        left = np.bincount(answered.exits, minlength=3) / 400
        assert left == pytest.approx(points[graph].exit_fractions, abs=0.0051)
        assert (answered.outputs["full"].argmax(-1) != full).mean() == pytest.approx(
            points[graph].empirical_risk, abs=0.0051
        )


def test_an_operating_point_of_other_graphs_is_refused(exits_bundle: Bundle, data: Path, tmp_path: Path) -> None:
    import msgspec

    made, _ = calibrate_exits(exits_bundle.root, tmp_path / "new.edge", Request(data, (0.3,)), silent)
    point = next(p for p in made.manifest.operating_points if p.of == "onnx.int8")
    inputs = {"image": np.load(data)["image"][:1]}
    with Chain(made, "onnx.fp32") as chain, pytest.raises(UsageError, match="certified for other graphs"):
        chain.infer(inputs, point)
    with Chain(made, "onnx.int8") as chain, pytest.raises(UsageError, match="certified for other graphs"):
        chain.infer(inputs, msgspec.structs.replace(point, chain_sha256="0" * 64))


def test_labels_count_only_what_the_full_answer_had_right(exits_bundle: Bundle, data: Path, tmp_path: Path) -> None:
    inputs = np.load(data)["image"]
    with Chain(exits_bundle, "onnx.int8") as chain:
        full = chain.scores({"image": inputs})[-1].argmax(-1)
    labelled = tmp_path / "labelled.npz"
    np.savez(labelled, image=inputs, labels=np.where(np.arange(400) % 2, full, (full + 1) % 4))
    _, with_labels = calibrate_exits(exits_bundle.root, tmp_path / "a.edge", Request(labelled, (0.2,)), silent)
    _, without = calibrate_exits(
        exits_bundle.root, tmp_path / "b.edge", Request(labelled, (0.2,), agreement=True), silent
    )
    one, other = (next(i.point for i in found if i.point.of == "onnx.int8") for found in (with_labels, without))
    assert one.labels and not other.labels
    assert one.exit_fractions[-1] < other.exit_fractions[-1], "half of the answers cannot be lost any more"


def test_weights_of_exits_are_found_on_other_samples_only(exits_bundle: Bundle, data: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="--fit"):
        Request(data, combine=True).check()
    other = tmp_path / "other.npz"
    np.savez(other, image=np.random.default_rng(2).normal(size=(150, 1, 8, 8)).astype(np.float32))
    made, found = calibrate_exits(
        exits_bundle.root, tmp_path / "c.edge", Request(data, (0.3,), fit=other, combine=True), silent
    )
    point = next(item.point for item in found if item.point.of == "onnx.int8")
    assert [len(row) for row in point.mixes] == [1, 2, 3] and point.mixes[-1] == (0.0, 0.0, 1.0)
    assert all(sum(row) == pytest.approx(1) for row in point.mixes)
    with Chain(made, "onnx.int8") as chain:
        left = np.bincount(chain.infer({"image": np.load(data)["image"]}, point).exits, minlength=3) / 400
    assert left == pytest.approx(point.exit_fractions, abs=0.0051)


def test_the_command_tells_what_cannot_be_certified_and_the_samples_needed(
    exits_bundle: Bundle, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["calibrate-exits", str(exits_bundle.root), "--data", str(data), "--risk", "0.001,0.3", "--json"]
    assert run([*arguments, "-o", str(tmp_path / "d.edge")]) == 0
    rows = json.loads(capsys.readouterr().out)["operating_points"]
    few = [row for row in rows if row["risk"] == 0.001]
    assert all("too few" in row["reason"] and row["samples_needed"] == 2995 for row in few)
    assert all(not row["reason"] for row in rows if row["risk"] == 0.3)


def test_where_nothing_can_be_certified_the_gate_says_no_and_no_bundle_is_left(
    exits_bundle: Bundle, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["calibrate-exits", str(exits_bundle.root), "--data", str(data), "--risk", "0.001"]
    assert run([*arguments, "--json", "-o", str(tmp_path / "d.edge")]) == 4
    told = json.loads(capsys.readouterr().out)
    assert told["bundle"] is None and told["error"]["kind"] == "gate_failed"
    assert all(row["samples_needed"] == 2995 for row in told["operating_points"])
    assert run([*arguments, "-o", str(tmp_path / "d.edge")]) == 4
    assert "nothing was certified, no bundle was written" in capsys.readouterr().out
    assert not list(tmp_path.glob("*d.edge*"))


@pytest.mark.parametrize("name", ["taken.edge", "no-bundle.npz"])
def test_a_target_that_cannot_be_is_told_before_anything_runs(
    exits_bundle: Bundle, data: Path, tmp_path: Path, name: str
) -> None:
    (tmp_path / "taken.edge").mkdir()
    with pytest.raises(UsageError, match=r"exists|ends with"):
        calibrate_exits(exits_bundle.root, tmp_path / name, Request(data), pytest.fail)


def test_data_that_are_not_there_are_not_called_unreadable(exits_bundle: Bundle, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="there is no file"):
        calibrate_exits(exits_bundle.root, tmp_path / "n.edge", Request(tmp_path / "none.npz"), pytest.fail)


@pytest.mark.parametrize(
    ("arrays", "words"), [({"picture": np.zeros((3, 1, 8, 8), np.float32)}, "lacks image"), ({}, "lacks image")]
)
def test_data_without_the_inputs_are_refused(
    exits_bundle: Bundle, tmp_path: Path, arrays: dict[str, np.ndarray], words: str
) -> None:
    path = tmp_path / "wrong.npz"
    np.savez(path, **arrays)
    with pytest.raises(Refused, match=words):
        calibrate_exits(exits_bundle.root, tmp_path / "e.edge", Request(path), silent)


def test_a_bundle_without_exits_is_refused(masked_bundle: Bundle, data: Path, tmp_path: Path) -> None:
    with pytest.raises(Refused, match="no exits"):
        calibrate_exits(masked_bundle.root, tmp_path / "f.edge", Request(data), silent)


@pytest.mark.parametrize("request_", [{"risks": (0.0,)}, {"risks": ()}, {"confidence": 1.0}])
def test_risks_and_confidences_outside_0_and_1_are_refused(request_: dict[str, object], data: Path) -> None:
    with pytest.raises(UsageError):
        Request(data, **request_).check()  # type: ignore[arg-type]
