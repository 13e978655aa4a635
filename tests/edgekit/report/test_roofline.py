from __future__ import annotations

from types import SimpleNamespace as Stub

import pytest
from report_material import measurement

from edgekit.report import views
from edgekit.report.roofline import Roof, from_profile, place, roof_of
from edgekit_runtime.measurement import OpCost

ROOF = Roof({"fp32": 40.0, "int8": 160.0}, 10.0, "made up")
OPS = (
    OpCost(name="large", kind="Conv", ms=1.0, macs=20_000_000, bytes=1_000_000),
    OpCost(name="small", kind="Conv", ms=0.1, macs=1_000_000, bytes=1_000_000, int8=True),
    OpCost(name="moves", kind="Reshape", ms=0.2, macs=0, bytes=500),
    OpCost(name="untimed", kind="Conv", macs=100, bytes=100),
)


def test_a_roof_is_the_lower_of_arithmetic_and_memory():
    assert ROOF.limit("fp32", 100.0) == 40.0
    assert ROOF.limit("fp32", 1.0) == 10.0
    assert ROOF.limit("fp32", 100.0, threads=2) == 80.0
    assert ROOF.limit("fp16", 1.0) is None
    assert Roof({"fp32": 40.0}, None, "").limit("fp32", 0.1) == 40.0


def test_operators_are_placed_where_their_work_and_time_are_known():
    large, small = place(measurement("net.fp32", 1.0, ops=OPS), ROOF)
    assert (large.op.name, large.macs_per_byte, large.gmacs_per_s) == ("large", 20.0, 20.0)
    assert large.of_roof == pytest.approx(0.5)
    assert small.gmacs_per_s == 10.0 and small.of_roof == pytest.approx(1.0)
    assert [row.of_roof for row in place(measurement("net.fp32", 1.0, ops=OPS), None)] == [None, None]


def test_the_chart_names_roofs_and_shares():
    document = measurement("net.fp32", 1.0, ops=OPS)
    chart = str(views.roofline(document, ROOF))
    assert "fp32 roof" in chart and "int8 roof" in chart and "large: 20.0, 20.0" in chart
    assert "50% of roof" in str(views.operators(document, ROOF))
    assert views.roofline(document, None) is None
    assert views.roofline(measurement("net.fp32", 1.0, ops=OPS[2:]), ROOF) is None


def figure(value: float) -> Stub:
    return Stub(value=value)


def test_roofs_come_from_the_peaks_clock_and_memory_of_a_profile():
    profile = Stub(
        name="pi4",
        hardware=Stub(clock_mhz=figure(1500)),
        peaks=(Stub(precision="fp32", macs_per_cycle=figure(4)),),
        bandwidth=(
            Stub(working_set_bytes=32768, gb_per_s=figure(20)),
            Stub(working_set_bytes=None, gb_per_s=figure(2.3)),
        ),
    )
    found = from_profile(profile)
    assert found is not None and found.gmacs_per_s == {"fp32": 6.0} and found.gb_per_s == 2.3
    assert "pi4" in found.source
    profile.peaks = ()
    assert from_profile(profile) is None


def test_a_device_without_a_profile_has_no_roof():
    assert roof_of("local-nothing") is None


def test_the_fingerprint_changes_with_the_engine_and_not_with_the_load():
    document = measurement("net.fp32", 1.0)
    busy = measurement("net.fp32", 1.0, environment=document.environment.__class__(cpu="AMD EPYC, 2 cores", load=9.0))
    first = views.fingerprint(document.environment, ["onnxruntime 1.32.0"])
    assert first == views.fingerprint(busy.environment, ["onnxruntime 1.32.0"])
    assert first != views.fingerprint(document.environment, ["onnxruntime 1.33.0"])
