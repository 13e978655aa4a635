from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest

import edgekit
from edgekit.profiler.comparison import Comparison, Turns, _job, conclude, equivalent, gate
from edgekit_runtime.errors import GateFailed, Refused, UsageError
from edgekit_runtime.testing import make_bundle, matmul_onnx

pytest.importorskip("onnxruntime")

pytestmark = pytest.mark.alone


def found(ratio: float, *, scatter: float = 0.005, count: int = 8, foreign: float = 0.0) -> Comparison:
    generator = np.random.default_rng(2)
    made = []
    for _ in range(count):
        here = ratio * np.exp(generator.normal(0, scatter))
        made.append(Turns(a=[here * 1.0] * 10, b=[1.0] * 10, foreign_seconds=foreign, seconds=1.0))
    return conclude("A", "B", made, 0.02, 5.0)


def test_the_verdict_is_about_a_and_the_ratio_is_its_time_over_the_time_of_b():
    slower, faster = found(1.1), found(0.5)
    assert (slower.verdict, faster.verdict) == ("slower", "faster")
    assert slower.ratio == pytest.approx(1.1, rel=0.01)
    assert slower.interval_95[0] < slower.ratio < slower.interval_95[1]
    assert "1.1 times the time of B" in slower.reasons[0]
    assert len(slower.runs) == 8


def test_noise_and_its_cause_are_named():
    noisy = found(1.0, scatter=0.3, foreign=1.2)
    assert noisy.verdict == "too_noisy"
    assert "other processes used 1.2 cores" in noisy.reasons[1]


def test_the_gate_fails_only_beyond_its_limit_and_only_for_slower():
    gate(found(1.1), 0.15)
    gate(found(0.5), 0.0)
    gate(found(1.0, scatter=0.3), 0.0)
    with pytest.raises(GateFailed, match=r"A is 1\d\.\d% slower than B .* at most 5\.0% is accepted"):
        gate(found(1.1), 0.05)


def test_a_larger_graph_is_slower_and_the_same_graph_shows_nothing_beyond_five_percent(tmp_path: Path):
    small, large = tmp_path / "small.onnx", tmp_path / "large.onnx"
    small.write_bytes(matmul_onnx(np.ones((2048, 128), np.float32)))
    large.write_bytes(matmul_onnx(np.ones((2048, 1024), np.float32)))
    planted = edgekit.compare(large, small, duration_s=5)
    assert planted.verdict == "slower"
    assert planted.ratio > 1.5
    same = edgekit.compare(str(small), str(small), duration_s=5)
    assert same.interval_95[0] < 1.05 and same.interval_95[1] > 1 / 1.05
    assert len(same.runs) >= 4


def test_graphs_of_bundles_are_named_after_a_colon(tmp_path: Path):
    bundle = make_bundle(tmp_path / "tiny.edge", weights=np.ones((64, 8), np.float32))
    same = edgekit.compare(f"{bundle}:onnx.fp32", bundle, duration_s=0.1)
    assert same.a == same.b == "tiny.edge:onnx.fp32 on onnxruntime, 1 thread"
    with pytest.raises(UsageError, match=r"no graph 'onnx\.int8'"):
        edgekit.compare(f"{bundle}:onnx.int8", bundle)


@pytest.mark.parametrize("quicker", ["onnx.fp32", "onnx.int8"])
def test_a_bundle_without_a_graph_stands_for_the_one_that_a_session_takes(tmp_path: Path, quicker: str):
    x = io.BytesIO()
    np.savez(x, x=np.ones((1, 2048), np.float32))
    columns = {name: 8 if name == quicker else 2048 for name in ("onnx.fp32", "onnx.int8")}
    bundle = make_bundle(
        tmp_path / "two.edge",
        graphs={name: matmul_onnx(np.ones((2048, count), np.float32)) for name, count in columns.items()},
        weights=np.ones((2048, 8), np.float32),
        files={"golden/inputs.npz": x.getvalue()},
    )
    job = _job(bundle, None, 1)
    assert (job.target.graph, job.engine) == (quicker, "onnxruntime")
    for graph in ("onnx.fp32", "onnx.int8"):  # like with like, whatever is quicker in the second bundle
        assert _job(bundle, None, 1, like=_job(f"{bundle}:{graph}", None, 1)).target.graph == graph


def test_graphs_that_take_different_inputs_are_not_compared(tmp_path: Path):
    one, other = tmp_path / "one.onnx", tmp_path / "other.onnx"
    one.write_bytes(matmul_onnx(np.ones((8, 4), np.float32)))
    other.write_bytes(matmul_onnx(np.ones((16, 4), np.float32)))
    with pytest.raises(UsageError, match="different size"):
        edgekit.compare(one, other)
    held = io.BytesIO()
    np.savez(held, x=np.ones((1, 2, 8), np.float32))  # not what the other one takes
    weights = np.ones((8, 4), np.float32)
    bundle = make_bundle(tmp_path / "a.edge", weights=weights, files={"golden/inputs.npz": held.getvalue()})
    with pytest.raises(UsageError, match="A and B take different inputs") as refused:
        edgekit.compare(f"{bundle}:onnx.fp32", one, duration_s=0.1)
    assert "graphs of one student" in refused.value.remedy


def test_nothing_there_and_impossible_numbers_are_refused(tmp_path: Path):
    with pytest.raises(Refused, match="does not exist"):
        edgekit.compare(tmp_path / "a.onnx", tmp_path / "b.onnx")
    with pytest.raises(UsageError, match="margin"):
        edgekit.compare("a.onnx", "b.onnx", margin=-1)


def test_equal_graphs_are_called_equal_once_the_whole_interval_lies_within_the_margin():
    assert equivalent((0.99, 1.01), 0.02)
    assert not equivalent((0.97, 1.01), 0.02)
    assert not equivalent((0.99, 1.03), 0.02)
    rounds = [Turns([1.0, 1.001], [1.0, 1.0], 0.0, 1.0) for _ in range(6)]
    shown = conclude("a", "b", rounds, 0.02, 1.0)
    assert shown.verdict == "no_difference_shown"
    assert "equal within 2.0%" in shown.reasons[0]
