from __future__ import annotations

import contextlib
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgekit_runtime import engines
from edgekit_runtime.engines import tflite_file
from edgekit_runtime.engines.flatbuffer import Damaged
from edgekit_runtime.errors import Refused, UsageError

pytest.importorskip("ai_edge_litert")
WEIGHTS = np.arange(12, dtype=np.float32).reshape(3, 4) / 7
rng = np.random.default_rng(1)
Build = Callable[..., bytes]


def write(tmp_path: Path, content: bytes) -> Path:
    path = tmp_path / "graph.tflite"
    path.write_bytes(content)
    return path


def test_each_signature_runs_by_its_own_names(ladder_bytes: Build, tmp_path: Path) -> None:
    path = write(tmp_path, ladder_bytes(WEIGHTS, (8, 16)))
    first = engines.get("litert").load(path, signature="t8")
    second = first.at("t16")  # type: ignore[attr-defined]
    for graph, length in ((first, 8), (second, 16)):
        assert graph.inputs[0].shape == (1, length, 4)
        x = rng.normal(size=(1, length, 4)).astype(np.float32)
        np.testing.assert_allclose(graph.run({"x": x})["y"], x @ WEIGHTS.T, rtol=1e-4)


def test_outputs_are_copies_that_stay_valid(ladder_bytes: Build, tmp_path: Path) -> None:
    graph = engines.get("litert").load(write(tmp_path, ladder_bytes(WEIGHTS, (8,))))
    one = graph.run({"x": np.ones((1, 8, 4), np.float32)})["y"]
    kept = one.copy()
    graph.run({"x": np.zeros((1, 8, 4), np.float32)})
    np.testing.assert_array_equal(one, kept)
    graph.close()
    np.testing.assert_array_equal(one, kept)
    with pytest.raises(UsageError, match="closed"):
        graph.run({"x": np.ones((1, 8, 4), np.float32)})


def test_threads_get_their_own_answers(
    ladder_bytes: Build, tmp_path: Path, in_threads: Callable[[Callable[[int], None]], None]
) -> None:
    graph = engines.get("litert").load(write(tmp_path, ladder_bytes(WEIGHTS, (8,))))

    def work(value: int) -> None:
        x = np.full((1, 8, 4), value, np.float32)
        for _ in range(200):
            np.testing.assert_allclose(graph.run({"x": x})["y"], x @ WEIGHTS.T, rtol=1e-4)

    in_threads(work)


def test_an_unknown_signature_is_refused_with_those_there_are(ladder_bytes: Build, tmp_path: Path) -> None:
    with pytest.raises(Refused, match="'t9'") as caught:
        engines.get("litert").load(write(tmp_path, ladder_bytes(WEIGHTS, (8,))), signature="t9")
    assert "t8" in caught.value.remedy


def test_a_too_new_operator_version_is_named(ladder_bytes: Build, tmp_path: Path) -> None:
    with pytest.raises(Refused, match="FULLY_CONNECTED version 99"):
        engines.get("litert").load(write(tmp_path, ladder_bytes(WEIGHTS, (8,), version=99)))


def test_an_unknown_custom_operator_is_named(ladder_bytes: Build, tmp_path: Path) -> None:
    content = ladder_bytes(WEIGHTS, (8,), operator=32, custom="Frobnicate")
    with pytest.raises(Refused, match="custom operator Frobnicate"):
        engines.get("litert").load(write(tmp_path, content))


@pytest.mark.parametrize(
    ("name", "words"),
    [("person_detect", "14 weight tensors of DEPTHWISE_CONV_2D"), ("audio_preprocessor_int8", "SignalWindow .*2.8.0")],
)
def test_files_that_litert_cannot_run_are_refused_clearly(data: Path, name: str, words: str) -> None:
    with pytest.raises(Refused, match=words) as caught:
        engines.get("litert").load(data / "models" / "tflite_micro" / f"{name}.tflite")
    assert caught.value.remedy


