"""The integer-only RNN: the same bits from torch, numpy and both engines, and no floating point inside."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import edgekit
import edgekit_runtime as er
from edgekit.students import integer_reference, integer_rnn
from edgekit.students.fit import Plan, accuracy, fit, predict
from edgekit_converters.verify.audit import float_tensors

STUDENT = integer_rnn.build("tiny")
WEIGHTS = {name: value.numpy() for name, value in STUDENT.named_buffers()}


def reference(ids: np.ndarray) -> np.ndarray:
    return integer_reference.logits(WEIGHTS, ids)


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 10_000), batch=st.integers(1, 4), length=st.integers(1, 20))
def test_torch_gives_the_bits_of_the_numpy_reference(seed: int, batch: int, length: int) -> None:
    ids = integer_rnn.example(batch, length, "tiny", seed)["ids"]
    ids[-1] *= seed % 2  # sometimes a sentence without any word
    np.testing.assert_array_equal(STUDENT(torch.from_numpy(ids)).numpy(), reference(ids))


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> er.Bundle:
    return edgekit.convert(
        STUDENT,
        out=tmp_path_factory.mktemp("integer") / "s.edge",
        calibration={"ids": integer_rnn.example(16, 12, "tiny")["ids"]},
        dynamic=("ids:0=B:1-4", "ids:1=T:1-16"),
        split_points=("none",),
    )


@pytest.mark.parametrize("kind", ["onnx", "tflite"])
def test_a_file_gives_the_bits_of_the_numpy_reference_at_every_size(bundle: er.Bundle, kind: str) -> None:
    assert [g.id for g in bundle.manifest.graphs if g.format == kind] == [f"{kind}.int8"]
    with er.open(bundle.root, graph=f"{kind}.int8") as session:
        for batch, length in ((1, 1), (3, 7), (2, 12), (4, 16)):
            ids = integer_rnn.example(batch, length, "tiny", seed=length)["ids"]
            np.testing.assert_array_equal(session.run({"ids": ids})["output"], reference(ids))


@pytest.mark.parametrize("kind", ["onnx", "tflite"])
def test_no_tensor_between_the_ids_and_the_logits_is_floating_point(bundle: er.Bundle, kind: str) -> None:
    graph = bundle.graph(f"{kind}.int8")
    assert float_tensors(bundle.graph_path(graph)) == []
    assert graph.int8_weight_bytes_fraction == 1.0


def test_the_audit_finds_floating_point_where_there_is_some(tmp_path: Path) -> None:
    twin = edgekit.convert(
        integer_rnn.twin("tiny"), out=tmp_path / "twin.edge", example=integer_rnn.example(1, 5, "tiny"),
        precision="fp32", split_points=("none",),
    )  # fmt: skip
    for graph in twin.manifest.graphs:
        assert len(float_tensors(twin.graph_path(graph))) > 20


def test_what_is_trained_answers_as_the_student_does() -> None:
    ids = torch.from_numpy(integer_rnn.example(6, 15, "tiny", 3)["ids"])
    scale = 2 ** (integer_rnn.LOGIT - 3)
    np.testing.assert_array_equal((integer_rnn.learner("tiny")(ids) * scale).detach().numpy(), STUDENT(ids).numpy())


def test_a_student_that_was_taught_holds_what_was_learnt() -> None:
    rng = np.random.default_rng(0)
    ids = rng.integers(2, 40, (240, 8))
    labels = rng.integers(0, 2, 240)
    ids[np.arange(240), rng.integers(0, 8, 240)] = 100 + labels  # one word tells
    student = integer_rnn.build("tiny")
    plan = Plan(epochs=12, batch=20, peak_rate=2e-2, patience=12)
    fit(integer_rnn.teach(student), {"ids": ids[:200]}, labels[:200], plan)
    assert accuracy(predict(student, {"ids": ids[200:]}), labels[200:])[0] > 0.9
