"""An exit in front of a cluster of rare words does not run the cluster."""

from __future__ import annotations

from pathlib import Path

import numpy as np

import edgekit
from edgekit.students import gated_cnn
from edgekit_runtime.chain import Chain


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
