from __future__ import annotations

import dataclasses
import time
from pathlib import Path

import msgspec
import numpy as np
import pytest

import edgekit
from edgekit.energy import EnergyReading
from edgekit.profiler import measure, power
from edgekit.profiler.dispatch import keep
from edgekit.profiler.environment import Before
from edgekit.profiler.measure import combine, make_plan, precision_of, run_plan
from edgekit.profiler.targets import plan, resolve, split_spec
from edgekit.profiler.trial import Trial
from edgekit.profiler.weigh import Weighed
from edgekit_runtime.bundle import open_bundle
from edgekit_runtime.errors import BundleInvalid, Refused, UsageError
from edgekit_runtime.machine import this_machine
from edgekit_runtime.measurement import Environment, Measurement, Memory, OpCost
from edgekit_runtime.testing import make_bundle, matmul_onnx

pytestmark = pytest.mark.alone

DATA = Path(__file__).parents[4] / "shared" / "data" / "models"
pytest.importorskip("onnxruntime")


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    data = matmul_onnx(np.ones((64, 8), np.float32))
    return make_bundle(
        tmp_path / "tiny.edge",
        graphs={"onnx.fp32": data, "onnx.int8": data},
        weights=np.ones((64, 8), np.float32),
    )


def test_profiling_a_bundle_gives_documents_and_keeps_them_outside_its_identity(bundle: Path):
    before = open_bundle(bundle).bundle_id
    found = edgekit.profile(bundle, duration_s=0.3)
    assert [m.graph for m in found] == ["onnx.fp32", "onnx.int8"]
    for m in found:
        latency = m.latency_ms
        assert m.device == this_machine().id
        assert (m.engine, m.threads, m.inputs) == ("onnxruntime", 1, {"x": (1, 64)})
        assert latency.p50 is not None and latency.interval_95 is not None
        assert latency.interval_95[0] <= latency.p50 <= latency.interval_95[1]
        assert len(latency.samples) == latency.n
        assert m.open_ms and m.first_ms and m.memory.peak_rss_bytes and m.ops
        # Where this machine has no meter there is no figure, and the reason.
        assert m.energy.mj or (m.energy.kind == "unavailable" and m.energy.mj is None and m.energy.reason)
        assert m.bundle_id == before
    kept = open_bundle(bundle)
    assert kept.bundle_id == before
    assert {m.graph for m in kept.measurements()} == {"onnx.fp32", "onnx.int8"}


def test_threads_and_batches_are_swept_and_told_apart(bundle: Path):
    made = make_plan(bundle, graph="onnx.int8", threads=(1, 2), batch=(1, 4), duration_s=0.1)
    found = run_plan(dataclasses.replace(made, processes=1))
    assert {(m.threads, m.inputs["x"]) for m in found} == {(t, (b, 64)) for t in (1, 2) for b in (1, 4)}
    assert keep(bundle, found) == ()
    assert len(open_bundle(bundle).measurements()) == 4


def test_a_graph_over_the_memory_limit_is_listed_as_invalid_with_the_reason_and_not_kept(bundle: Path):
    found = edgekit.profile(bundle, graph="onnx.fp32", memory_limit_mb=5, duration_s=0.1)
    assert found[0].verdict.kind == "invalid"
    assert "more than the 5 MB" in found[0].verdict.reasons[0]
    assert found[0].latency_ms.p50 is None and found[0].latency_ms.n == 0
    assert open_bundle(bundle).measurements() == ()


def test_a_file_larger_than_the_limit_is_refused_before_loading(tmp_path: Path):
    path = tmp_path / "large.onnx"
    path.write_bytes(b"\0" * 3_000_000)  # no graph at all: only its size can have been looked at
    found = edgekit.profile(path, memory_limit_mb=2)
    assert "the file alone has 3 MB; not loaded" in found[0].verdict.reasons[0]


def test_one_broken_graph_does_not_hide_the_others(tmp_path: Path):
    good = matmul_onnx(np.ones((4, 3), np.float32))
    bundle = make_bundle(tmp_path / "half.edge", graphs={"onnx.fp32": good, "onnx.int8": b"not a graph"})
    found = {m.graph: m for m in edgekit.profile(bundle, duration_s=0.1)}
    assert found["onnx.fp32"].latency_ms.p50 is not None
    assert found["onnx.int8"].verdict.kind == "invalid"
    assert "onnx.int8" in found["onnx.int8"].verdict.reasons[0]


def test_a_changed_byte_is_noticed_before_anything_runs(bundle: Path):
    path = bundle / "graphs" / "onnx.fp32.onnx"
    path.write_bytes(path.read_bytes()[:-1] + b"\0")
    with pytest.raises(BundleInvalid):
        edgekit.profile(bundle)


