from __future__ import annotations

from collections.abc import Callable

import pytest
from msgspec.structs import replace

from edgekit_runtime.errors import EngineMissing, Refused, UsageError
from edgekit_runtime.machine import Machine
from edgekit_runtime.manifest import Graph, Manifest, Quality, Source
from edgekit_runtime.measurement import Energy, Environment, Latency, Measurement, Memory, Verdict
from edgekit_runtime.selection import (
    Choice,
    Engines,
    Wanted,
    choose_graph,
    decide_by,
    needed_version,
    older,
    short_measure,
)

PI = Machine("Cortex-A72", "Arm", "aarch64", ("asimd",), 4, 4 << 30)
OLD_PC = Machine("i5-6500", "Intel", "x86_64", ("avx2",), 4, 8 << 30)
BOTH = Engines({"onnx": ["onnxruntime"], "tflite": ["litert"]}, {"onnxruntime": "1.20.1", "litert": "2.1.0"})
FP32, INT8, LITE = ("onnx.fp32", "onnxruntime"), ("onnx.int8", "onnxruntime"), ("tflite.int8", "litert")


def graph(graph_id: str, size: int, **fields: object) -> Graph:
    parts = graph_id.split(".")
    row = Graph(
        id=graph_id,
        format=parts[0],  # type: ignore[arg-type]
        precision=parts[1],  # type: ignore[arg-type]
        path=f"graphs/{graph_id}",
        bytes=size,
        sha256=graph_id,
        inputs=(),
        outputs=(),
        engine="litert" if parts[0] == "tflite" else "onnxruntime",
        min_engine_version="",
    )
    return replace(row, **fields)


def bundle(*graphs: Graph, failed: str = "") -> Manifest:
    quality = [
        Quality(
            graph=failed,
            metric="top1",
            higher_is_better=True,
            reference=0.9,
            value=0.7,
            drop=0.2,
            interval_95=(0.1, 0.3),
            n=500,
            labels=True,
            gate="failed",
            reason="top1 fell by 0.2",
        )
    ]
    source = Source(kind="module", exporter="torch.export")
    row = Manifest(name="s", tool_versions={}, source=source, inputs=(), outputs=(), graphs=graphs, files={})
    return replace(row, quality=tuple(quality))


THREE = (graph("onnx.fp32", 400), graph("onnx.int8", 100), graph("tflite.int8", 90))


def measured(key: tuple[str, str], p50: float, **fields: object) -> Measurement:
    row = Measurement(
        device=PI.id,
        engine=key[1],
        engine_version="1",
        threads=1,
        precision="int8",
        graph=key[0],
        graph_sha256=key[0],
        inputs={},
        latency_ms=Latency(p50=p50, n=50),
        memory=Memory(file_bytes=1),
        energy=Energy(kind="unavailable"),
        environment=Environment(cpu=PI.cpu),
        verdict=Verdict(kind="sound"),
    )
    return replace(row, **fields)


def choose(
    manifest: Manifest, rows: list[Measurement] | None = None, machine: Machine = PI, **wanted: object
) -> Choice:
    return choose_graph(manifest, rows or [], BOTH, machine, Wanted(**wanted))  # type: ignore[arg-type]


def test_the_fastest_measured_here_is_chosen_and_every_other_says_why_not() -> None:
    rows = [measured(FP32, 5.0), measured(INT8, 4.0), measured(LITE, 2.0)]
    choice = choose(bundle(*THREE), rows)
    assert (choice.graph_id, choice.engine, choice.basis) == (*LITE, "measured")
    assert [(row.graph, row.verdict, row.p50_ms) for row in choice.reasons] == [
        ("tflite.int8", "chosen", 2.0),
        ("onnx.int8", "slower", 4.0),
        ("onnx.fp32", "slower", 5.0),
    ]
    assert "takes 2.50 times as long" in choice.explain()


def test_int8_is_never_chosen_when_its_gate_failed() -> None:
    rows = [measured(FP32, 5.0), measured(INT8, 4.0), measured(LITE, 2.0)]
    choice = choose(bundle(*THREE, failed="tflite.int8"), rows)
    assert choice.graph_id == "onnx.int8"
    assert any("top1 fell by 0.2" in row.why for row in choice.reasons if row.graph == "tflite.int8")


def test_a_failed_graph_runs_when_it_is_asked_for() -> None:
    choice = choose(bundle(*THREE, failed="tflite.int8"), graph="tflite.int8")
    assert (choice.graph_id, choice.basis) == ("tflite.int8", "asked")


@pytest.mark.parametrize(
    "other",
    [
        {"device": "local-00000000"},
        {"graph_sha256": "another"},
        {"predicted": True},
        {"length": 16},
        {"verdict": Verdict(kind="invalid")},
        {"latency_ms": Latency(n=0)},
    ],
)
def test_a_measurement_that_does_not_speak_for_this_machine_and_file_is_left_out(other: dict[str, object]) -> None:
    rows = [measured(FP32, 5.0), measured(INT8, 4.0), measured(LITE, 2.0, **other)]
    assert choose(bundle(*THREE), rows).undecided


def test_the_device_called_local_counts_on_the_same_processor_only() -> None:
    rows = [measured(key, ms, device="local") for key, ms in ((FP32, 5.0), (INT8, 4.0), (LITE, 2.0))]
    assert choose(bundle(*THREE), rows).basis == "measured"
    assert choose(bundle(*THREE), rows, machine=OLD_PC).undecided


