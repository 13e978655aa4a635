"""Which places stand for all: laws of CKA and k-medoids, and a student that is cut at a few."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import edgekit
from edgekit_converters.cut.representative import MAX_FEATURES, alike, features, k_medoids, linear_cka, stand_ins
from edgekit_converters.options import Options
from edgekit_runtime.chain import split_points
from edgekit_runtime.errors import UsageError
from tests.converters.cut.conftest import Masked, loud, texts

SEEDS = st.integers(0, 2**32 - 1)
ROUNDING = 1e-9  # sums of at most 12 x 12 products in float64


def layer(rng: np.random.Generator) -> np.ndarray:
    return rng.normal(size=(12, rng.integers(1, 30))) * 10.0 ** rng.integers(-6, 6)


@settings(max_examples=60, deadline=None)
@given(SEEDS, st.floats(1e-3, 1e3))
def test_cka_is_one_for_equal_rotated_moved_and_scaled_features(seed, scale) -> None:
    rng = np.random.default_rng(seed)
    own = layer(rng)
    rotation = np.linalg.qr(rng.normal(size=(own.shape[1], own.shape[1])))[0]
    for other in (own, own @ rotation, own * -scale, own + own.std() * 3):
        assert linear_cka(own, other) == pytest.approx(1.0, abs=ROUNDING)


@settings(max_examples=60, deadline=None)
@given(SEEDS)
def test_cka_is_symmetric_lies_between_zero_and_one_and_does_not_see_scale(seed) -> None:
    rng = np.random.default_rng(seed)
    first, second = layer(rng), layer(rng)
    found = linear_cka(first, second)
    assert 0 <= found <= 1
    assert linear_cka(second, first) == pytest.approx(found, abs=ROUNDING)
    assert linear_cka(first * 7.5, second) == pytest.approx(found, abs=ROUNDING)


def test_cka_is_that_of_the_published_formula() -> None:
    rng = np.random.default_rng(0)
    x, y = (a - a.mean(0) for a in (rng.normal(size=(20, 5)), rng.normal(size=(20, 9))))
    wanted = np.linalg.norm(y.T @ x) ** 2 / (np.linalg.norm(x.T @ x) * np.linalg.norm(y.T @ y))
    assert linear_cka(x, y) == pytest.approx(wanted, abs=ROUNDING)


def test_a_layer_that_tells_no_sample_apart_is_like_nothing_else() -> None:
    same = np.full((6, 3), 0.1, np.float32)
    assert linear_cka(same, np.random.default_rng(0).normal(size=(6, 3))) == 0.0
    assert linear_cka(same, same) == 1.0


@settings(max_examples=60, deadline=None)
@given(SEEDS, st.integers(1, 14), st.integers(1, 6))
def test_k_medoids_are_distinct_members_and_no_exchange_is_better(seed, members, k) -> None:
    points = np.random.default_rng(seed).normal(size=(members, 2))
    distances = np.linalg.norm(points[:, None] - points[None], axis=-1)
    found = k_medoids(distances, k)
    assert len(set(found)) == len(found) == min(k, members)
    assert set(found) <= set(range(members)) and list(found) == sorted(found)
    cost = distances[:, found].min(1).sum()
    for at in range(len(found)):
        for other in set(range(members)) - set(found):
            changed = [*found[:at], other, *found[at + 1 :]]
            assert distances[:, changed].min(1).sum() >= cost * (1 - ROUNDING)


def test_every_layer_is_stood_for_by_one_of_its_own_group() -> None:
    rng = np.random.default_rng(1)
    one, two = rng.normal(size=(2, 20, 8))
    layers = [one, one * 2, two + 1, one + 0.01 * rng.normal(size=one.shape), two]
    found = stand_ins(layers, 2)
    assert len(set(found)) == 2
    assert {found[0], found[1], found[3]} <= {0, 1, 3} and {found[2], found[4]} <= {2, 4}
    assert all(found[member] == member for member in found)
    assert alike(layers).shape == (5, 5)


def test_features_do_not_depend_on_the_size_of_a_dynamic_axis_and_stay_few() -> None:
    rows = [features([np.ones((1, length, 7), np.float32)], [("B", "T", 7)]) for length in (3, 11)]
    assert rows[0].tolist() == rows[1].tolist() == [1.0] * 7
    assert len(features([np.zeros((1, 3, 100, 100), np.int8)], [(1, 3, 100, 100)])) <= MAX_FEATURES


@pytest.mark.parametrize("wanted", [("auto:0",), ("auto:x",), ("auto:-1",), ("auto:2", "layers.0"), ("auto:2", "all")])
def test_a_number_of_places_that_cannot_be_meant_is_refused(wanted) -> None:
    with pytest.raises(UsageError, match="--split-points"):
        Options(source="a.py:b", out=Path("a.edge"), split_points=wanted).check()


def test_a_student_is_cut_at_as_many_places_as_were_asked_and_the_others_say_which_one_stands_for_them(
    tmp_path,
) -> None:
    with edgekit.convert(
        loud(Masked()),
        out=tmp_path / "few.edge",
        calibration={"ids": texts(16, 20)},
        dynamic=("ids:0=B:1-64", "ids:1=T:1-32"),
        metric="cosine",
        max_drop=0.2,
        split_points=("auto:2",),
    ) as bundle:
        named = [[point.place for point in split_points(bundle.manifest, g)] for g in ("onnx.fp32", "tflite.fp32")]
        assert len(named[0]) == 2 and named[0] == named[1]
        fates = [row["fate"] for row in json.loads((bundle.root / "assets/cuts/onnx.fp32.json").read_text())]
        told = [fate for fate in fates if fate.endswith("stands for it")]
        assert told and all(fate.split()[0] in named[0] for fate in told)
