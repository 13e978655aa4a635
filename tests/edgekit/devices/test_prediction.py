"""Families, the surface between measured points, the graphs of a calibration, and predictions from all grounds."""

from __future__ import annotations

import collections
import itertools
import math
from pathlib import Path

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgekit import devices
from edgekit.devices import bench, calibration, coordinates, micro_onnx, micro_tflite, onnx_file, store, table
from edgekit.devices.families import cell
from edgekit.devices.micro import Micro
from edgekit.devices.prediction import engine_there, estimate, predict
from edgekit.devices.profile import DeviceProfile, read
from edgekit.devices.table import CALLED, WIRE, Kernels, Point, Surface
from edgekit.devices.work import Work
from edgekit.profiler.inputs import synthetic
from edgekit_runtime import engines
from edgekit_runtime.errors import Refused, UsageError
from edgekit_runtime.measurement import OpCost

SUITES = [("onnxruntime", ".onnx", micro_onnx), ("litert", ".tflite", micro_tflite)]


def op(kind: str, macs: int, inputs: list[tuple[int, ...]], output: tuple[int, ...], **more: object) -> OpCost:
    moved = 4 * sum(map(math.prod, (*inputs, output)))
    return OpCost(name="op", kind=kind, macs=macs, bytes=moved, inputs=tuple(inputs), outputs=(output,), **more)  # type: ignore[arg-type]


DENSE = op("MatMul", 64 * 128 * 256, [(1, 64, 128), (128, 256)], (1, 64, 256))


@pytest.mark.parametrize(
    ("given", "key", "sizes"),
    [
        (DENSE, "dense/MatMul/float", (64, 128, 256)),
        (op("Conv", 8 * 9 * 4 * 64, [(1, 4, 8, 8), (8, 4, 3, 3)], (1, 8, 8, 8)), "conv/Conv/float", (64, 36, 8)),
        (op("CONV_2D", 8 * 4 * 64, [(1, 8, 8, 4), (8, 1, 1, 4)], (1, 8, 8, 8)), "pointwise/CONV_2D/float", (64, 4, 8)),
        (op("Conv", 8 * 9 * 64, [(1, 8, 8, 8), (8, 1, 3, 3)], (1, 8, 8, 8)), "depthwise/Conv/float", (64, 9, 8)),
        (op("Conv", 8 * 9 * 64, [(1, 8, 8, 8), (8, 1, 3, 3)], (1, 8, 8, 8)), "depthwise/Conv/float", (64, 9, 8)),
        (op("Conv", 64 * 9 * 64, [(1, 1, 8, 8), (64, 1, 3, 3)], (1, 64, 8, 8)), "conv/Conv/float", (64, 9, 64)),
        # Channels moved to the end by the engine.
        (op("Conv", 16 * 36 * 64, [(1, 8, 8, 4), (16, 4, 3, 3)], (1, 8, 8, 16)), "conv/Conv/float", (64, 36, 16)),
        (op("Conv", 8 * 12 * 30, [(1, 4, 32), (8, 4, 3)], (1, 8, 30)), "conv/Conv1d/float", (30, 12, 8)),
        (op("MatMul", 4 * 16 * 8 * 16, [(4, 16, 8), (4, 8, 16)], (4, 16, 16)), "matmul/MatMul/float", (64, 8, 16)),
        (op("LSTM", 4800, [(5, 1, 8), (1, 48, 8), (1, 48, 12)], (5, 1, 1, 12)), "recurrent/LSTM/float", (5, 20, 48)),
        (op("Gather", 0, [(1000, 16), (4,)], (4, 16)), "gather/Gather/float", (64,)),
        (op("Softmax", 0, [(4, 16)], (4, 16)), "normalize/Softmax/float", (64,)),
        (op("Sub", 0, [(4, 16), (4, 16)], (4, 16)), "elementwise/Add/float", (64,)),
    ],
)  # fmt: skip
def test_an_operator_is_sorted_by_what_its_cost_depends_on(given: OpCost, key: str, sizes: tuple[int, ...]) -> None:
    found = cell(given)
    assert (found.key, found.sizes) == (key, sizes)