def test_threads_follow_the_fastest_measurement_unless_asked_for() -> None:
    rows = [measured(key, ms, threads=n) for key in (FP32, INT8, LITE) for n, ms in ((1, 4.0), (4, 2.0))]
    assert choose(bundle(*THREE), rows).threads == 4
    assert choose(bundle(*THREE), rows, threads=1).threads == 1
    assert choose(bundle(*THREE), rows, threads=2).undecided


def test_without_measurements_the_candidates_are_undecided_smallest_first() -> None:
    choice = choose(bundle(*THREE))
    assert choice.undecided == (LITE, INT8, FP32)
    assert (choice.graph_id, choice.basis) == ("tflite.int8", "size")


def test_wishes_narrow_the_candidates() -> None:
    assert choose(bundle(*THREE), engine="onnxruntime").undecided == (INT8, FP32)
    assert choose(bundle(*THREE), graph="onnx.fp32").graph_id == "onnx.fp32"
    aimed = (graph("onnx.fp32", 400), graph("onnx.int8", 100, targets=("pi5",)))
    assert choose(bundle(*aimed), target="pi4").graph_id == "onnx.fp32"
    with pytest.raises(UsageError, match="no graph"):
        choose(bundle(*THREE), graph="onnx.int4")
    with pytest.raises(UsageError, match="litert runs none"):
        choose(bundle(*THREE[:2]), engine="litert")


@pytest.mark.parametrize("variant", ["", "u8s8"])
def test_u8s8_is_not_chosen_where_it_saturates(variant: str) -> None:
    name = f"onnx.int8.{variant}".rstrip(".")
    graphs = (graph("onnx.fp32", 400), graph(name, 100, variant=variant))
    assert choose(bundle(*graphs), machine=OLD_PC).graph_id == "onnx.fp32"
    vnni = Machine("i5-1135G7", "Intel", "x86_64", ("avx2", "avx512_vnni"), 4, 8 << 30)
    assert choose(bundle(*graphs), machine=vnni).graph_id == name
    reduced = (graph("onnx.fp32", 400), graph("onnx.int8.reduced_range", 100, variant="reduced_range"))
    assert choose(bundle(*reduced), machine=OLD_PC).graph_id == "onnx.int8.reduced_range"


def test_an_engine_that_is_too_old_is_left_out_with_both_versions() -> None:
    graphs = (graph("onnx.fp32", 400), graph("onnx.int8", 100, min_engine_version="1.21"))
    choice = choose(bundle(*graphs))
    assert choice.graph_id == "onnx.fp32"
    assert any(row.why == "needs onnxruntime 1.21, here is 1.20.1" for row in choice.reasons)


@pytest.mark.parametrize(
    ("needed", "engine", "version"),
    [
        ("1.18", "onnxruntime", "1.18"),
        ("onnxruntime=1.18", "onnxruntime", "1.18"),
        ("tflite=2.14", "tflite-runtime", "2.14"),
        ("tflite=2.14", "litert", ""),  # LiteRT 2.3 is newer than TFLite 2.14
        ("", "onnxruntime", ""),
    ],
)
def test_the_version_needed_counts_in_the_engines_own_numbers(needed: str, engine: str, version: str) -> None:
    row = graph("tflite.int8" if "tflite" in needed else "onnx.int8", 1, min_engine_version=needed)
    assert needed_version(row, engine) == version


def test_no_engine_names_the_pip_lines() -> None:
    none = Engines({}, {}, {"onnx": "pip install A", "tflite": "pip install B"})
    with pytest.raises(EngineMissing) as caught:
        choose_graph(bundle(*THREE), [], none, PI, Wanted())
    assert caught.value.remedy == "pip install A or pip install B"


def test_nothing_left_lists_every_reason() -> None:
    with pytest.raises(Refused, match="top1 fell"):
        choose(bundle(graph("onnx.int8", 100), failed="onnx.int8"))


@pytest.mark.parametrize(
    ("version", "needed", "answer"),
    [
        ("1.20.1", "1.21", True),
        ("1.21", "1.21.0", False),
        ("2.0", "1.21", False),
        ("1.9", "1.18", True),
        ("", "1", False),
    ],
)
def test_versions_are_compared_number_by_number(version: str, needed: str, answer: bool) -> None:
    assert older(version, needed) is answer


class FakeTime:
    """A clock that moves when a candidate runs."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now

    def takes(self, seconds: float, log: list[float]) -> Callable[[], Callable[[], object]]:
        def once() -> None:
            self.now += seconds
            log.append(seconds)

        def start() -> Callable[[], object]:
            once()
            return once

        return start


def test_the_short_measurement_alternates_and_keeps_its_budget() -> None:
    clock, log = FakeTime(), list[float]()
    samples = short_measure({FP32: clock.takes(0.02, log), INT8: clock.takes(0.01, log)}, budget_s=0.5, clock=clock)
    assert log[2:6] == [0.02, 0.01, 0.02, 0.01]
    assert clock.now <= 0.5 + 0.03
    assert samples[INT8] == pytest.approx([10.0] * len(samples[INT8]))
    assert abs(len(samples[FP32]) - len(samples[INT8])) <= 1


def test_a_candidate_that_finds_no_time_is_not_measured_and_not_chosen() -> None:
    clock, log = FakeTime(), list[float]()
    samples = short_measure({LITE: clock.takes(3, log), FP32: clock.takes(0.01, log)}, budget_s=1.5, clock=clock)
    assert len(samples[LITE]) == 1
    assert samples[FP32] == []
    before = choose(bundle(THREE[0], THREE[2]))
    choice = decide_by({LITE: samples[LITE][0], FP32: None}, before)
    assert (choice.graph_id, choice.basis, choice.undecided) == ("tflite.int8", "short measurement", ())
    assert any(row.graph == "onnx.fp32" and "no time" in row.why for row in choice.reasons)
