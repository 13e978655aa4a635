from __future__ import annotations

import dataclasses
import time
from pathlib import Path

import msgspec
import numpy as np
import pytest

from edgekit.profiler import weigh as weighing
from edgekit.profiler.around import overhead_ms, raw_item
from edgekit.profiler.process import OverBudget
from edgekit.profiler.targets import plan, resolve
from edgekit.profiler.trial import Rhythm, duty, duty_row
from edgekit_runtime.errors import Refused, UsageError
from edgekit_runtime.manifest import Axis
from edgekit_runtime.measurement import Around, OpCost
from edgekit_runtime.preprocess import AudioInput, ImageInput, TensorInput, TextInput
from edgekit_runtime.testing import make_bundle, matmul_onnx

pytest.importorskip("onnxruntime")

pytestmark = pytest.mark.alone
DATA = Path(__file__).parents[4] / "shared" / "data" / "models"


def op(delegate: str, ms: float | None, macs: int | None, kind: str = "Conv") -> OpCost:
    return OpCost(name="n", kind=kind, ms=ms, macs=macs, delegate=delegate)


def test_the_share_of_each_delegate_shows_a_fallback():
    rows = weighing.placements(
        [op("XNNPACK", 3.0, 90), op("LiteRT", 1.0, 10, "GATHER"), op("XNNPACK", 0.0, 0, "Softmax")]
    )
    assert [(row.delegate, row.ops) for row in rows] == [("XNNPACK", 2), ("LiteRT", 1)]
    assert rows[1].ms_fraction == pytest.approx(0.25)
    assert rows[1].macs_fraction == pytest.approx(0.1)
    assert rows[1].kinds == ("GATHER",)
    assert sum(row.ms_fraction or 0 for row in rows) == pytest.approx(1)


def test_shares_without_times_or_names_are_not_made_up():
    (row,) = weighing.placements([op("CPU", None, 5)])
    assert row.ms_fraction is None and row.macs_fraction == 1
    assert weighing.placements([op("", 1.0, 5)]) == ()


def test_operators_longer_than_the_run_leave_no_figure_for_the_outside():
    ops = [op("CPU", 2.0, 1)]
    assert weighing.surroundings(None, ops, 1.5) == Around(operators_ms=2.0)
    found = weighing.surroundings(Around(encode_ms=1.0), ops, 2.5)
    assert found == Around(encode_ms=1.0, operators_ms=2.0, outside_operators_ms=0.5)
    assert weighing.surroundings(None, [op("CPU", None, 1)], 1.0) is None


def test_a_graph_larger_than_the_device_is_refused_before_it_is_opened(tmp_path: Path):
    path = tmp_path / "net.onnx"
    path.write_bytes(matmul_onnx(np.ones((4, 3), np.float32)))
    (job,), _ = plan(resolve(path))
    large = dataclasses.replace(job, target=dataclasses.replace(job.target, file_bytes=9_000_000_000))
    with pytest.raises(OverBudget, match=r"8000 MB of this device.*file alone has 9000 MB"):
        weighing.check_size(large, None, 8_000_000_000)
    with pytest.raises(OverBudget, match=r"the 0\.01 MB it may have \(the file alone has 9000 MB; not loaded\)"):
        weighing.check_size(large, 10_000, 0)
    weighing.check_size(large, None, 0)  # a machine that does not tell its memory


def test_a_bundle_is_weighed_with_its_surroundings(tmp_path: Path):
    bundle = make_bundle(tmp_path / "tiny.edge")
    (job,), _ = plan(resolve(bundle))
    found = weighing.weigh(job, tmp_path, memory_limit_bytes=None)
    assert found.memory.peak_rss_bytes and found.memory.open_bytes is not None and found.memory.arena_bytes is not None
    assert found.ops and found.ops[0].delegate == "CPUExecutionProvider"
    assert found.around is not None and found.around.session_ms is not None
    assert found.around.encode_ms is None and "preprocessing" in found.around.reason
    assert found.around.operators_ms is not None


