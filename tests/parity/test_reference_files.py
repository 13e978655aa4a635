"""Published `.tflite` files as sources: quantized ones are kept, fp32 ones become int8, what LiteRT refuses is told."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import edgekit
import edgekit_runtime as er
from edgekit.students import data, picture_tasks
from edgekit.students.mlperf_tiny import keyword_features
from edgekit_runtime.chain import Chain, split_points
from edgekit_runtime.errors import Refused, UsageError


@pytest.fixture
def models() -> Path:
    try:
        return data.folder() / "models"
    except UsageError as error:
        pytest.skip(str(error))


@pytest.mark.parametrize(
    "name",
    [
        "mlperf_tiny/ad01_int8", "mlperf_tiny/kws_ref_model", "mlperf_tiny/pretrainedResnet_quant",
        "mlperf_tiny/str_ww_ref_model", "mlperf_tiny/vww_96_int8", "tflite_micro/micro_speech_quantized",
    ],
)  # fmt: skip
def test_a_quantized_file_is_kept_and_answers_as_before(models: Path, name: str, tmp_path: Path) -> None:
    path = models / f"{name}.tflite"
    bundle = edgekit.convert(
        str(path), out=tmp_path / "kept.edge", precision="keep", formats=("tflite",), split_points=("none",)
    )
    (graph,) = bundle.manifest.graphs
    assert (graph.precision, graph.int8_weight_bytes_fraction) == ("int8", 1.0)
    golden = bundle.golden_inputs()
    with er.open(path) as before, er.open(bundle.root) as after:
        expected, got = before.run(golden), after.run(golden)
    for output, answer in got.items():
        np.testing.assert_array_equal(answer, expected[output])


@pytest.mark.parametrize("name", ["trained_lstm", "trained_lstm_int8"])
def test_a_file_whose_lstm_keeps_its_state_in_variables_is_cut_behind_it(
    models: Path, name: str, tmp_path: Path
) -> None:
    bundle = edgekit.convert(
        str(models / "tflite_micro" / f"{name}.tflite"),
        out=tmp_path / "cut.edge",
        precision="keep",
        formats=("tflite",),
    )
    (full, *pieces) = bundle.manifest.graphs
    assert [piece.role for piece in pieces] == ["segment", "segment"]
    assert all(piece.int8_weight_bytes_fraction == full.int8_weight_bytes_fraction for piece in pieces)
    (point,) = split_points(bundle.manifest, full.id)
    for seed in (0, 1):  # the second run starts from a fresh state, too
        given = {
            tensor.name: np.random.default_rng(seed).integers(-100, 100, tensor.shape).astype(tensor.dtype)
            for tensor in full.inputs
        }
        with (
            er.open(bundle.root) as whole,
            Chain(bundle, full.id, stop=point.id) as head,
            Chain(bundle, full.id, start=point.id) as tail,
        ):
            got = tail.run(head.run(given))
            for output, answer in whole.run(given).items():
                np.testing.assert_array_equal(got[output], answer)


@pytest.mark.parametrize(
    ("name", "reason"), [("person_detect", "quantized_dimension"), ("audio_preprocessor_int8", "Signal")]
)
def test_a_file_that_litert_does_not_run_is_refused_with_its_reason(
    models: Path, name: str, reason: str, tmp_path: Path
) -> None:
    with pytest.raises(Refused, match=reason):
        edgekit.convert(
            str(models / "tflite_micro" / f"{name}.tflite"),
            out=tmp_path / "refused.edge",
            precision="keep",
            formats=("tflite",),
        )


def test_the_fp32_resnet_becomes_int8_on_real_pictures(models: Path, tmp_path: Path) -> None:
    task = picture_tasks.raw_cifar_task(0)
    pictures = task.train["image"][:40].transpose(0, 2, 3, 1)
    held = task.held["image"][:100].transpose(0, 2, 3, 1)
    bundle = edgekit.convert(
        str(models / "mlperf_tiny" / "pretrainedResnet.tflite"),
        out=tmp_path / "resnet.edge",
        calibration={"input_1": pictures},
        eval={"input_1": held, "labels": task.held_labels[:100]},
        precision="int8",
        max_drop=0.02,
        formats=("tflite",),
        split_points=("none",),
    )
    (graph,) = bundle.manifest.graphs
    assert graph.int8_weight_bytes_fraction == 1.0
    assert graph.bytes < 0.35 * (models / "mlperf_tiny" / "pretrainedResnet.tflite").stat().st_size


def test_the_kept_keyword_spotter_is_as_good_as_published(models: Path) -> None:
    codes, labels = data.keywords()
    with er.open(models / "mlperf_tiny" / "kws_ref_model.tflite") as session:
        (given,) = session.inputs
        right = [int(next(iter(session.run({given.name: c[None]}).values())).argmax()) for c in codes[:60]]
    assert np.mean(np.array(right) == labels[:60]) >= 0.85  # published: 91.6 % of 1,000
    assert keyword_features(codes[:1]).shape == (1, 1, 49, 10)
