"""An exit in front of a cluster of rare words does not run the cluster."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

import edgekit
from edgekit.devices import load
from edgekit.planner import price
from edgekit.planner.times import Times
from edgekit.students import gated_cnn
from edgekit_converters.exits.calibrate import Request, calibrate_exits
from edgekit_runtime.adaptive import names
from edgekit_runtime.chain import Chain, exits_of


def test_each_cluster_is_a_segment_of_its_own_and_runs_only_when_needed(tmp_path: Path) -> None:
    bundle = edgekit.convert(
        gated_cnn.next_word("tiny"),
        out=tmp_path / "next.edge",
        calibration=[gated_cnn.example(1, 12, "tiny", seed) for seed in range(12)],
        dynamic=("ids:0=B:1-8", "ids:1=T:1-24"),
        exits=("exit_0", "exit_1", "output"),
        split_points=("none",),
        formats=("onnx",),
        precision="fp32",
    )
    macs = {graph.id: graph.macs for graph in bundle.manifest.graphs}
    # tiny: width 16; clusters of 80 words through 4 values, and of 80 words through 1.
    assert macs["onnx.fp32.seg1"] == 16 * 4 + 4 * 80
    assert macs["onnx.fp32.seg2"] == 16 * 1 + 1 * 80
    inputs = gated_cnn.example(3, 12, "tiny", 99)
    with Chain(bundle, "onnx.fp32") as chain:
        scores = chain.scores(inputs)
        answered = chain.infer(inputs, (0.0, 2.0, 0.0))
    assert answered.exits.tolist() == [0, 0, 0]
    np.testing.assert_array_equal(answered.outputs["output"], scores[0])


def test_rare_clusters_may_run_on_the_server(tmp_path: Path) -> None:
    student = gated_cnn.next_word("tiny")
    with torch.no_grad():
        student.model.softmax.head.weight *= 30  # sure enough of words and of clusters that some texts need a cluster
    bundle = edgekit.convert(
        student,
        out=tmp_path / "next.edge",
        calibration=[gated_cnn.example(1, 12, "tiny", seed) for seed in range(12)],
        dynamic=("ids:0=B:1-8", "ids:1=T:1-24"),
        exits=("exit_0", "exit_1", "output"),
        split_points=("none",),
        formats=("onnx",),
        precision="fp32",
    )
    many = [gated_cnn.example(1, 12, "tiny", seed) for seed in range(100, 200)]
    data = tmp_path / "data.npz"
    np.savez(data, ids=np.concatenate([one["ids"] for one in many]))
    made, _ = calibrate_exits(bundle.root, tmp_path / "new.edge", Request(data, (0.05,)), lambda _: None)
    some = [point for point in made.manifest.operating_points if 0 < point.exit_fractions[0] < 1]
    assert some, made.manifest.operating_points
    found = price(made, Times(made, load("pi4")), Times(made, load("x86-vnni"))).actions
    rows = {row.id.removesuffix(f":{row.codec}"): row for row in found}
    after = exits_of(made.manifest, "onnx.fp32")[0].after
    first = next(point for point in made.manifest.split_points if point.id == after)
    for point in some:
        row = rows[names.handed_over(point, "onnx.fp32", first)]
        assert row.kind == "exit" and row.offload_fraction == pytest.approx(1 - point.exit_fractions[0])
        assert row.tail_ms == rows[names.cut(first, "onnx.fp32")].tail_ms
