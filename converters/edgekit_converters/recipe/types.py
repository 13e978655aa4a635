"""The resolved recipe: every decision of a quantization as data that can be printed, stored and tested.

`resolve` functions (one a format) look at a graph and decide; `apply` functions do what the recipe says and nothing
more. Every operator with weights or MACs gets a decision, and every "no" carries its reason.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

from edgekit_runtime.manifest import Base

Scheme = Literal[
    "float",  # left in floating point
    "static",  # int8 weights per channel, activations int8 with calibrated scales
    "dynamic_row",  # int8 weights per channel, activations int8 with a scale a row computed at run time
    "dynamic_tensor",  # int8 weights, activations int8 with one scale a tensor computed at run time
    "weight_row",  # a table in int8 with one scale a row, dequantized after the look-up
    "weight_channel",  # int8 weights per channel, floating-point arithmetic
    "follow",  # moves or pools int8 values that its neighbours produce (Reshape, MaxPool, Add ...)
]

# Decisions that go before those of `resolve`, by operator: what was given back for quality or speed, with the reason.
Given = Mapping[str, tuple[Scheme, str]]


class OpDecision(Base, frozen=True, kw_only=True):
    """What becomes of one operator.

    Attributes:
        op: Node name in the fp32 graph of the format.
        kind: Operator type there (`Conv`, `FULLY_CONNECTED`, ...).
        scheme: How it is computed.
        reason: Why, in plain words; for `float` what stands against int8 and the way out.
        macs: Multiply-accumulates at the example's size.
        weight_bytes: Bytes of its constant weights in fp32.
        touched_bytes: How many of those (in fp32) one run at the example's size reads: all of them, but for look-ups.
        where: `file.py:line` in the student's source, where the exporter told.
    """

    op: str
    kind: str
    scheme: Scheme
    reason: str
    macs: int = 0
    weight_bytes: int = 0
    touched_bytes: int = 0
    where: str = ""


class Recipe(Base, frozen=True, kw_only=True):
    """All decisions for one graph file."""

    schema: Literal["edgekit.recipe/1"] = "edgekit.recipe/1"
    format: Literal["onnx", "tflite"]
    precision: Literal["fp32", "fp16", "int8"]
    variant: str = ""
    ops: tuple[OpDecision, ...]
    notes: tuple[str, ...] = ()