def test_a_table_counts_with_the_rows_that_are_read() -> None:
    assert cell(op("Gather", 0, [(100_000, 16), (4,)], (4, 16))).bytes <= 8 * 64


def test_calls_share_the_work() -> None:
    found = cell(op("FULLY_CONNECTED", 64 * 8 * 16, [(1, 8), (16, 8)], (1, 16), calls=64))
    assert (found.family, found.macs, found.sizes) == ("recurrent", 128, (1, 8, 16))


POOLS = ("MaxPool", "MAX_POOL_2D", "AVERAGE_POOL_2D")


def near(found: tuple[int, ...], wanted: tuple[int, ...]) -> bool:
    """Chains of copies grow or shrink a little from link to link."""
    return len(found) == len(wanted) and all(abs(a - b) <= 0.12 * b + 2 for a, b in zip(found, wanted, strict=True))


SIZES = st.tuples(st.integers(1, 512), st.integers(4, 2048), st.integers(4, 2048))


@given(st.lists(SIZES, min_size=1, max_size=12, unique=True))
def test_the_surface_goes_through_what_was_measured(sizes: list[tuple[int, int, int]]) -> None:
    points = tuple(Point(sizes=each, us=0.5 + math.prod(each) / 2e4) for each in sizes)
    surface = Surface(points)
    for point in points:  # the smoothing gives way by a few per cent
        assert surface.us(point.sizes) == pytest.approx(point.us, rel=0.12)


@given(SIZES, st.integers(0, 2))
def test_beyond_what_was_measured_more_work_takes_longer(sizes: tuple[int, int, int], axis: int) -> None:
    grid = itertools.product((1, 64), (32, 512), (32, 512))
    surface = Surface([Point(sizes=each, us=0.5 + math.prod(each) / 2e4) for each in grid])
    larger = tuple(4 * size if place == axis else size for place, size in enumerate(max(s, 512) for s in sizes))
    smaller = tuple(max(s, 512) for s in sizes)
    assert surface.us(larger) > surface.us(smaller)


@pytest.mark.parametrize(("name", "suffix", "suite"), SUITES, ids=[suite[0] for suite in SUITES])
def test_every_kernel_of_a_calibration_is_what_the_engine_runs(
    name: str, suffix: str, suite: object, tmp_path: Path
) -> None:
    if name not in engines.available():
        pytest.skip(f"{name} is not installed")
    runner = engines.get(name)
    path = tmp_path / f"micro{suffix}"
    smallest = {entry.key: entry for entry in reversed(list(suite.plan()))}  # type: ignore[attr-defined]
    assert len(smallest) >= 20
    for key, entry in smallest.items():
        path.write_bytes(suite.build(entry))  # type: ignore[attr-defined]
        opened = runner.load(path)
        inputs = synthetic(opened.inputs, {})
        opened.close()
        counted: collections.Counter[str] = collections.Counter()
        cells = [cell(each) for each in runner.trace(path, inputs) for _ in range(each.calls)]
        counted.update(each.key for each in cells)
        if entry.kind == WIRE:  # an input more, and what stands between it and its output
            assert len(inputs) == entry.repeats + 1 == sum(counted[helper] for helper, _, _ in entry.helpers)
            continue
        if entry.kind == CALLED:  # all that the body holds, once a call
            assert sum(count for at, count in counted.items() if coordinates.INT in at) == entry.repeats
            continue
        if entry.kind not in ("stream", *POOLS):  # their points are told by other sizes than an operator has
            there = [each.grid for each in cells if each.key == key]
            assert any(near(grid, entry.grid) for grid in there), f"{key}: {entry.grid} is measured, {there} is asked"
        product = ("MatMulIntegerToFloat" if entry.int8 else "MatMul") if name == "onnxruntime" else "FULLY_CONNECTED"
        wanted = key.replace("/stream/", f"/{product}Vector/")
        if entry.family == "recurrent" and suffix == ".tflite":
            assert counted[key] == entry.repeats
        else:
            assert counted[wanted] >= entry.repeats, f"{key}: the engine ran {dict(counted)}"