def test_a_machine_with_a_meter_tells_measured_energy(bundle: Path, monkeypatch):
    class Watt:
        """A meter that sees one watt whatever happens."""

        def start(self) -> None:
            self._since = time.monotonic()

        def stop(self) -> EnergyReading:
            seconds = time.monotonic() - self._since
            return EnergyReading(joules=seconds, seconds=seconds, method="made up", source="a test", covers="nothing")

    monkeypatch.setattr(measure, "meter_for_this_machine", lambda gpu=False: Watt())
    monkeypatch.setattr(power, "_BUSY_S", 0.2)
    monkeypatch.setattr(power, "IDLE_S", 0.05)
    made = make_plan(bundle, graph="onnx.fp32", duration_s=0.05)
    assert made.steps == made.processes + 2
    (found,) = run_plan(dataclasses.replace(made, processes=1))
    assert found.energy.kind == "measured"
    # A watt for as long as one run takes in a loop: at least the run itself.
    assert found.energy.mj is not None and found.latency_ms.p50 is not None
    assert found.energy.mj >= 0.5 * found.latency_ms.p50


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"graph": "onnx.int4"}, "no graph 'onnx.int4'"),
        ({"engine": "tensorrt"}, "no engine called 'tensorrt'"),
        ({"engine": "litert"}, "runs tflite, not onnx"),
        ({"threads": (0,)}, "positive"),
        ({"batch": ()}, "positive"),
        ({"duration_s": 0}, "above 0"),
        ({"memory_limit_mb": -1}, "above 0"),
    ],
)
def test_impossible_requests_say_what_is_possible(bundle: Path, options, message: str):
    if options.get("engine") == "litert":
        pytest.importorskip("ai_edge_litert")
    with pytest.raises(UsageError, match=message):
        edgekit.profile(bundle, **options)


def test_nothing_there_and_not_a_graph_are_refused(tmp_path: Path):
    with pytest.raises(Refused, match="does not exist"):
        edgekit.profile(tmp_path / "none.onnx")
    (tmp_path / "bad.onnx").write_bytes(b"bad")
    with pytest.raises(Refused, match=r"bad\.onnx"):
        edgekit.profile(tmp_path / "bad.onnx")


def test_a_fixed_batch_is_said_instead_of_measured(tmp_path: Path):
    def fixed(manifest):
        return msgspec.structs.replace(manifest, axes=())

    bundle = make_bundle(tmp_path / "fixed.edge", change=fixed)
    jobs, remarks = plan(resolve(bundle), batch=(1, 8))
    assert [job.batch for job in jobs] == [1]
    assert "fixed batch" in remarks[0]
    with pytest.raises(UsageError, match="fixed batch"):
        plan(resolve(bundle), batch=(8,))


def test_the_default_plan_ends_in_half_a_minute_however_many_graphs_there_are(tmp_path: Path):
    data = matmul_onnx(np.ones((4, 3), np.float32))
    for count in (1, 4, 6):
        graphs = {f"onnx.fp32.v{number}": data for number in range(count)}
        made = make_plan(make_bundle(tmp_path / f"b{count}.edge", graphs=graphs))
        assert made.steps == count * (made.processes + 1 + made.metered)
        assert count * made.processes * made.duration_s <= 24


def test_a_spec_names_a_graph_unless_the_whole_of_it_is_a_path(tmp_path: Path):
    odd = tmp_path / "odd:name.onnx"
    odd.touch()
    assert split_spec(str(odd)) == (odd, None)
    assert split_spec("a.edge:onnx.int8") == (Path("a.edge"), "onnx.int8")
    assert split_spec("a.edge") == (Path("a.edge"), None)


def trial(samples: list[float], foreign: float = 0.0) -> Trial:
    return Trial("1.0", 5.0, 2.0, tuple(samples), 1.0, foreign, 0, True, {"x": (1, 4)})


def test_a_document_is_made_of_what_the_processes_saw(tmp_path: Path):
    path = tmp_path / "net.onnx"
    path.write_bytes(matmul_onnx(np.ones((4, 3), np.float32)))
    jobs, _ = plan(resolve(path))
    weighed = Weighed("1.0", Memory(file_bytes=9), (OpCost(name="m", kind="MatMul", macs=12, int8=True),), {})
    state = Environment(cpu="test", throttled=True)
    document = combine(jobs[0], [trial([1.0] * 40, 5.0), trial([1.1] * 40)], weighed, state, Before())
    assert document.latency_ms.p50 == pytest.approx(1.05)
    assert document.latency_ms.interval_95 == (1.0, 1.1)
    assert document.withheld == {"p99": "needs 662 samples, has 80"}
    assert document.precision == "int8"
    assert document.verdict.kind != "sound"
    assert any("throttled" in reason for reason in document.verdict.reasons)
    assert any("other processes" in reason for reason in document.verdict.reasons)
    again = msgspec.json.decode(msgspec.json.encode(document), type=Measurement)
    assert again == document


def test_a_bare_file_is_int8_when_most_of_its_multiplications_are():
    conv = OpCost(name="c", kind="Conv", macs=100, int8=True)
    gemm = OpCost(name="g", kind="Gemm", macs=10)
    assert precision_of((conv, gemm)) == "int8"
    assert precision_of((gemm,)) == "fp32"
    assert precision_of(()) == "unknown"


@pytest.mark.parametrize(
    "name",
    ["mlperf_tiny/kws_ref_model.tflite", "silero_vad/silero_vad_16k_op15.onnx", "tflite_micro/person_detect.tflite"],
)
def test_real_files_are_measured_or_refused_with_a_reason(name: str):
    path = DATA / name
    if not path.exists():
        pytest.skip(f"{name} is not here: the data folder is absent")
    if path.suffix == ".tflite":
        pytest.importorskip("ai_edge_litert")
    if "person" in name:
        with pytest.raises(Refused, match="DEPTHWISE_CONV_2D"):
            edgekit.profile(path)
        return
    made = make_plan(path, duration_s=0.2, sizes={"sequence": 512} if "silero" in name else None)
    (found,) = run_plan(dataclasses.replace(made, processes=1))
    assert found.latency_ms.p50 is not None
    assert found.precision == ("int8" if "kws" in name else "fp32")
    assert found.memory.file_bytes == path.stat().st_size