@pytest.mark.parametrize(
    ("name", "macs"),
    [("vww_96_float", 7_489_664), ("pretrainedResnet_large_float", 76_473_920)],  # the second leaves its batch open
)
def test_litert_operators_have_times_where_they_are_long_enough(tmp_path: Path, name: str, macs: int):
    pytest.importorskip("ai_edge_litert")
    path = DATA / "mlperf_tiny" / f"{name}.tflite"
    if not path.exists():
        pytest.skip("the data folder is absent")
    (job,), _ = plan(resolve(path))
    found = weighing.weigh(job, tmp_path, memory_limit_bytes=None)
    assert not found.remarks
    assert sum(row.ms or 0 for row in found.ops) > 0
    assert sum(row.macs or 0 for row in found.ops) == pytest.approx(macs, rel=0.02)  # counted from the layers
    assert weighing.placements(found.ops)[0].delegate == "XNNPACK"


def test_a_file_that_litert_cannot_profile_keeps_its_operators_and_says_why(tmp_path: Path):
    pytest.importorskip("ai_edge_litert")
    path = DATA / "tflite_micro" / "trained_lstm.tflite"
    if not path.exists():
        pytest.skip("the data folder is absent")
    (job,), _ = plan(resolve(path))
    found = weighing.weigh(job, tmp_path, memory_limit_bytes=None)
    assert found.ops and all(row.ms is None for row in found.ops)
    assert "no times per operator" in found.remarks[0] and "LiteRT" in found.remarks[0]


def test_rhythms_are_told_beside_the_tight_loop(tmp_path: Path):
    path = tmp_path / "net.onnx"
    path.write_bytes(matmul_onnx(np.ones((4, 3), np.float32)))
    (job,), _ = plan(resolve(path))
    (paced, burst) = duty(job, tmp_path, (Rhythm("paced_100_hz", 0.01, 12), Rhythm("burst", 0.02, 12, burst=6)))
    assert (paced.n, burst.n) == (12, 12)
    assert paced.idle_ms == 10 and paced.p50 and paced.ratio and paced.max


def test_a_rhythm_with_few_runs_has_no_median_but_its_mean():
    row = duty_row(Rhythm("after_pause", 2.0, 3), [1.0, 2.0, 6.0], [1.0] * 20)
    assert row.p50 is None and row.ratio is None
    assert (row.mean, row.max, row.n) == (3.0, 6.0, 3)


def test_the_outer_call_costs_more_than_the_inner_one():
    assert overhead_ms(lambda: time.sleep(0.003), lambda: time.sleep(0.001), 0.05) == pytest.approx(2, abs=1.5)
    assert overhead_ms(lambda: None, lambda: None, 0.01, same=False) is None


def test_raw_items_are_of_the_kind_the_bundle_takes():
    assert raw_item(ImageInput(size=(8, 8))).shape == (480, 640, 3)  # type: ignore[attr-defined]
    assert raw_item(ImageInput(size=(8, 9), resize="none")).shape == (8, 9, 3)  # type: ignore[attr-defined]
    assert len(raw_item(AudioInput(rate=16000, window=512))) == 512  # type: ignore[arg-type]
    assert len(str(raw_item(TextInput(max_length=128))).split()) >= 100
    with pytest.raises(Refused, match="tensors"):
        raw_item(TensorInput())


def test_lengths_are_swept_within_the_range_of_the_bundle(tmp_path: Path):
    def long(manifest):
        axes = (*manifest.axes, Axis(symbol="T", min=2, max=64, role="length"))
        return msgspec.structs.replace(manifest, axes=axes)

    bundle = make_bundle(tmp_path / "long.edge", change=long)
    jobs, remarks = plan(resolve(bundle), length=(16, 128))
    assert [job.length for job in jobs] == [16]
    assert "takes lengths 2 to 64: 128 left out" in remarks[0]
    assert "length 16" in jobs[0].label
    with pytest.raises(UsageError, match="no dynamic length"):
        plan(resolve(make_bundle(tmp_path / "short.edge")), length=(16,))
    with pytest.raises(UsageError, match="positive"):
        plan(resolve(bundle), length=(0,))
