from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgekit.report.numbers import MISSING, bytes_, interval, significant, times


@given(st.floats(1e-4, 1e9))
def test_three_digits_keep_the_value_within_half_a_percent(value: float):
    assert float(significant(value).replace(",", "")) == pytest.approx(value, rel=0.0051)


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.2936, "0.294"),
        (15.34, "15.3"),
        (1280.4, "1,280"),
        (0, "0"),
        (None, MISSING),
        (math.nan, MISSING),
        (-0.0, "0"),
    ],
)
def test_numbers_read_well(value, text: str):
    assert significant(value) == text


def test_ends_of_an_interval_can_be_told_apart():
    assert interval((0.0455, 0.0456)) == "0.0455 to 0.0456"
    assert interval((1.00012, 1.00031)) == "1.0001 to 1.0003"
    assert interval(None) == MISSING


def test_bytes_are_decimal():
    assert [bytes_(value) for value in (12, 53_900, 1_290_000, 2e9, None)] == [
        "12 B",
        "53.9 kB",
        "1.29 MB",
        "2.00 GB",
        MISSING,
    ]
    assert times(2.14).startswith("2.1")
