"""The arithmetic of int8: scales, zero points, rounding. Pure numpy.

real = scale * (q - zero_point). Weights are symmetric (zero_point 0, -127..127) with one scale a channel or row.
Source: Jacob et al., Quantization and Training of Neural Networks for Efficient Integer-Arithmetic-Only Inference,
arXiv 1712.05877.
"""

from __future__ import annotations

import numpy as np

# A channel whose weights are all zero still needs a scale; any positive one gives exact zeros.
_TINY = np.float32(1e-8)


def quantize_weight(weight: np.ndarray, axis: int, *, levels: int = 127) -> tuple[np.ndarray, np.ndarray]:
    """Symmetric int8 with one scale an index of `axis`.

    Args:
        weight: float32.
        axis: The axis that keeps its own scales.
        levels: Largest absolute code: 127, or 63 for reduced range.

    Returns:
        int8 codes of the same shape, and float32 scales [weight.shape[axis]].
    """
    others = tuple(i for i in range(weight.ndim) if i != axis % weight.ndim)
    scale = np.maximum(np.abs(weight).max(axis=others) / levels, _TINY).astype(np.float32)
    shape = [1] * weight.ndim
    shape[axis] = -1
    codes = np.clip(np.rint(weight / scale.reshape(shape)), -levels, levels).astype(np.int8)
    return codes, scale


def activation_parameters(low: float, high: float, dtype: type[np.generic]) -> tuple[np.float32, np.generic]:
    """Affine scale and zero point that cover [low, high] and 0, in int8 or uint8."""
    low, high = min(low, 0.0), max(high, 0.0)
    scale = np.float32(max((high - low) / 255.0, float(_TINY)))
    smallest = int(np.iinfo(np.dtype(dtype)).min)
    zero = int(np.clip(np.rint(smallest - low / float(scale)), smallest, smallest + 255))
    return scale, dtype(zero)


def quantize_bias(bias: np.ndarray, input_scale: float, weight_scale: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """int32 codes of a bias with the scales of the accumulator (input_scale * weight_scale), and those scales."""
    scale = (np.float32(input_scale) * weight_scale).astype(np.float32)
    limit = np.iinfo(np.int32).max
    return np.clip(np.rint(bias.astype(np.float64) / scale), -limit, limit).astype(np.int32), scale
