"""Circular padding as a concatenation of the ends, for every exporter and opset.

    before: pad(x [..., T], (left, right), mode="circular")
    after:  concat(x[..., T - left:], x, x[..., :right])        (one axis after another, the last one first)

ONNX has Pad in mode `wrap` from opset 19 only, TFLite has none.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch


def pad(input: torch.Tensor, pad: Sequence[int], mode: str = "constant", value: float | None = None) -> torch.Tensor:
    """`torch.nn.functional.pad` written out where it is circular and pads with whole values; arguments as there."""
    import torch

    if mode != "circular" or any(not isinstance(amount, int) or amount < 0 for amount in pad):
        return NotImplemented
    for number in range(len(pad) // 2):
        axis, (left, right) = input.dim() - 1 - number, pad[2 * number : 2 * number + 2]
        parts = [input.narrow(axis, input.shape[axis] - left, left)] if left else []
        parts.append(input)
        if right:
            parts.append(input.narrow(axis, 0, right))
        input = torch.cat(parts, dim=axis) if len(parts) > 1 else input
    return input