def test_the_onnx_writer_writes_what_the_onnx_package_reads() -> None:
    onnx = pytest.importorskip("onnx")
    entry = next(entry for entry in micro_onnx.plan() if entry.kind == "QLinearConv1d")
    model = onnx.load_model_from_string(micro_onnx.build(entry))
    assert [(each.domain, each.version) for each in model.opset_import] == [("", 17), ("com.microsoft", 1)]
    assert [each.op_type for each in model.graph.node] == ["QLinearConv"] * entry.repeats
    for each in (*model.graph.node, *model.graph.initializer):
        check = onnx.checker.check_node if hasattr(each, "op_type") else onnx.checker.check_tensor
        check(each)
    node = onnx.NodeProto.FromString(
        onnx_file.node("Clip", ["a"], ["b"], {"i": -3, "f": 0.5, "l": [1, -2], "s": "add"}, "mine")
    )
    values = {attribute.name: onnx.helper.get_attribute_value(attribute) for attribute in node.attribute}
    assert (values, node.domain) == ({"i": -3, "f": 0.5, "l": [1, -2], "s": b"add"}, "mine")
    held = onnx.numpy_helper.to_array(onnx.TensorProto.FromString(onnx_file.constant("c", np.arange(6).reshape(2, 3))))
    assert held.tolist() == [[0, 1, 2], [3, 4, 5]]


def test_helpers_are_taken_off_and_the_rest_is_shared_out() -> None:
    helper = Micro("elementwise", "Add", False, (256,), 2)
    kernel = Micro("move", "Transpose", False, (256,), 4, (("elementwise/Add/float", (256,), 4),))
    found = bench.points({helper: 5.0 + 2 * 1.0, kernel: 5.0 + 4 * 1.0 + 4 * 3.0}, run_us=5.0)
    assert found["elementwise/Add/float"][0].us == pytest.approx(1.0)
    assert found["move/Transpose/float"][0].us == pytest.approx(3.0)


def calibrated(**tables: tuple[Point, ...]) -> DeviceProfile:
    points = {key.replace("__", "/"): value for key, value in tables.items()}
    kernels = Kernels(engine="onnxruntime", engine_version="1", threads=1, run_us=10.0, points=points)
    return msgspec.structs.replace(devices.load("x86-vnni"), kernels=(kernels,))


def work(*ops: OpCost, file_bytes: int = 1000) -> Work:
    return Work(
        graph="g.onnx", engine="onnxruntime", engine_version="1", precision="fp32", inputs={}, file_bytes=file_bytes,
        ops=ops,
    )  # fmt: skip


def test_a_calibrated_kernel_is_predicted_from_its_points() -> None:
    profile = calibrated(dense__MatMul__float=(Point(sizes=(64, 128, 256), us=40.0),))
    found = predict(profile, work(DENSE, DENSE))
    assert found.latency_ms.p50 == pytest.approx(0.09, rel=0.02)
    assert found.predicted and found.uncovered_macs_fraction == 0.0
    assert found.ops[0].ms == pytest.approx(0.04, rel=0.02)
    low, high = found.latency_ms.interval_80 or (0, 0)
    wide_low, wide_high = found.latency_ms.interval_95 or (0, 0)
    assert wide_low < low < 0.09 < high < wide_high
    assert "not measured" in found.verdict.reasons[0]


