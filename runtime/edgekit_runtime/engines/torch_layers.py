"""ONNX layers as torch calls: convolutions, pooling, normalization, recurrent layers. See `torch_ops` for the rest."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch  # noqa: TID251 - part of the engine torch, which is loaded by name

from edgekit_runtime.engines.torch_ops import Attributes, Function

# Gates of ONNX in torch's order: LSTM i o f c -> i f c o; GRU z r h -> r z h.
_GATES: dict[str, tuple[int, ...]] = {"LSTM": (0, 2, 3, 1), "GRU": (1, 0, 2), "RNN": (0,)}
_ACTIVATIONS = {"LSTM": ["Sigmoid", "Tanh", "Tanh"], "GRU": ["Sigmoid", "Tanh"], "RNN": ["Tanh"]}


def why_not(kind: str, attributes: Attributes, inputs: Sequence[str]) -> str:
    """Why a node of a known kind is none that these functions compute; empty where they do (pure).

    Args:
        kind: Operator type.
        attributes: Of the node.
        inputs: Names of its inputs; empty: not given.
    """
    if kind in _GATES:
        if len(inputs) > 4 and inputs[4]:
            return "lengths of sequences (sequence_lens)"
        if attributes.get("layout", 0) or attributes.get("clip") or attributes.get("input_forget", 0):
            return "layout, clip or input_forget"
        if kind == "LSTM" and len(inputs) > 7 and inputs[7]:
            return "peepholes"
        if kind == "GRU" and not attributes.get("linear_before_reset", 0):
            return "linear_before_reset=0"
        given = attributes.get("activations") or []
        if given and given != _ACTIVATIONS[kind] * (len(given) // len(_ACTIVATIONS[kind])):
            return f"the activations {', '.join(given)}"
    if kind == "MaxPool" and attributes.get("storage_order", 0):
        return "storage_order=1"
    if kind == "AveragePool" and any(each != 1 for each in attributes.get("dilations", ())):
        return "dilations"
    if kind == "DequantizeLinear" and attributes.get("block_size", 0):
        return "blocks"
    if kind in ("ScatterND", "ScatterElements") and attributes.get("reduction", "none") not in ("none", "add"):
        return f"the reduction {attributes['reduction']}"
    return ""


def _padded(attributes: Attributes, x: torch.Tensor, kernel: Sequence[int], value: float) -> torch.Tensor:
    """The input with the node's padding written out: torch pads both ends alike only."""
    axes = len(kernel)
    pads = attributes.get("pads") or [0] * (2 * axes)
    automatic = attributes.get("auto_pad", "NOTSET")
    if automatic in ("SAME_UPPER", "SAME_LOWER"):
        strides, dilations = _per_axis(attributes, axes)
        before, after = [], []
        for size, each, stride, dilation in zip(x.shape[-axes:], kernel, strides, dilations, strict=True):
            reach = (each - 1) * dilation + 1
            missing = max((math.ceil(size / stride) - 1) * stride + reach - size, 0)
            half = missing // 2 if automatic == "SAME_UPPER" else missing - missing // 2
            before.append(half)
            after.append(missing - half)
        pads = [*before, *after]
    if not any(pads):
        return x
    flat = [size for axis in reversed(range(axes)) for size in (pads[axis], pads[axis + axes])]
    return torch.nn.functional.pad(x, flat, value=value)


def _per_axis(attributes: Attributes, axes: int) -> tuple[list[int], list[int]]:
    return list(attributes.get("strides") or [1] * axes), list(attributes.get("dilations") or [1] * axes)


def _conv(attributes: Attributes, x: torch.Tensor, w: torch.Tensor, b: torch.Tensor | None = None) -> torch.Tensor:
    axes = w.dim() - 2
    strides, dilations = _per_axis(attributes, axes)
    pads = list(attributes.get("pads") or [0] * (2 * axes))
    even = attributes.get("auto_pad", "NOTSET") in ("NOTSET", "VALID") and pads[:axes] == pads[axes:]
    x = x if even else _padded(attributes, x, w.shape[2:], 0.0)
    group = attributes.get("group", 1)
    return torch.convolution(
        x, w, b, strides, pads[:axes] if even else [0] * axes, dilations, False, [0] * axes, group
    )  # fmt: skip


def _max_pool(attributes: Attributes, x: torch.Tensor) -> torch.Tensor:
    kernel = attributes["kernel_shape"]
    strides, dilations = _per_axis(attributes, len(kernel))
    pool = _by_axes("max_pool", len(kernel))
    x = _padded(attributes, x, kernel, -math.inf)
    return pool(x, kernel, strides, 0, dilations, bool(attributes.get("ceil_mode", 0)))  # type: ignore[no-any-return]