def test_every_cut_of_a_file_is_refused_before_the_interpreter_sees_it(ladder_bytes: Build, tmp_path: Path) -> None:
    whole = ladder_bytes(WEIGHTS, (8,))
    for size in (0, 3, 15, 16, len(whole) // 2, len(whole) - 60):
        with pytest.raises(Refused, match=r"graph\.tflite"):
            engines.get("litert").load(write(tmp_path, whole[:size]))
    with pytest.raises(Refused, match="TFL3"):
        engines.get("litert").load(write(tmp_path, b"garbage!" * 40))


@settings(max_examples=300, deadline=None)
@given(changes=st.lists(st.tuples(st.floats(0, 1, exclude_max=True), st.integers(0, 255)), min_size=1, max_size=8))
def test_a_damaged_file_is_read_or_called_damaged(ladder_bytes: Build, changes: list[tuple[float, int]]) -> None:
    content = bytearray(ladder_bytes(WEIGHTS, (4,)))
    for place, value in changes:
        content[int(place * len(content))] = value
    with contextlib.suppress(Damaged):
        tflite_file.parse(memoryview(content))


def test_int8_kernels_and_macs_are_told_from_the_reference_files(data: Path) -> None:
    folder = data / "models" / "mlperf_tiny"
    engine = engines.get("litert")
    for name, macs, int8 in (("pretrainedResnet_quant", 12_501_632, True), ("pretrainedResnet", 12_501_632, False)):
        path = folder / f"{name}.tflite"
        tensor = engine.load(path).inputs[0]
        rows = engine.trace(path, {tensor.name: np.zeros((1, 32, 32, 3), tensor.dtype)})
        assert sum(row.macs or 0 for row in rows) == macs
        assert {row.int8 for row in rows if row.macs} == {int8}


def test_the_trace_follows_the_shapes_given(ladder_bytes: Build, tmp_path: Path) -> None:
    path = write(tmp_path, ladder_bytes(WEIGHTS, (8, 16)))
    rows = engines.get("litert").trace(path, {"x": np.zeros((1, 16, 4), np.float32)})
    assert [(row.kind, row.macs, row.ms) for row in rows] == [("FULLY_CONNECTED", 16 * 12, None)]


def test_state_starts_afresh_at_every_run(data: Path) -> None:
    path = data / "models" / "tflite_micro" / "trained_lstm.tflite"
    assert tflite_file.read(path).stateful
    graph = engines.get("litert").load(path)
    x = {"fixed_input": rng.normal(size=(1, 28, 28)).astype(np.float32)}
    first = graph.run(x)["sequential"]
    np.testing.assert_array_equal(graph.run(x)["sequential"], first)


def test_an_open_batch_axis_is_resized(data: Path) -> None:
    graph = engines.get("litert").load(data / "models" / "mlperf_tiny" / "pretrainedResnet.tflite")
    assert graph.inputs[0].shape == ("input_1_0", 32, 32, 3)
    x = rng.normal(size=(3, 32, 32, 3)).astype(np.float32) * 60
    together = graph.run({"input_1": x})["Identity"]
    assert together.shape == (3, 10)
    np.testing.assert_allclose(graph.run({"input_1": x[1:2]})["Identity"][0], together[1], atol=1e-5)


def test_nothing_is_printed_while_opening(ladder_bytes: Build, tmp_path: Path) -> None:
    path = write(tmp_path, ladder_bytes(WEIGHTS, (8,)))
    code = "import sys; from pathlib import Path; from edgekit_runtime import engines; "
    code += "g = engines.get('litert').load(Path(sys.argv[1])); import os; os.write(2, b'end')"
    root = Path(__file__).parents[3] / "runtime"
    done = subprocess.run(
        [sys.executable, "-c", code, str(path)],
        capture_output=True,
        check=True,
        env={"PYTHONPATH": str(root)},
        timeout=60,
    )
    assert (done.stdout, done.stderr) == (b"", b"end")
