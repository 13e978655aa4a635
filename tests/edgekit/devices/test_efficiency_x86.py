"""Fractions of the peak on x86 cores: where they come from and whom they serve."""

from __future__ import annotations

import statistics

import pytest

from edgekit import devices
from edgekit.devices.efficiency import FRACTIONS, X86_FRACTIONS, fractions, rate
from edgekit.devices.families import Cell


@pytest.mark.parametrize("int8", [False, True])
def test_they_are_those_of_the_calibrated_machine(int8: bool):
    profile = devices.load("x86-vnni")
    precision = "int8" if int8 else "fp32"
    peak = profile.peak_gmacs_per_s(precision)
    assert peak is not None
    for family, stated in X86_FRACTIONS["int8" if int8 else "float"].items():
        seen = [
            entry.gmacs_per_s.value / peak
            for entry in profile.rates
            if entry.precision == precision and entry.family == family
        ]
        # A new calibration on a busier machine moves them by so much.
        assert not seen or stated == pytest.approx(statistics.fmean(seen), rel=0.25), family


def test_a_core_with_vnni_takes_them_an_arm_core_does_not_and_without_vnni_only_those_of_floats():
    n100, pi5, old = (devices.load(name) for name in ("n100", "pi5", "x86-no-vnni"))
    assert fractions(n100, int8=True) == X86_FRACTIONS["int8"]
    assert fractions(n100, int8=False) == fractions(old, int8=False) == X86_FRACTIONS["float"]
    assert fractions(old, int8=True) == fractions(pi5, int8=True) == FRACTIONS["int8"]


def test_int8_on_the_n100_is_more_than_three_times_as_fast_as_fp32():
    """Its VPDPBUSD does four times the products of a fused multiply-add of the same width."""
    n100 = devices.load("n100")
    both = [
        rate(
            n100,
            Cell("conv", "QLinearConv" if int8 else "Conv", int8, (4096, 576, 64), 1, 1),
            engine="onnxruntime",
            precision="int8" if int8 else "fp32",
            threads=1,
        )
        for int8 in (True, False)
    ]
    assert both[0] is not None and both[1] is not None
    assert 3 < both[0][0] / both[1][0] < 4.2
