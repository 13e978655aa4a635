"""`.tflite` sources: the MLPerf Tiny reference models."""

from pathlib import Path

import numpy as np
import pytest

from edgekit_converters.captured import Captured
from edgekit_converters.tflite.converter import TfliteConverter
from edgekit_converters.tflite.coverage import coverage
from edgekit_runtime.errors import Refused
from edgekit_runtime.manifest import Tensor
from tests.converters.tflite.students import nothing, run_file, sqnr_db

MODELS = Path(__file__).parents[4] / "shared/data/models/mlperf_tiny"
needs_models = pytest.mark.skipif(not MODELS.exists(), reason="needs ../shared/data/models/mlperf_tiny")


def captured(name: str, shape: tuple[int, ...], outputs: tuple[int, ...], **fields: bool) -> Captured:
    return Captured(
        name=name,
        kind="tflite",
        inputs=(Tensor(name="image", dtype="float32", shape=shape),),
        outputs=(Tensor(name="scores", dtype="float32", shape=outputs),),
        axes=(),
        example={"image": np.zeros(shape, np.float32)},
        reference=dict,
        path=MODELS / name,
        **fields,  # type: ignore[arg-type]
    )


@needs_models
def test_an_fp32_file_becomes_int8(tmp_path: Path) -> None:
    student = captured("vww_96_float.tflite", (1, 96, 96, 3), (1, 2))
    draft = TfliteConverter().export(student, tmp_path, nothing)
    samples = [{"image": np.random.default_rng(n).random((1, 96, 96, 3), np.float32)} for n in range(8)]
    quantized = TfliteConverter().quantize(student, draft, samples, tmp_path, nothing)
    assert draft.precision == "fp32"
    assert coverage(draft.path)[0] == 0.0
    assert coverage(quantized.path)[:2] == (1.0, 1.0)
    assert quantized.path.stat().st_size < 0.35 * draft.path.stat().st_size
    want = np.concatenate([run_file(draft.path, sample)["scores"] for sample in samples])
    got = np.concatenate([run_file(quantized.path, sample)["scores"] for sample in samples])
    assert sqnr_db(want, got) > 15  # noise images, far from what the net knows


@needs_models
def test_a_quantized_file_is_kept_as_int8(tmp_path: Path) -> None:
    student = captured("vww_96_int8.tflite", (1, 96, 96, 3), (1, 2), quantized=True)
    draft = TfliteConverter().export(student, tmp_path, nothing)
    assert draft.precision == "int8"
    assert coverage(draft.path)[:2] == (1.0, 1.0)
    with pytest.raises(Refused, match="quantized already"):
        TfliteConverter().quantize(student, draft, [], tmp_path, nothing)


def test_an_onnx_source_is_refused(tmp_path: Path) -> None:
    import dataclasses

    student = dataclasses.replace(captured("x", (1,), (1,)), kind="onnx")
    with pytest.raises(Refused, match="ONNX only"):
        TfliteConverter().export(student, tmp_path, nothing)
