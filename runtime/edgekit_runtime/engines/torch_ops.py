"""ONNX operators as torch calls: element-wise work, shapes, moves, reductions. Layers stand in `torch_layers`.

Each function takes the node's attributes and its inputs (None: not given) and returns one tensor or a tuple. The
meaning is that of the ONNX operator pages at opset 13 and newer, checked against ONNX Runtime in the tests.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import onnx  # noqa: TID251 - part of the engine torch, which is loaded by name
import torch  # noqa: TID251 - as above

Attributes = Mapping[str, Any]
Function = Callable[..., Any]

# Positions of inputs that are sizes, axes and places: read on the host.
HOST: dict[str, frozenset[int]] = {
    "ConstantOfShape": frozenset({0}),
    "Range": frozenset({0, 1, 2}),
    "Slice": frozenset({1, 2, 3, 4}),
    "Pad": frozenset({1, 2, 3}),
    **dict.fromkeys(
        ("CumSum", "Expand", "Reshape", "Split", "Squeeze", "Tile", "TopK", "Unsqueeze"), frozenset({1})
    ),
    **dict.fromkeys(
        [f"Reduce{name}" for name in ("Max", "Min", "Mean", "Sum", "Prod", "L1", "L2", "SumSquare", "LogSumExp")],
        frozenset({1}),
    ),
}  # fmt: skip


_PAD_MODES = {"constant": "constant", "reflect": "reflect", "edge": "replicate", "wrap": "circular"}


def _plain(call: Callable[..., torch.Tensor]) -> Function:
    """An operator without attributes whose inputs are those of a torch function."""
    return lambda attributes, *given: call(*given)


def _folded(call: Callable[[torch.Tensor, torch.Tensor], torch.Tensor]) -> Function:
    """An operator over any number of inputs (Sum, Max, Min)."""

    def fold(attributes: Attributes, *given: torch.Tensor) -> torch.Tensor:
        result = given[0]
        for value in given[1:]:
            result = call(result, value)
        return result

    return fold


def dtype_of(number: int) -> torch.dtype:
    """The dtype of torch for a TensorProto data type."""
    if number == onnx.TensorProto.BFLOAT16:
        return torch.bfloat16
    name = str(onnx.helper.tensor_dtype_to_np_dtype(number))
    return getattr(torch, name)  # type: ignore[no-any-return]


def _divide(attributes: Attributes, a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    return torch.div(a, b) if a.is_floating_point() else torch.div(a, b, rounding_mode="trunc")


def _modulo(attributes: Attributes, a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    return torch.fmod(a, b) if attributes.get("fmod", 0) else torch.remainder(a, b)


def _cast(attributes: Attributes, x: torch.Tensor) -> torch.Tensor:
    return x.to(dtype_of(attributes["to"]))


def _clip(
    attributes: Attributes, x: torch.Tensor, low: torch.Tensor | None = None, high: torch.Tensor | None = None
) -> torch.Tensor:
    x = x if low is None else torch.maximum(x, low)
    return x if high is None else torch.minimum(x, high)


def _gelu(attributes: Attributes, x: torch.Tensor) -> torch.Tensor:
    return torch.nn.functional.gelu(x, approximate=attributes.get("approximate", "none"))


def _leaky(attributes: Attributes, x: torch.Tensor) -> torch.Tensor:
    return torch.nn.functional.leaky_relu(x, attributes.get("alpha", 0.01))


def _elu(attributes: Attributes, x: torch.Tensor) -> torch.Tensor:
    return torch.nn.functional.elu(x, attributes.get("alpha", 1.0))


def _prelu(attributes: Attributes, x: torch.Tensor, slope: torch.Tensor) -> torch.Tensor:
    return torch.where(x < 0, x * slope, x)


def _hard_sigmoid(attributes: Attributes, x: torch.Tensor) -> torch.Tensor:
    return (x * attributes.get("alpha", 0.2) + attributes.get("beta", 0.5)).clamp(0, 1)


def _constant(attributes: Attributes) -> torch.Tensor:
    if "value" in attributes:
        return attributes["value"]  # type: ignore[no-any-return]
    (name, value), *_ = attributes.items()
    return torch.tensor(value, dtype=torch.float32 if "float" in name else torch.int64)


def _constant_of_shape(attributes: Attributes, shape: torch.Tensor) -> torch.Tensor:
    value = attributes.get("value", torch.zeros(1))
    return value.reshape(()).expand(shape.tolist()).clone()  # type: ignore[no-any-return]


def _range(attributes: Attributes, start: torch.Tensor, end: torch.Tensor, step: torch.Tensor) -> torch.Tensor:
    return torch.arange(start.item(), end.item(), step.item(), dtype=start.dtype)


def _shape(attributes: Attributes, x: torch.Tensor) -> torch.Tensor:
    return torch.tensor(x.shape[attributes.get("start", 0) : attributes.get("end")], dtype=torch.int64)


def _size(attributes: Attributes, x: torch.Tensor) -> torch.Tensor:
    return torch.tensor(x.numel(), dtype=torch.int64)


def _reshape(attributes: Attributes, x: torch.Tensor, shape: torch.Tensor) -> torch.Tensor:
    wanted = shape.tolist()
    if not attributes.get("allowzero", 0):
        wanted = [x.shape[axis] if size == 0 else size for axis, size in enumerate(wanted)]
    return x.reshape(wanted)


def _flatten(attributes: Attributes, x: torch.Tensor) -> torch.Tensor:
    axis = attributes.get("axis", 1)
    return x.reshape(math.prod(x.shape[:axis]), math.prod(x.shape[axis:]))


def _expand(attributes: Attributes, x: torch.Tensor, shape: torch.Tensor) -> torch.Tensor:
    return x.expand(torch.broadcast_shapes(tuple(x.shape), tuple(shape.tolist())))


def _tile(attributes: Attributes, x: torch.Tensor, repeats: torch.Tensor) -> torch.Tensor:
    return x.repeat(repeats.tolist())


def _squeeze(attributes: Attributes, x: torch.Tensor, axes: torch.Tensor | None = None) -> torch.Tensor:
    return x.squeeze() if axes is None else x.squeeze(tuple(axes.tolist()))


def _unsqueeze(attributes: Attributes, x: torch.Tensor, axes: torch.Tensor) -> torch.Tensor:
    rank = x.dim() + axes.numel()
    for axis in sorted(axis % rank for axis in axes.tolist()):
        x = x.unsqueeze(axis)
    return x


def _transpose(attributes: Attributes, x: torch.Tensor) -> torch.Tensor:
    return x.permute(attributes.get("perm") or list(range(x.dim()))[::-1])


def _concat(attributes: Attributes, *given: torch.Tensor) -> torch.Tensor:
    return torch.cat(given, attributes["axis"])


def _split(attributes: Attributes, x: torch.Tensor, sizes: torch.Tensor | None = None) -> tuple[torch.Tensor, ...]:
    axis = attributes.get("axis", 0)
    if sizes is not None:
        return x.split(sizes.tolist(), axis)
    return x.split(math.ceil(x.shape[axis] / attributes["num_outputs"]), axis)


def _slice(
    attributes: Attributes,
    x: torch.Tensor,
    starts: torch.Tensor,
    ends: torch.Tensor,
    axes: torch.Tensor | None = None,
    steps: torch.Tensor | None = None,
) -> torch.Tensor:
    over = axes.tolist() if axes is not None else range(starts.numel())
    by = steps.tolist() if steps is not None else [1] * starts.numel()
    for axis, start, end, step in zip(over, starts.tolist(), ends.tolist(), by, strict=True):
        places = range(x.shape[axis])[slice(start, _end(end, step, x.shape[axis]), step)]
        if step > 0:
            whole = [slice(None)] * x.dim()
            whole[axis] = slice(places.start, places.stop, step)
            x = x[tuple(whole)]
        else:  # torch has no negative steps
            x = x.index_select(axis, torch.tensor(list(places), dtype=torch.int64, device=x.device))
    return x


def _end(end: int, step: int, size: int) -> int | None:
    """ONNX ends a backward slice below -size where it means "through the first"; Python says None."""
    return None if step < 0 and end < -size else end


def _gather(attributes: Attributes, x: torch.Tensor, at: torch.Tensor) -> torch.Tensor:
    axis = attributes.get("axis", 0) % x.dim()
    at = torch.where(at < 0, at + x.shape[axis], at)
    found = x.index_select(axis, at.reshape(-1))
    return found.reshape(*x.shape[:axis], *at.shape, *x.shape[axis + 1 :])


def _gather_elements(attributes: Attributes, x: torch.Tensor, at: torch.Tensor) -> torch.Tensor:
    axis = attributes.get("axis", 0)
    return x.gather(axis, torch.where(at < 0, at + x.shape[axis], at))


def _gather_nd(attributes: Attributes, x: torch.Tensor, at: torch.Tensor) -> torch.Tensor:
    batch = attributes.get("batch_dims", 0)
    grid = [
        torch.arange(size, device=x.device).reshape([-1 if axis == number else 1 for axis in range(at.dim() - 1)])
        for number, size in enumerate(at.shape[:batch])
    ]
    return x[(*grid, *at.unbind(-1))]


def _scatter_nd(attributes: Attributes, x: torch.Tensor, at: torch.Tensor, new: torch.Tensor) -> torch.Tensor:
    """`reduction` none replaces, add sums (others are refused at opening): what torch's index_put does."""
    return x.index_put(at.unbind(-1), new, accumulate=attributes.get("reduction", "none") == "add")


