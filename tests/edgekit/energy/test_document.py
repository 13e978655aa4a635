"""The energy of a measurement document: measured, modelled, or unavailable with the reason; never 0 for absent."""

from __future__ import annotations

import struct
from pathlib import Path

import msgspec
import numpy as np
import pytest

from edgekit import devices, energy
from edgekit.devices.profile import DeviceProfile, Figure, Rate
from edgekit.energy import trace
from edgekit.energy.document import busy_w, metered
from edgekit.energy.meter import EnergyReading, Unreadable
from edgekit_runtime.errors import Refused
from edgekit_runtime.measurement import OpCost

DATA = Path(__file__).parents[4] / "shared" / "data" / "device_perf" / "mlperf_energy_trace"


def reading(joules: float, seconds: float = 2.0) -> EnergyReading:
    return EnergyReading(joules=joules, seconds=seconds, method="meter", source="test", covers="board")


def test_a_run_takes_its_share_gross_and_without_idling() -> None:
    found = energy.for_measurement(reading(10.0), 100, idle=reading(3.0, 1.0))
    assert (found.kind, found.mj) == ("measured", pytest.approx(100.0))
    assert found.net_mj == pytest.approx((10.0 - 3.0 * 2.0) / 100 * 1e3)


def test_without_an_idle_reading_only_the_gross_figure_is_given() -> None:
    found = energy.for_measurement(reading(10.0), 100)
    assert found.net_mj is None
    assert "idle" in found.reason


def test_work_that_cannot_be_told_from_idling_has_no_net_figure() -> None:
    found = energy.for_measurement(reading(10.0), 100, idle=reading(6.0, 1.0))
    assert found.mj == pytest.approx(100.0)
    assert found.net_mj is None
    assert "no more power" in found.reason


@pytest.mark.parametrize(("joules", "runs"), [(0.0, 10), (5.0, 0)])
def test_nothing_counted_is_unavailable_and_never_zero(joules: float, runs: int) -> None:
    found = energy.for_measurement(reading(joules), runs)
    assert (found.kind, found.mj) == ("unavailable", None)
    assert found.reason


class Dead:
    """A meter that fails."""

    def start(self) -> None:
        raise Unreadable("the sensor is gone")

    def stop(self) -> EnergyReading:
        raise AssertionError("never started")


class Steady:
    """2 J each time."""

    def start(self) -> None:
        pass

    def stop(self) -> EnergyReading:
        return reading(2.0, 1.0)


def test_a_meter_that_fails_is_unavailable_with_its_reason() -> None:
    found = metered(Dead(), lambda: 5)
    assert (found.kind, found.reason) == ("unavailable", "the sensor is gone")


def test_any_meter_measures_work_after_looking_at_the_idle_machine() -> None:
    rested: list[bool] = []
    found = metered(Steady(), lambda: 4, rest=lambda: rested.append(True))
    assert rested == [True]
    assert found.mj == pytest.approx(500.0)
    assert found.net_mj is None  # the same power as idling


def test_modelled_energy_is_power_times_time_with_its_source() -> None:
    pi4 = devices.load("pi4")
    found = energy.modelled(pi4, 100.0, threads=4)
    assert (found.kind, found.mj) == ("modelled", pytest.approx(580.0))
    assert found.net_mj == pytest.approx(280.0)
    assert "ResNet-50" in found.source


def test_power_between_what_is_known_rises_with_each_core() -> None:
    pi4 = devices.load("pi4")
    found = busy_w(pi4, 2)
    assert found is not None
    assert found[0] == pytest.approx(3.0 + (5.8 - 3.0) * 2 / 4)


def test_a_profile_without_power_is_unavailable_with_the_reason() -> None:
    phone = devices.load("phone-big-core")
    assert isinstance(phone, DeviceProfile)
    found = energy.modelled(phone, 10.0)
    assert (found.kind, found.mj) == ("unavailable", None)
    assert "phone-big-core" in found.reason
    assert energy.modelled(devices.load("pi4"), None).kind == "unavailable"