def _average_pool(attributes: Attributes, x: torch.Tensor) -> torch.Tensor:
    """Padding counts only where the node says so: sums are divided by how many values were there."""
    kernel = attributes["kernel_shape"]
    strides, _ = _per_axis(attributes, len(kernel))
    pool, ceil = _by_axes("avg_pool", len(kernel)), bool(attributes.get("ceil_mode", 0))
    mean = pool(_padded(attributes, x, kernel, 0.0), kernel, strides, 0, ceil)
    if attributes.get("count_include_pad", 0):
        return mean  # type: ignore[no-any-return]
    there = _padded(attributes, torch.ones_like(x[:1, :1]), kernel, 0.0)
    return mean / pool(there, kernel, strides, 0, ceil)  # type: ignore[no-any-return]


def _by_axes(name: str, axes: int) -> Any:
    return getattr(torch.nn.functional, f"{name}{axes}d")


def _gemm(attributes: Attributes, a: torch.Tensor, b: torch.Tensor, c: torch.Tensor | None = None) -> torch.Tensor:
    a = a.t() if attributes.get("transA", 0) else a
    b = b.t() if attributes.get("transB", 0) else b
    alpha, beta = attributes.get("alpha", 1.0), attributes.get("beta", 1.0)
    if c is not None:
        return torch.addmm(c, a, b, beta=beta, alpha=alpha)
    return torch.mm(a, b) * alpha if alpha != 1 else torch.mm(a, b)


def _layer_norm(
    attributes: Attributes, x: torch.Tensor, scale: torch.Tensor, bias: torch.Tensor | None = None
) -> torch.Tensor:
    shape = x.shape[attributes.get("axis", -1) :]
    return torch.nn.functional.layer_norm(
        x,
        shape,
        scale.expand(shape),
        None if bias is None else bias.expand(shape),
        attributes.get("epsilon", 1e-5),
    )


def _batch_norm(
    attributes: Attributes,
    x: torch.Tensor,
    scale: torch.Tensor,
    bias: torch.Tensor,
    mean: torch.Tensor,
    variance: torch.Tensor,
) -> torch.Tensor:
    epsilon = attributes.get("epsilon", 1e-5)
    return torch.nn.functional.batch_norm(x, mean, variance, scale, bias, False, 0.0, epsilon)


def _instance_norm(attributes: Attributes, x: torch.Tensor, scale: torch.Tensor, bias: torch.Tensor) -> torch.Tensor:
    epsilon = attributes.get("epsilon", 1e-5)
    return torch.nn.functional.instance_norm(x, weight=scale, bias=bias, eps=epsilon)


def _recurrent(kind: str) -> Function:
    def run(
        attributes: Attributes,
        x: torch.Tensor,
        w: torch.Tensor,
        r: torch.Tensor,
        b: torch.Tensor | None = None,
        lengths: None = None,
        h: torch.Tensor | None = None,
        c: torch.Tensor | None = None,
    ) -> tuple[torch.Tensor, ...]:
        """From x [T, B, I], w [D, G*H, I], r [D, G*H, H] to y [T, D, B, H] and the last h (and c) [D, B, H]."""
        direction = attributes.get("direction", "forward")
        directions, hidden = w.shape[0], r.shape[2]
        x = x.flip(0) if direction == "reverse" else x
        zeros = x.new_zeros(directions, x.shape[1], hidden)
        first = zeros if h is None else h
        state = [first, zeros if c is None else c] if kind == "LSTM" else first
        weights = [each for number in range(directions) for each in _weights(kind, w[number], r[number], b, number)]
        call = {"LSTM": torch.lstm, "GRU": torch.gru, "RNN": torch.rnn_tanh}[kind]
        y, *last = call(x, state, weights, b is not None, 1, 0.0, False, direction == "bidirectional", False)
        y = y.reshape(x.shape[0], x.shape[1], directions, hidden).transpose(1, 2)
        return (y.flip(0) if direction == "reverse" else y, *last)

    return run


def _weights(
    kind: str, w: torch.Tensor, r: torch.Tensor, b: torch.Tensor | None, number: int
) -> tuple[torch.Tensor, ...]:
    """Weights of one direction with the gates in torch's order."""
    gates = len(_GATES[kind])

    def ordered(values: torch.Tensor) -> torch.Tensor:
        parts = values.chunk(gates)
        return torch.cat([parts[gate] for gate in _GATES[kind]])

    biases = () if b is None else tuple(ordered(half) for half in b[number].chunk(2))
    return (ordered(w), ordered(r), *biases)


def _all_pixels(call: Any) -> Function:
    return lambda attributes, x: call(x, tuple(range(2, x.dim())), True)


TABLE: Mapping[str, Function] = {
    "AveragePool": _average_pool,
    "BatchNormalization": _batch_norm,
    "Conv": _conv,
    "GRU": _recurrent("GRU"),
    "Gemm": _gemm,
    "GlobalAveragePool": _all_pixels(torch.mean),
    "GlobalMaxPool": _all_pixels(torch.amax),
    "InstanceNormalization": _instance_norm,
    "LSTM": _recurrent("LSTM"),
    "LayerNormalization": _layer_norm,
    "MaxPool": _max_pool,
    "RNN": _recurrent("RNN"),
}