def _scatter_elements(attributes: Attributes, x: torch.Tensor, at: torch.Tensor, new: torch.Tensor) -> torch.Tensor:
    axis = attributes.get("axis", 0)
    at = torch.where(at < 0, at + x.shape[axis], at)
    add = attributes.get("reduction", "none") == "add"
    return x.scatter_add(axis, at, new) if add else x.scatter(axis, at, new)


def _pad(
    attributes: Attributes,
    x: torch.Tensor,
    pads: torch.Tensor,
    value: torch.Tensor | None = None,
    axes: torch.Tensor | None = None,
) -> torch.Tensor:
    mode = _PAD_MODES[attributes.get("mode", "constant")]
    sizes = pads.tolist()
    over = axes.tolist() if axes is not None else list(range(x.dim()))
    pairs = [(0, 0)] * x.dim()
    for number, axis in enumerate(over):
        pairs[axis] = (sizes[number], sizes[number + len(over)])
    if mode == "constant":
        fill = 0.0 if value is None else value.item()
        return torch.nn.functional.pad(x, [size for pair in reversed(pairs) for size in pair], value=fill)
    for axis, pair in enumerate(pairs):  # torch pads at most three of the last axes so: one at a time is always taken
        if pair != (0, 0):
            flat = x.movedim(axis, -1)
            rows = torch.nn.functional.pad(flat.reshape(1, -1, flat.shape[-1]), pair, mode)
            x = rows.reshape(*flat.shape[:-1], -1).movedim(-1, axis)
    return x


