"""int8 on a float wire: an action of its own, with the accuracy that its tail shows."""

from __future__ import annotations

import numpy as np
import pytest

from edgekit.golden import verify_bundle
from edgekit_converters.cut.lossy import MAX_POINTS, MAX_SAMPLES, some, through
from edgekit_converters.data import Samples
from edgekit_runtime.bundle import Bundle
from edgekit_runtime.chain import Chain, split_points
from edgekit_runtime.manifest import Action, SplitPoint
from tests.converters.cut.conftest import Masked, loud, texts


def lossy(bundle: Bundle, graph: str) -> dict[str, tuple[Action, SplitPoint]]:
    ids = {f"split:{point.id}:int8-row": point for point in split_points(bundle.manifest, graph)}
    return {row.id: (row, ids[row.id]) for row in bundle.manifest.actions if row.id in ids}


def test_float_wires_have_the_action_and_int8_wires_have_none(exits_bundle: Bundle) -> None:
    for graph in ("onnx.fp32", "tflite.fp32"):
        found = lossy(exits_bundle, graph)
        assert 1 <= len(found) <= MAX_POINTS
        for row, point in found.values():
            assert row.kind == "split" and row.codec == "int8-row" and row.n == 16
            assert row.graphs == (*point.before, *point.after)
            assert row.interval_95[0] <= row.accuracy_drop <= row.interval_95[1]
    for graph in ("onnx.int8", "tflite.int8"):
        assert not lossy(exits_bundle, graph)


def test_the_accuracy_is_the_one_that_head_wire_and_tail_show(masked_bundle: Bundle) -> None:
    import torch

    student = loud(Masked())
    for row, point in lossy(masked_bundle, "onnx.fp32").values():
        similar = []
        with (
            Chain(masked_bundle, "onnx.fp32", stop=point.id) as head,
            Chain(masked_bundle, "onnx.fp32", start=point.id) as tail,
        ):
            for ids in texts(16, 20):
                wire = {name: through(array) for name, array in head.run({"ids": ids[None]}).items()}
                got = tail.run(wire)["output"].ravel().astype(np.float64)
                want = student(torch.from_numpy(ids[None])).detach().numpy().ravel().astype(np.float64)
                similar.append(got @ want / np.linalg.norm(got) / np.linalg.norm(want))
        # The metric is cosine against the fp32 student, whose own value is 1; float32 dot products.
        assert row.accuracy_drop == pytest.approx(1 - np.mean(similar), abs=1e-6)
        assert row.accuracy_drop > 1e-7  # int8 is not without loss


def test_at_most_a_few_hundred_samples_are_taken_from_all_over_the_data() -> None:
    data = Samples("x", tuple({"a": np.array([n])} for n in range(1000)), np.arange(1000))
    few, rows = some(data)
    assert len(few) == len(set(rows)) == MAX_SAMPLES
    assert rows[-1] >= 990 and few.labels is not None and few.labels.tolist() == rows
    assert [int(sample["a"][0]) for sample in few.inputs] == rows


def test_a_bundle_with_lossy_actions_verifies(masked_bundle: Bundle) -> None:
    assert masked_bundle.manifest.actions
    assert all(check.ok for check in verify_bundle(masked_bundle.root))
