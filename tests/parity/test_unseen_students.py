"""Students outside the list through `edgekit.convert` as a user calls it: both formats, dynamic axes, split points."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

import edgekit
import edgekit_runtime as er
from edgekit_converters.captured import Arrays
from edgekit_converters.mixed import speed
from edgekit_converters.mixed.costs import Duel
from edgekit_converters.verify.metrics import cosine
from edgekit_converters.verify.parity import FP32_TOLERANCE
from tests.parity.unseen import STUDENTS, Unseen

GRAPHS = ("onnx.fp32", "onnx.int8", "tflite.fp32", "tflite.int8")
LENGTH = 12  # the example's
SHORT = 8  # of every second sample
SIZES = ((1, LENGTH), (3, LENGTH), (1, SHORT), (4, SHORT), (2, 9))
ALIKE = 0.9999  # students.md: what batch and padding may change


@pytest.fixture(autouse=True)
def int8_is_faster(monkeypatch: pytest.MonkeyPatch) -> None:
    """Which graph is faster at these sizes is noise of the machine, and not what is asked here."""
    duel = Duel(before_ms=2.0, after_ms=1.0, ratio=2.0, interval_95=(1.9, 2.1))
    monkeypatch.setattr(speed, "time_duel", lambda *_: duel)


def settled(unseen: Unseen) -> nn.Module:
    """The student with seeded weights and statistics of BatchNorm from some samples."""
    torch.manual_seed(0)
    module = unseen.module().train()
    with torch.no_grad():
        for seed in range(20):
            module(**tensors(unseen.make(8, LENGTH, 900 + seed)))
    return module.eval()


def tensors(arrays: Arrays) -> dict[str, torch.Tensor]:
    return {name: torch.from_numpy(array) for name, array in arrays.items()}


def converted(unseen: Unseen, module: nn.Module, folder: Path) -> er.Bundle:
    return edgekit.convert(
        module,
        out=folder / "student.edge",
        example=unseen.make(2, LENGTH, 0),
        calibration=[unseen.make(1, unseen.lengths[n % len(unseen.lengths)], 1 + n) for n in range(16)],
        dynamic=unseen.dynamic,
        metric="cosine",  # an untrained student has no task; its classes are near-ties
    )


def takes(session: er.Session, arrays: Arrays) -> bool:
    """Whether a TFLite file has a rung for these sizes: an axis that cannot be padded has those of the data alone."""
    try:
        session.run(arrays)
    except er.InputMismatch as error:
        assert "no rung of the graph takes" in str(error) and "graph='onnx.fp32'" in str(error)
        return False
    return True


def check_answers(unseen: Unseen, module: nn.Module, session: er.Session, precision: str) -> int:
    """Compares with torch at every size the graph takes; gives back how many those are."""
    ran = 0
    for number, (batch, length) in enumerate(SIZES):
        arrays = unseen.make(batch, length, 50 + number)
        if not takes(session, arrays):
            continue
        ran += 1
        with torch.no_grad():
            want = module(**tensors(arrays)).numpy()
        (got,) = session.run(arrays).values()
        if precision == "fp32":
            span = max(float(np.ptp(want)), float(np.abs(want).max()))
            assert np.abs(got - want).max() <= FP32_TOLERANCE * span, (batch, length)
        else:
            noise = 20 * np.log10(np.linalg.norm(want) / max(np.linalg.norm(got - want), 1e-30))
            assert noise >= unseen.least_db, (batch, length)
    return ran


def check_laws(unseen: Unseen, session: er.Session) -> None:
    """Neither company in a batch nor padding changes an answer."""
    arrays = unseen.make(4, LENGTH, 70)
    (together,) = session.run(arrays).values()
    for row in range(4):
        (alone,) = session.run({name: array[row : row + 1] for name, array in arrays.items()}).values()
        assert cosine(alone, together[row : row + 1]) >= ALIKE, row
    if unseen.padded:
        short = unseen.make(4, SHORT, 70)
        longer = {**short, unseen.padded: np.pad(short[unseen.padded], ((0, 0), (0, 3)))}
        (plain,), (padded,) = session.run(short).values(), session.run(longer).values()
        assert cosine(plain, padded) >= ALIKE


# Enough to see that the way of a user holds; the others ask the same of other pieces.
ALWAYS = ("bilstm_attention", "cross_attention")
LONG = (pytest.mark.slow, pytest.mark.long)


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=pytest.mark.slow if name in ALWAYS else LONG) for name in STUDENTS]
)
def test_a_student_nobody_knows_converts_as_a_user_asks(name: str, tmp_path: Path) -> None:
    unseen = STUDENTS[name]
    module = settled(unseen)
    bundle = converted(unseen, module, tmp_path)
    assert not bundle.manifest.refused, [refusal.reason for refusal in bundle.manifest.refused]
    graphs = {graph.id: graph for graph in bundle.manifest.graphs}
    assert set(GRAPHS) <= set(graphs)
    lengths = {axis.symbol: axis.role for axis in bundle.manifest.axes}
    for graph in GRAPHS:
        kind, precision = graph.split(".")
        with er.open(bundle.root, graph=graph, threads=1) as session:
            ran = check_answers(unseen, module, session, precision)
            fixed = kind == "tflite" and "other" in lengths.values()
            assert ran == (len(SIZES) - fixed), graph
            check_laws(unseen, session)
        if precision == "int8":
            assert graphs[graph].bytes < graphs[f"{kind}.fp32"].bytes
    assert bundle.manifest.split_points, "auto finds a place to cut"
