from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from edgekit_converters.onnx.observe import Range, best_clip
from edgekit_converters.onnx.qmath import activation_parameters, quantize_bias, quantize_weight

FLOATS = st.floats(-1e3, 1e3, width=32)


@given(hnp.arrays(np.float32, hnp.array_shapes(min_dims=2, max_dims=4, max_side=6), elements=FLOATS), st.integers(0, 1))
def test_a_weight_comes_back_within_half_a_step(weight: np.ndarray, axis: int) -> None:
    codes, scale = quantize_weight(weight, axis)
    shape = [1] * weight.ndim
    shape[axis] = -1
    step = scale.reshape(shape)
    assert codes.dtype == np.int8 and np.abs(codes.astype(int)).max(initial=0) <= 127
    # 1e-4: the division by the step is itself rounded to float32.
    assert (np.abs(codes * step - weight) <= step * (0.5 + 1e-4)).all()


@given(hnp.arrays(np.float32, (3, 4), elements=FLOATS))
def test_reduced_range_keeps_codes_within_seven_bits(weight: np.ndarray) -> None:
    codes, _ = quantize_weight(weight, 0, levels=63)
    assert np.abs(codes.astype(int)).max() <= 63


@pytest.mark.parametrize("dtype", [np.int8, np.uint8])
@given(low=st.floats(-1e4, 0), width=st.floats(1e-3, 1e4), share=st.floats(0, 1))
def test_an_activation_comes_back_within_half_a_step(dtype: type, low: float, width: float, share: float) -> None:
    high = low + width
    scale, zero = activation_parameters(low, high, dtype)
    low, high = min(low, 0.0), max(high, 0.0)
    value = low + share * (high - low)
    limits = np.iinfo(dtype)
    code = np.clip(np.rint(value / float(scale)) + int(zero), limits.min, limits.max)
    # The zero point is a whole number: at the ends of the range that costs up to another half step.
    assert abs((code - int(zero)) * float(scale) - value) <= float(scale) * 1.001


@pytest.mark.parametrize("dtype", [np.int8, np.uint8])
@given(low=st.floats(-1e4, 1e4), high=st.floats(-1e4, 1e4))
def test_zero_is_exact_whatever_the_range(dtype: type, low: float, high: float) -> None:
    _, zero = activation_parameters(min(low, high), max(low, high), dtype)
    assert np.iinfo(dtype).min <= int(zero) <= np.iinfo(dtype).max


def test_a_bias_is_coded_in_steps_of_the_accumulator() -> None:
    codes, scale = quantize_bias(np.array([0.5, -0.25]), 0.1, np.array([0.01, 0.02], np.float32))
    np.testing.assert_allclose(scale, [0.001, 0.002], rtol=1e-6)
    np.testing.assert_allclose(codes * scale, [0.5, -0.25], atol=1e-3)


def test_one_far_outlier_is_clipped_away() -> None:
    counts = np.zeros(2048, np.int64)
    counts[:200], counts[-1] = 10_000, 1
    assert best_clip(Range(0.0, 100.0), counts).max < 100.0


def test_an_even_spread_is_not_clipped() -> None:
    assert best_clip(Range(-1.0, 1.0), np.full(2048, 50)) == Range(-1.0, 1.0)
