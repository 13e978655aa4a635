"""Which graph a device gets, and what is left of the bundle."""

from __future__ import annotations

from pathlib import Path

import msgspec
import numpy as np
import pytest

import edgekit_runtime as er
from edgekit.slim import pick
from edgekit_converters.slim import keep_graphs
from edgekit_converters.target import Target
from edgekit_runtime.errors import Refused, UsageError
from edgekit_runtime.manifest import Manifest
from edgekit_runtime.measurement import Energy, Environment, Latency, Measurement, Memory, Verdict
from edgekit_runtime.testing import make_bundle, matmul_onnx

PI4 = Target("pi4", "aarch64", ("asimd",), ("onnxruntime", "litert"))
OLD_X86 = Target("x86-no-vnni", "x86_64", ("avx2",), ("onnxruntime", "litert"))
T4 = Target("nvidia-t4", "x86_64", (), ("onnxruntime-gpu",))


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    data = matmul_onnx(np.eye(3, dtype=np.float32))
    graphs = {"onnx.fp32": data, "onnx.int8": data + b"", "onnx.int8.seg0": data, "tflite.int8": b"flat"}

    def change(manifest: Manifest) -> Manifest:
        rows = [
            msgspec.structs.replace(graph, role="segment", of="onnx.int8", variant="") if "seg" in graph.id else graph
            for graph in manifest.graphs
        ]
        return msgspec.structs.replace(manifest, graphs=tuple(rows))

    golden = {"golden/inputs.npz": b"inputs", "golden/onnx.int8.npz": b"a", "golden/tflite.int8.npz": b"b"}
    return make_bundle(tmp_path / "whole.edge", graphs=graphs, files=golden, change=change)


def measured(graph: str, p50: float) -> Measurement:
    return Measurement(
        device="pi4",
        engine="onnxruntime",
        engine_version="1",
        threads=1,
        precision="int8",
        graph=graph,
        inputs={},
        latency_ms=Latency(p50=p50, n=20),
        memory=Memory(file_bytes=1),
        energy=Energy(kind="unavailable"),
        environment=Environment(cpu=""),
        verdict=Verdict(kind="sound"),
    )


def manifest(bundle: Path) -> Manifest:
    return er.open_bundle(bundle).manifest


def test_the_fastest_graph_for_the_device_is_kept_and_the_others_are_told_why_not(bundle: Path) -> None:
    found = pick(manifest(bundle), PI4, [measured("onnx.int8", 3.0), measured("onnx.fp32", 2.0)])
    assert found.graph == "onnx.fp32"
    assert found.why == "2 ms on pi4, measured"
    assert found.left_out == {"onnx.int8": "3 ms", "tflite.int8": "no figure for this device"}


def test_without_any_figure_the_smallest_graph_is_kept(bundle: Path) -> None:
    found = pick(manifest(bundle), PI4, [], "no rates are known")
    assert found.graph == "tflite.int8"
    assert "no rates are known" in found.why


def test_int8_that_saturates_on_a_device_is_not_for_it(bundle: Path) -> None:
    found = pick(manifest(bundle), OLD_X86, [measured("onnx.int8", 1.0), measured("onnx.fp32", 2.0)])
    assert found.graph == "onnx.fp32"
    assert "saturate" in found.left_out["onnx.int8"]


def test_a_gpu_gets_no_int8_and_no_tflite(bundle: Path) -> None:
    found = pick(manifest(bundle), T4, [])
    assert found.graph == "onnx.fp32"
    assert set(found.left_out) == {"onnx.int8", "tflite.int8"}


def test_a_bundle_without_a_graph_for_the_device_is_refused(tmp_path: Path) -> None:
    only = make_bundle(tmp_path / "only.edge", graphs={"tflite.int8": b"flat"})
    with pytest.raises(Refused, match="no graph of this bundle is for nvidia-t4"):
        pick(manifest(only), T4, [])


def test_a_kept_graph_keeps_its_pieces_and_golden_answers_and_nothing_else(bundle: Path, tmp_path: Path) -> None:
    with keep_graphs(bundle, ["onnx.int8"], tmp_path / "slim.edge") as made:
        assert [graph.id for graph in made.manifest.graphs] == ["onnx.int8", "onnx.int8.seg0"]
        assert set(made.manifest.files) == {
            "golden/inputs.npz",
            "golden/onnx.int8.npz",
            "graphs/onnx.int8.onnx",
            "graphs/onnx.int8.seg0.onnx",
        }
        made.check_files()
        assert made.bundle_id != er.open_bundle(bundle).bundle_id


def test_a_graph_that_is_not_there_is_a_usage_error_and_leaves_nothing(bundle: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"no graph 'onnx\.fp16'"):
        keep_graphs(bundle, ["onnx.fp16"], tmp_path / "slim.edge")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["whole.edge"]


def test_a_device_without_any_engine_of_ours_is_not_told_to_convert_again(bundle: Path) -> None:
    board = Target("stm32h7a3", "armv7m", (), ("x-cube-ai",))
    with pytest.raises(Refused, match="stm32h7a3 runs x-cube-ai") as refused:
        pick(er.open_bundle(bundle).manifest, board, ())
    assert refused.value.remedy == "a device with onnxruntime, litert, tflite-runtime, onnxruntime-gpu or torch"
