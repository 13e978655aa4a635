"""A streaming student whose steps are certified: it ends early, as often as was certified."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

import edgekit
import edgekit_runtime as er
from edgekit_converters.exits.calibrate import NothingCertified, Request, calibrate_exits
from edgekit_runtime.errors import Refused, UsageError

STEPS = 5


class Votes(nn.Module):
    """Adds up what it sees: an answer that grows surer with each step."""

    def forward(self, x: torch.Tensor, h: torch.Tensor) -> dict[str, torch.Tensor]:
        h = h + x @ torch.eye(4)
        return {"scores": h * 2.0, "h_next": h}


def sequences(count: int, seed: int) -> np.ndarray:
    """One of four classes is one higher than the others in every step, in noise."""
    rng = np.random.default_rng(seed)
    classes = rng.integers(0, 4, count)
    return (rng.normal(0, 0.7, (count, STEPS, 4)) + np.eye(4)[classes][:, None]).astype(np.float32)


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> er.Bundle:
    x = sequences(16, 0)
    return edgekit.convert(
        Votes().eval(),
        out=tmp_path_factory.mktemp("temporal") / "votes.edge",
        calibration=[{"x": one[:1], "h": np.zeros((1, 4), np.float32)} for one in x],
        states=("h=h_next",),
        metric="cosine",
        dynamic=("x:0=B:1-64", "h:0=B:1-64"),
        formats=("onnx",),
        precision="fp32",
    )


def _save(path: Path, **arrays: np.ndarray) -> Path:
    np.savez(path, **arrays)
    return path


@pytest.mark.parametrize("how", ["last", "mean"])
def test_a_stream_ends_as_early_as_was_certified(bundle: er.Bundle, how: str, tmp_path: Path) -> None:
    x = sequences(600, 1)
    data = _save(tmp_path / "data.npz", x=x)
    made, found = calibrate_exits(
        bundle.root, tmp_path / "new.edge", Request(data, (0.1,), steps=how), lambda line: None
    )
    (item,) = found
    point = item.point
    assert item.action is None and not item.reason
    assert len(point.thresholds) == STEPS == len(point.exit_fractions)
    assert point.exit_fractions[-1] < 0.9, "some end early"
    with er.open(made.root, graph="onnx.fp32") as session:
        stream = session.stream(until=point.id)
        step = 0
        while not stream.done:
            stream.step({"x": x[:64, step]})
            step += 1
        whole = session.stream()
        logits = [whole.step({"x": x[:64, k]})["scores"] for k in range(STEPS)]
    full = logits[-1] if how == "last" else np.mean(logits, axis=0)
    differ = (stream.answers.argmax(-1) != full.argmax(-1)).mean()
    assert differ <= 0.2, "certified at 0.1; 64 sequences"
    assert len(np.unique(stream.exits)) > 1


def test_few_sequences_and_labels_of_their_own(bundle: er.Bundle, tmp_path: Path) -> None:
    x = sequences(20, 2)
    few = _save(tmp_path / "few.npz", x=x, labels=x.sum(1).argmax(-1))
    with pytest.raises(NothingCertified, match="no bundle was written") as caught:
        calibrate_exits(bundle.root, tmp_path / "f.edge", Request(few, steps="last"), lambda line: None)
    assert all("20 samples are too few" in item.reason for item in caught.value.found)
    assert all(item.point.labels for item in caught.value.found)
    assert not (tmp_path / "f.edge").exists()


def test_a_point_of_another_file_or_kind_is_refused(bundle: er.Bundle, tmp_path: Path) -> None:
    with er.open(bundle.root, graph="onnx.fp32") as session:
        with pytest.raises(UsageError, match="no operating point 'none'"):
            session.stream(until="none")
        data = _save(tmp_path / "data.npz", x=sequences(300, 3))
        _, found = calibrate_exits(
            bundle.root, tmp_path / "n.edge", Request(data, (0.2,), steps="last"), lambda line: None
        )
        import msgspec

        other = msgspec.structs.replace(found[0].point, chain_sha256="0" * 64)
        with pytest.raises(UsageError, match="certified for another graph"):
            session.stream(until=other)
        with pytest.raises(UsageError, match="exits in depth"):
            session.stream(until=msgspec.structs.replace(other, steps=""))


@pytest.mark.parametrize(
    ("request_", "error", "match"),
    [
        ({"steps": "first"}, UsageError, "--steps first"),
        ({"steps": "last", "answer": "h_next"}, UsageError, "no output 'h_next'"),
        ({}, Refused, "no exits that were cut"),
    ],
)
def test_what_cannot_be_meant_is_refused(
    bundle: er.Bundle, request_: dict[str, str], error: type[Exception], match: str, tmp_path: Path
) -> None:
    data = _save(tmp_path / "data.npz", x=sequences(20, 2))
    with pytest.raises(error, match=match):
        calibrate_exits(bundle.root, tmp_path / "n.edge", Request(data, **request_), lambda line: None)  # type: ignore[arg-type]


def test_sequences_of_the_wrong_shape_are_refused(bundle: er.Bundle, tmp_path: Path) -> None:
    for x, match in ((np.zeros((20, 1, 4), np.float32), "at least two steps"), (np.zeros((20,), np.float32), "axes")):
        data = _save(tmp_path / "data.npz", x=x)
        with pytest.raises(Refused) as caught:
            calibrate_exits(bundle.root, tmp_path / "n.edge", Request(data, steps="last"), lambda line: None)
        assert match in (caught.value.remedy or "")
