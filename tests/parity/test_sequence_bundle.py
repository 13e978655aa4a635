"""A sequence student from the module to the device: one bundle, two graphs a format, the loop behind `session.run`."""

from __future__ import annotations

import numpy as np
import pytest

import edgekit
import edgekit_runtime as er
from edgekit.golden import verify_bundle
from edgekit_runtime.bundle import Bundle
from edgekit_runtime.errors import UsageError
from tests.converters.capture.test_sequence import echo

WORDS = np.array([[4, 5, 2, 0], [6, 2, 0, 0], [2, 0, 0, 0], [3, 7, 8, 3]])
ANSWERS = np.array([[4, 5, 0, 0, 0], [6, 0, 0, 0, 0], [0, 0, 0, 0, 0], [3, 7, 8, 3, 0]])


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return edgekit.convert(
        echo(),
        out=tmp_path_factory.mktemp("echo") / "echo.edge",
        eval={"chars": WORDS[:3], "labels": ANSWERS[:3]},
        precision="fp32",
        dynamic=("chars:0=B:1-8",),
    )


def test_each_format_has_an_encoder_and_a_decode_step(bundle: Bundle) -> None:
    assert {graph.id: graph.role for graph in bundle.manifest.graphs} == {
        "onnx.fp32.encoder": "encoder",
        "onnx.fp32.decode_step": "decode_step",
        "tflite.fp32.encoder": "encoder",
        "tflite.fp32.decode_step": "decode_step",
    }
    assert bundle.manifest.decoding is not None
    assert [tensor.name for tensor in bundle.manifest.outputs] == ["tokens"]


@pytest.mark.parametrize("kind", ["onnx", "tflite"])
def test_the_session_runs_the_loop_for_one_and_for_many(bundle: Bundle, kind: str) -> None:
    with er.open(bundle.root, graph=f"{kind}.fp32.decode_step") as session:
        assert [tensor.name for tensor in session.inputs] == ["chars"]
        together = session.run({"chars": WORDS[:3]})["tokens"]
        alone = [session.run({"chars": WORDS[row : row + 1]})["tokens"][0] for row in range(3)]
    np.testing.assert_array_equal(together, ANSWERS[:3])
    np.testing.assert_array_equal(alone, ANSWERS[:3])


def test_the_graph_is_chosen_among_the_loops_and_golden_answers_hold(bundle: Bundle) -> None:
    with er.open(bundle.root) as session:
        assert session.graph.role == "decode_step"
        assert session.run({"chars": WORDS[:1].astype(np.int32)})["tokens"][0, 0] == 4
    checks = verify_bundle(bundle.root)
    assert all(check.ok for check in checks), checks
    assert len(checks) >= 5


def test_an_encoder_can_be_run_by_itself_and_a_closed_loop_cannot(bundle: Bundle) -> None:
    with er.open(bundle.root, graph="onnx.fp32.encoder") as session:
        assert session.run({"chars": WORDS[:2]})["memory"].shape == (2, 4, 9)
    loop = er.open(bundle.root, graph="onnx.fp32.decode_step")
    loop.close()
    with pytest.raises(UsageError, match="closed"):
        loop.run({"chars": WORDS[:1]})