def test_macs_of_a_kernel_that_nothing_is_known_of_are_told_as_not_covered() -> None:
    profile = calibrated(dense__MatMul__float=(Point(sizes=(64, 128, 256), us=40.0),))
    lstm = op("LSTM", 3 * (DENSE.macs or 0), [(5, 1, 8), (1, 48, 8), (1, 48, 12)], (5, 1, 1, 12))
    found = predict(profile, work(DENSE, lstm))
    assert found.uncovered_macs_fraction == pytest.approx(0.75)
    assert found.verdict.kind == "noisy"


def test_a_kernel_like_another_widens_the_interval() -> None:
    profile = calibrated(dense__MatMul__float=(Point(sizes=(64, 128, 256), us=40.0),))
    other = msgspec.structs.replace(DENSE, kind="MatMulNBits")
    known = estimate(profile, [DENSE], engine="onnxruntime", precision="fp32")
    alike = estimate(profile, [other], engine="onnxruntime", precision="fp32")
    assert alike.spread > known.spread


@pytest.mark.parametrize("name", [name for name in devices.known() if devices.load(name).kind != "mcu"])
def test_every_device_predicts_more_time_for_more_work(name: str) -> None:
    profile = devices.load(name)
    engine = profile.engines.value[0]
    small = estimate(profile, [DENSE], engine=engine, precision="fp32")
    large = estimate(profile, [DENSE, DENSE, DENSE], engine=engine, precision="fp32")
    assert 0 < small.ms < large.ms
    assert small.uncovered_macs_fraction == 0.0
    assert large.interval(1.0)[0] < large.ms < large.interval(1.0)[1]


def test_more_threads_never_take_longer() -> None:
    profile = devices.load("pi4")
    times = [estimate(profile, [DENSE], engine="litert", precision="fp32", threads=n).ms for n in (1, 2, 3, 4)]
    assert times == sorted(times, reverse=True)


def test_what_cannot_be_predicted_is_refused_with_the_way_out() -> None:
    pi4 = devices.load("pi4")
    with pytest.raises(UsageError, match="no engine of pi4"):
        predict(pi4, work(DENSE), engine="torch")
    with pytest.raises(UsageError, match="1 thread or more"):
        predict(pi4, work(DENSE), threads=0)
    with pytest.raises(Refused, match="all memory of pi4"):
        predict(pi4, work(DENSE, file_bytes=2 << 30))
    bare = msgspec.structs.replace(pi4, peaks=(), rates=())
    with pytest.raises(Refused) as error:
        predict(bare, work(DENSE))
    assert "--calibrate" in error.value.remedy


