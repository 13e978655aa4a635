"""`edgekit slim` on a converted bundle."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

import edgekit_runtime as er


def test_a_slim_bundle_answers_as_the_whole_one(edgekit: Any, bundle: Path, work: Path) -> None:
    done = edgekit("slim", "tiny.edge", "--target", "x86-vnni", "-o", "slim.edge", "--json")
    assert done.code == 0, done.err
    kept = done.document["graph"]
    assert done.document["left_out"]
    image = {"image": np.load(work / "calib.npz")["image"][:2]}
    with er.open(bundle, graph=kept) as whole, er.open(work / "slim.edge") as slim:
        assert slim.graph.id == kept
        np.testing.assert_array_equal(slim.run(image)["scores"], whole.run(image)["scores"])
    assert edgekit("verify", "slim.edge", "--quiet").code == 0


def test_an_unknown_device_is_told_beside_the_known_ones(edgekit: Any, bundle: Path, work: Path) -> None:
    done = edgekit("slim", "tiny.edge", "--target", "toaster", "-o", "slim.edge")
    assert done.code == 2
    done.says("toaster", "pi4")
    assert not (work / "slim.edge").exists()
