from __future__ import annotations

from collections.abc import Mapping
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgekit_runtime.decoding import Loop, encoder_of, greedy
from edgekit_runtime.errors import BundleInvalid
from edgekit_runtime.manifest import Decoding, Graph, Manifest, Source, State, Tensor

BEGIN, END, LIMIT, LETTERS = 1, 2, 6, 30
FORM = Decoding(
    token="token", scores="scores", states=(State(input="said", output="next_said"),), begin=BEGIN, end=END, limit=LIMIT
)
WANTED = (
    Tensor(name="token", dtype="int32", shape=("B",)),
    Tensor(name="start", dtype="float32", shape=("B",)),
    Tensor(name="long", dtype="int32", shape=("B",)),
    Tensor(name="said", dtype="float32", shape=("B", 1)),
)


def encode(inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    return {"start": inputs["first"].astype(np.float64)}


def step(inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Says `start`, `start` + 1, ... `long` times, then the end; `said` counts."""
    assert {name: array.dtype.name for name, array in inputs.items()} == {t.name: t.dtype for t in WANTED}
    said = inputs["said"][:, 0]
    first = said == 0
    following = np.where(first, inputs["start"], inputs["token"] + 1)
    assert (inputs["token"][first] == BEGIN).all()
    token = np.where(said >= inputs["long"], END, following).astype(int)
    return {"scores": np.eye(LETTERS)[token], "next_said": inputs["said"] + 1}


def decode(first: list[int], long: list[int]) -> np.ndarray:
    return greedy(encode, step, WANTED, FORM, {"first": np.array(first), "long": np.array(long)})["tokens"]


def test_each_sample_ends_by_itself_and_is_filled_with_zeros() -> None:
    expected = [[5, 6, 0, 0, 0, 0], [7, 8, 9, 10, 0, 0], [0, 0, 0, 0, 0, 0]]
    np.testing.assert_array_equal(decode([5, 7, 9], [2, 4, 0]), expected)


def test_the_first_step_takes_what_the_encoder_makes_the_begin_token_and_empty_states() -> None:
    encoder, stepper = SimpleNamespace(run=encode, inputs=()), SimpleNamespace(inputs=WANTED, graph=None)
    loop = Loop(encoder, stepper, FORM, ())  # type: ignore[arg-type]  # as much of two runners as it needs
    first = loop.first({"first": np.array([5, 7]), "long": np.array([2, 3])})
    assert list(first) == [tensor.name for tensor in WANTED]
    assert {name: array.dtype.name for name, array in first.items()} == {each.name: each.dtype for each in WANTED}
    assert {name: array.tolist() for name, array in first.items()} == {
        "token": [BEGIN, BEGIN], "start": [5, 7], "long": [2, 3], "said": [[0], [0]],
    }  # fmt: skip


def test_a_sequence_without_end_stops_at_the_limit() -> None:
    np.testing.assert_array_equal(decode([4], [99]), [[4, 5, 6, 7, 8, 9]])


@given(st.lists(st.tuples(st.integers(3, 12), st.integers(0, 9)), min_size=1, max_size=5))
def test_company_in_a_batch_changes_no_sequence(samples: list[tuple[int, int]]) -> None:
    first, long = (list(part) for part in zip(*samples, strict=True))
    together = decode(first, long)
    assert together.shape == (len(samples), LIMIT)
    for row, sample in zip(together, samples, strict=True):
        np.testing.assert_array_equal(decode([sample[0]], [sample[1]])[0], row)


def manifest(*graphs: tuple[str, str, str]) -> Manifest:
    made = tuple(
        Graph(
            id=f"{kind}.{precision}.{role}", format=kind, precision=precision, role=role, path="", bytes=1, sha256="",
            inputs=(), outputs=(), engine="", min_engine_version="",
        )
        for kind, precision, role in graphs
    )  # fmt: skip
    source = Source(kind="module", exporter="")
    return Manifest(
        name="s", tool_versions={}, source=source, inputs=(), outputs=(), graphs=made, decoding=FORM, files={}
    )


def test_a_step_goes_with_the_encoder_of_its_precision_else_with_that_in_fp32() -> None:
    bundle = manifest(
        ("onnx", "fp32", "encoder"), ("onnx", "int8", "encoder"), ("onnx", "int8", "decode_step"),
        ("tflite", "fp32", "encoder"), ("tflite", "int8", "decode_step"),
    )  # fmt: skip
    steps = [graph for graph in bundle.graphs if graph.role == "decode_step"]
    assert [encoder_of(bundle, graph).id for graph in steps] == ["onnx.int8.encoder", "tflite.fp32.encoder"]
    alone = manifest(("onnx", "int8", "decode_step"))
    with pytest.raises(BundleInvalid, match="no encoder"):
        encoder_of(alone, alone.graphs[0])