def test_a_calibration_writes_a_profile_that_predicts_this_machine(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if "onnxruntime" not in engines.available():
        pytest.skip("onnxruntime is not installed")
    chosen = [entry for entry in micro_onnx.plan() if entry.sizes in ((256,), (256, 128), (64, 64, 64), (1, 1 << 20))]
    suite = calibration.Suite(".onnx", lambda: chosen, micro_onnx.build)
    monkeypatch.setattr(calibration, "SUITES", {"onnxruntime": suite})
    monkeypatch.setattr(bench, "PASSES", 1)
    monkeypatch.chdir(tmp_path)
    said: list[str] = []
    path = calibration.calibrate(progress=said.append)
    assert path.parent == tmp_path / "device_profiles"
    assert len(said) == calibration.lines()
    profile = devices.load("local")
    assert profile == read(path)
    assert profile.rates and profile.bandwidth and profile.overheads
    assert all(rate.gmacs_per_s.kind == "measured" for rate in profile.rates)

    graph = tmp_path / "dense.onnx"
    graph.write_bytes(
        micro_onnx.build(
            next(entry for entry in chosen if entry.family == "dense" and not entry.int8 and len(entry.sizes) == 3)
        )
    )
    traced = devices.work_of(graph)[0]
    found = devices.predict(profile, traced)
    seen = bench.run_us(engines.get("onnxruntime").load(graph)) / 1e3
    # The same kernel at the same size; other work on the machine may slow either.
    assert seen / 3 < (found.latency_ms.p50 or 0) < 3 * seen
    assert found.uncovered_macs_fraction == 0.0


def test_a_calibration_refuses_what_it_has_no_graphs_for(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="torch"):
        calibration.calibrate(tmp_path, engine=["torch"])


def test_a_profile_whose_predictor_is_gone_is_refused(tmp_path: Path) -> None:
    profile = calibrated(dense__MatMul__float=(Point(sizes=(1, 2, 3), us=1.0),))
    bare = msgspec.structs.replace(profile, name="mine", predictor="mine.predictor.json")
    path = calibration.write(bare, tmp_path)
    assert read(path) == bare
    (tmp_path / "mine.predictor.json").write_text("{}")
    with pytest.raises(Refused, match="not a predictor"):
        read(path)
    (tmp_path / "mine.predictor.json").unlink()
    with pytest.raises(Refused, match="not there"):
        read(path)


def test_a_name_that_no_profile_can_have_is_refused() -> None:
    with pytest.raises(UsageError, match="no name"):
        calibration.summarise(store.describe(store.this_machine()), (), "My Board")


def test_a_surface_is_made_once() -> None:
    points = (Point(sizes=(1,), us=1.0),)
    assert table.surface(points) is table.surface(points)


def test_the_functions_of_the_package_are_no_modules() -> None:
    # A submodule of the same name would take the function's place as soon as it is imported.
    assert all(callable(getattr(devices, name)) for name in ("predict", "calibrate", "load", "known"))


def test_a_card_gets_no_int8_graph_that_its_provider_cannot_run() -> None:
    with pytest.raises(Refused, match="no int8 kernels"):
        engine_there(devices.load("nvidia-t4"), "onnxruntime", "int8")
    assert engine_there(devices.load("nvidia-t4"), "onnxruntime", "fp32") == "onnxruntime-gpu"


def test_a_device_with_power_gives_modelled_energy_with_its_prediction() -> None:
    found = predict(devices.load("pi5"), work(DENSE))
    assert found.energy.kind == "modelled"
    assert found.energy.mj == pytest.approx(3.9 * (found.latency_ms.p50 or 0))


def test_calibrating_a_known_device_keeps_what_is_not_measured() -> None:
    bare = devices.load("pi4")
    fresh = Kernels(
        engine="litert", engine_version="2", threads=1, run_us=3.0,
        points={"dense/FULLY_CONNECTED/float": (Point(sizes=(64, 64, 64), us=50.0),)},
    )  # fmt: skip
    made = calibration.summarise(bare, (fresh,), "pi4")
    assert made.published == bare.published
    assert {rate.engine for rate in made.rates} == {*(rate.engine for rate in bare.rates), "litert"}
    assert made.bandwidth == bare.bandwidth  # nothing was streamed
    assert made.calibrated("litert", 1) == fresh


def test_another_instruction_set_cannot_be_calibrated_here() -> None:
    there = store.this_machine()
    other = "pi5" if there.is_x86 else "n100"
    with pytest.raises(UsageError, match=f"{other} is"):
        calibration.basis(other, there)
    assert calibration.basis("never-seen", there).name == there.id


def test_a_large_picture_with_many_channels_is_like_smaller_ones_with_as_many() -> None:
    """Pixels add work at one rate; few channels leave vectors empty, whatever the picture."""
    fast = [
        Point(sizes=(rows, inner, columns), us=rows * inner * columns / 200e3)
        for rows, inner, columns in ((256, 144, 16), (1024, 144, 16), (1024, 288, 32), (256, 576, 64), (1024, 576, 64))
    ]
    slow = [
        Point(sizes=(rows, inner, columns), us=rows * inner * columns / 20e3)
        for rows, inner, columns in ((1024, 27, 16), (4096, 27, 16), (9216, 27, 8), (4096, 72, 8))
    ]
    wanted = (4096, 288, 32)
    right_us = 4096 * 288 * 32 / 200e3
    seen = {apart: table.surface((*fast, *slow), apart).us(wanted) for apart in (1.0, table.CONV_ROWS_APART)}
    assert right_us * 0.7 < seen[table.CONV_ROWS_APART] < seen[1.0]


def test_what_reading_weights_adds_does_not_bulge_between_the_rows_measured() -> None:
    stream = tuple(
        Point(sizes=(rows, megabytes << 20), us=us)
        for rows, times in ((8, (40, 90)), (64, (290, 340)))
        for megabytes, us in zip((2, 64), times, strict=True)
    )
    dense = (Point(sizes=(32, 512, 512), us=150, macs=32 << 18),)
    kernels = Kernels(
        engine="e", engine_version="1", threads=1, run_us=1,
        points={"dense/stream/float": stream, "dense/MatMul/float": dense},
    )  # fmt: skip
    layers = [op("MatMul", 32 << 18, [(32, 512), (512, 512)], (32, 512))] * 64
    profile = msgspec.structs.replace(devices.load("x86-vnni"), kernels=(kernels,))
    made = estimate(profile, layers, engine="e", precision="fp32")
    assert made.us[0] == pytest.approx(200, rel=0.05)
    few = estimate(profile, layers[:2], engine="e", precision="fp32")
    assert few.us[0] == pytest.approx(150, rel=0.05)


def test_operators_of_a_called_subgraph_take_more_unless_they_are_the_step_of_a_recurrence() -> None:
    points = {
        "elementwise/ADDInt/float": (Point(sizes=(128,), us=0.2),),
        "move/CALLED/float": (Point(sizes=(1,), us=0.1),),
        "recurrent/FULLY_CONNECTED/float": (Point(sizes=(1, 64, 256), us=5, macs=64 * 256),),
    }
    kernels = Kernels(engine="e", engine_version="1", threads=1, run_us=1, points=points)
    profile = msgspec.structs.replace(devices.load("x86-vnni"), kernels=(kernels,))
    add = op("ADD", 0, [(1, 128), (1, 128)], (1, 128), dtype="int32", calls=4)
    step = op("FULLY_CONNECTED", 4 * 64 * 256, [(1, 64), (256, 64)], (1, 256), calls=4)
    alone = estimate(profile, [add], engine="e", precision="fp32")
    assert alone.us[0] == pytest.approx(4 * (0.2 + 0.1), rel=0.02)
    together = estimate(profile, [add, step], engine="e", precision="fp32")
    assert together.us == pytest.approx((4 * 0.2, 4 * 5), rel=0.02)


def test_states_that_go_in_and_out_take_time_by_their_size() -> None:
    points = {
        "elementwise/ADD/float": (Point(sizes=(128, 128), us=0.2),),
        "move/WIRE/float": (Point(sizes=(128,), us=1.0), Point(sizes=(4096,), us=2.0)),
    }
    kernels = Kernels(engine="e", engine_version="1", threads=1, run_us=3, points=points)
    profile = msgspec.structs.replace(devices.load("x86-vnni"), kernels=(kernels,))
    add = op("ADD", 0, [(1, 128), (1, 128)], (1, 128))

    def run_us(inputs: list[int], outputs: int) -> float:
        return estimate(profile, [add], engine="e", precision="fp32", inputs=inputs, outputs=outputs).run_us

    assert run_us([128], 1) == run_us([], 1) == 3
    assert run_us([128, 4096], 1) == pytest.approx(3 + 2.0 / 2, rel=0.05)  # the state alone goes in
    assert run_us([128, 4096], 2) == pytest.approx(3 + 2.0, rel=0.05)  # and comes out
    assert run_us([128], 3) == pytest.approx(3 + (1.0 + 0.5) / 2, rel=0.2)  # two more answers