def _reduce(call: Callable[[torch.Tensor, tuple[int, ...], bool], torch.Tensor]) -> Function:
    def reduce(attributes: Attributes, x: torch.Tensor, axes: torch.Tensor | None = None) -> torch.Tensor:
        given = attributes.get("axes") if axes is None else axes.tolist()
        if not given and attributes.get("noop_with_empty_axes", 0):
            return x
        return call(x, tuple(given or range(x.dim())), bool(attributes.get("keepdims", 1)))

    return reduce


def _product(x: torch.Tensor, axes: tuple[int, ...], keep: bool) -> torch.Tensor:
    for axis in sorted((axis % x.dim() for axis in axes), reverse=True):
        x = x.prod(axis, keepdim=keep)
    return x


def _extreme(call: Callable[..., torch.Tensor]) -> Function:
    def find(attributes: Attributes, x: torch.Tensor) -> torch.Tensor:
        axis, keep = attributes.get("axis", 0), bool(attributes.get("keepdims", 1))
        if attributes.get("select_last_index", 0):
            return x.shape[axis] - 1 - call(x.flip(axis), axis, keepdim=keep)
        return call(x, axis, keepdim=keep)

    return find


def _top_k(attributes: Attributes, x: torch.Tensor, k: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    axis, largest = attributes.get("axis", -1), bool(attributes.get("largest", 1))
    values, at = x.topk(int(k.item()), axis, largest, bool(attributes.get("sorted", 1)))
    return values, at


def _cumulative(attributes: Attributes, x: torch.Tensor, axis: torch.Tensor) -> torch.Tensor:
    over = int(axis.item())
    turned = x.flip(over) if attributes.get("reverse", 0) else x
    total = turned.cumsum(over)
    total = total - turned if attributes.get("exclusive", 0) else total
    return total.flip(over) if attributes.get("reverse", 0) else total


def _one_of(name: str, default: int) -> Callable[[Callable[..., torch.Tensor]], Function]:
    return lambda call: lambda attributes, x: call(x, attributes.get(name, default))


def _dequantize(
    attributes: Attributes, x: torch.Tensor, scale: torch.Tensor, zero: torch.Tensor | None = None
) -> torch.Tensor:
    """Weights kept in 8 bits; `axis` is that of one scale a channel."""
    shape = [1] * x.dim()
    if scale.numel() > 1:
        shape[attributes.get("axis", 1)] = -1
    real = x.to(scale.dtype)
    if zero is not None:
        real = real - zero.to(scale.dtype).reshape(shape if zero.numel() > 1 else ())
    return real * scale.reshape(shape if scale.numel() > 1 else ())


def _dropout(attributes: Attributes, x: torch.Tensor, *rest: Any) -> tuple[torch.Tensor, torch.Tensor]:
    return x, torch.ones_like(x, dtype=torch.bool)


TABLE: dict[str, Function] = {
    **{
        name: _plain(call)
        for name, call in {
            "Abs": torch.abs, "Add": torch.add, "And": torch.logical_and, "Ceil": torch.ceil, "Cos": torch.cos,
            "Equal": torch.eq, "Erf": torch.erf, "Exp": torch.exp, "Floor": torch.floor, "Greater": torch.gt,
            "GreaterOrEqual": torch.ge, "IsInf": torch.isinf, "IsNaN": torch.isnan, "Less": torch.lt,
            "LessOrEqual": torch.le, "Log": torch.log, "MatMul": torch.matmul, "Mul": torch.mul, "Neg": torch.neg,
            "Not": torch.logical_not, "Or": torch.logical_or, "Reciprocal": torch.reciprocal, "Relu": torch.relu,
            "Round": torch.round, "Sigmoid": torch.sigmoid, "Sign": torch.sign, "Sin": torch.sin, "Sqrt": torch.sqrt,
            "Sub": torch.sub, "Tanh": torch.tanh, "Where": torch.where, "Xor": torch.logical_xor,
            "Identity": lambda x: x, "Softplus": torch.nn.functional.softplus,
            "HardSwish": torch.nn.functional.hardswish, "Pow": lambda x, y: torch.pow(x, y).to(x.dtype),
        }.items()
    },
    "Max": _folded(torch.maximum), "Min": _folded(torch.minimum), "Sum": _folded(torch.add),
    "ArgMax": _extreme(torch.argmax), "ArgMin": _extreme(torch.argmin), "Cast": _cast, "Clip": _clip,
    "Concat": _concat, "Constant": _constant, "ConstantOfShape": _constant_of_shape, "CumSum": _cumulative,
    "DequantizeLinear": _dequantize, "Div": _divide, "Dropout": _dropout, "Elu": _elu, "Expand": _expand,
    "Flatten": _flatten, "Gather": _gather, "GatherElements": _gather_elements, "GatherND": _gather_nd, "Gelu": _gelu,
    "HardSigmoid": _hard_sigmoid, "LeakyRelu": _leaky, "LogSoftmax": _one_of("axis", -1)(torch.log_softmax),
    "Mod": _modulo, "PRelu": _prelu, "Pad": _pad, "Range": _range,
    "ReduceL1": _reduce(lambda x, axes, keep: x.abs().sum(axes, keep)),
    "ReduceL2": _reduce(lambda x, axes, keep: torch.linalg.vector_norm(x, 2, axes, keep)),
    "ReduceLogSumExp": _reduce(torch.logsumexp), "ReduceMax": _reduce(torch.amax),
    "ReduceMean": _reduce(torch.mean), "ReduceMin": _reduce(torch.amin), "ReduceProd": _reduce(_product),
    "ReduceSum": _reduce(lambda x, axes, keep: torch.sum(x, axes, keep, dtype=x.dtype)),
    "ReduceSumSquare": _reduce(lambda x, axes, keep: x.square().sum(axes, keep)),
    "Reshape": _reshape, "ScatterElements": _scatter_elements, "ScatterND": _scatter_nd, "Shape": _shape,
    "Size": _size, "Slice": _slice, "Softmax": _one_of("axis", -1)(torch.softmax), "Split": _split,
    "Squeeze": _squeeze, "Tile": _tile, "TopK": _top_k, "Transpose": _transpose, "Trilu": lambda a, x, k=None: (
        torch.triu if a.get("upper", 1) else torch.tril
    )(x, int(k.item()) if k is not None else 0),
    "Unsqueeze": _unsqueeze,
}  # fmt: skip