def test_the_recorded_trace_gives_the_published_answer_within_a_thousandth() -> None:
    if not DATA.is_dir():
        pytest.skip("../shared/data is not here")
    recorded = trace.read(DATA / "kws_trace1-energy.bin")
    windows = trace.windows(DATA / "kws_trace1-timestamps.json")
    found = [energy.for_measurement(recorded.window(*window), 300).mj or 0.0 for window in windows]
    assert np.median(found) * 1e3 == pytest.approx(1820.454, rel=1e-3)
    published = (1821.699, 1820.454, 1819.235, 1821.194, 1819.064)  # kws_results.txt, window by window
    assert [mj * 1e3 for mj in found] == [pytest.approx(uj, rel=1e-3) for uj in published]


def written(path: Path, rate: float, values: list[float]) -> Path:
    path.write_bytes(b"\xf1" + struct.pack("<f", rate) + np.array(values, "<f4").tobytes())
    return path


def test_a_window_takes_the_share_of_a_sample_that_lies_within(tmp_path: Path) -> None:
    recorded = trace.read(written(tmp_path / "t.bin", 10.0, [1e6, 2e6, 4e6]))
    assert recorded.window(0.05, 0.25).joules == pytest.approx(0.5 + 2 + 2)
    replay = trace.Replay(recorded, 0.0, 0.3)
    replay.start()
    assert replay.stop().joules == pytest.approx(7)
    with pytest.raises(Unreadable):
        recorded.window(0.1, 0.4)


@pytest.mark.parametrize("data", [b"", b"\xf1\0\0", b"\xf2" + bytes(12), b"\xf1" + bytes(8), b"\xf1" + bytes(9)])
def test_other_files_are_no_traces(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "t.bin").write_bytes(data)
    with pytest.raises(Refused):
        trace.read(tmp_path / "t.bin")


def test_the_proxy_is_relative_and_says_where_it_comes_from() -> None:
    small = OpCost(name="a", kind="CONV_2D", macs=1000, bytes=1000, int8=True)
    big = OpCost(name="b", kind="CONV_2D", macs=1000, bytes=100_000_000, int8=True)
    pi4 = devices.load("pi4")
    near, far = energy.proxy([small], pi4), energy.proxy([big], pi4)
    assert near.relative < far.relative
    assert near.near > 0 and near.memory == 0
    assert far.memory > 0.9
    assert energy.proxy([], pi4).relative == 0.0
    whole = near.arithmetic + near.engine + near.near + near.cache + near.memory
    assert whole == pytest.approx(1.0)


def test_more_operators_with_the_same_work_take_more_energy() -> None:
    pi4 = devices.load("pi4")
    one = energy.proxy([OpCost(name="a", kind="CONV_2D", macs=1000, bytes=1000)], pi4)
    ten = energy.proxy([OpCost(name="a", kind="CONV_2D", macs=100, bytes=100)] * 10, pi4)
    called = energy.proxy([OpCost(name="a", kind="CONV_2D", macs=1000, bytes=1000, calls=10)], pi4)
    assert one.relative < ten.relative
    assert called.relative == pytest.approx(ten.relative)


def test_without_peaks_the_best_rate_tells_how_many_products_share_an_instruction() -> None:
    """A calibrated machine has rates and no peaks: int8 must not count as many instructions as floating point."""
    pi5 = devices.load("pi5")
    clock = pi5.hardware.clock_mhz.value * 1e6

    def rate(precision: str, lanes: float) -> Rate:
        figure = Figure(value=lanes * clock / 1e9, kind="measured", source="a test")
        return Rate(engine="litert", precision=precision, family="dense", gmacs_per_s=figure)

    calibrated = msgspec.structs.replace(pi5, peaks=(), rates=(rate("fp32", 8.0), rate("int8", 32.0)))
    op = OpCost(name="a", kind="CONV_2D", macs=10_000_000, bytes=0)
    costs = {
        int8: energy.proxy([msgspec.structs.replace(op, int8=int8)], calibrated).relative for int8 in (True, False)
    }
    assert costs[False] / costs[True] == pytest.approx((4.6 + 70 / 8) / (0.23 + 70 / 32), rel=0.01)


def test_floating_point_costs_more_than_integers() -> None:
    pi4 = devices.load("pi4")
    costs = [
        energy.proxy([OpCost(name="a", kind="CONV_2D", macs=10_000, bytes=100, int8=int8)], pi4).relative
        for int8 in (True, False)
    ]
    assert costs[0] < costs[1]
