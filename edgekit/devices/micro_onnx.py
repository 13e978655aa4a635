"""The graphs of a calibration for ONNX Runtime: an input `x`, one kernel several times, an output `y`."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np

from edgekit.devices import micro, onnx_file
from edgekit.devices.families import Family
from edgekit.devices.micro import Micro
from edgekit.devices.table import STREAM, WIRE

_ADD, _RESHAPE = "elementwise/Add/float", "move/Reshape/float"
_QADD = "elementwise/QLinearAdd/int8"
_ROW = micro.ROW
_TABLE = 4096  # rows of what is gathered from
_OPSET, _IR = 17, 9


def plan() -> Iterator[Micro]:
    """What is measured, helpers first."""
    yield from micro.elements("elementwise", "Add")
    yield from micro.elements("elementwise", "Mul")
    yield from micro.elements("elementwise", "Div")
    yield from micro.elements("elementwise", "Sum")
    yield from micro.elements("elementwise", "Relu")
    yield from micro.elements("elementwise", "Tanh")
    yield from micro.elements("elementwise", "BiasGelu")
    yield from micro.elements("elementwise", "QLinearAdd", int8=True)
    yield from micro.elements("normalize", "Softmax")
    yield from micro.elements("normalize", "LogSoftmax")
    yield from micro.elements("normalize", "LayerNormalization")
    yield from micro.elements("reduce", "ReduceMax", helpers=(_ADD,))
    yield from micro.elements("move", "Reshape", helpers=(_ADD,))
    yield from micro.elements("move", "Transpose", helpers=(_ADD, _RESHAPE, _RESHAPE))
    for kind in ("Concat", "Slice", "Pad"):
        yield from micro.moves(kind)
    yield from micro.elements("quantize", "QuantizeLinear", helpers=("elementwise/Tanh/float",), per_link=2)
    yield from micro.rows_of_tables("Gather", helpers=(_ADD,))
    yield from micro.rows_of_tables("Gather", int8=True, helpers=("quantize/QuantizeLinear/float", _ADD))
    yield from micro.rows_of_tables("ScatterND")
    yield from micro.wires("elementwise/Relu/float")
    yield from micro.streams(STREAM)
    yield from micro.streams(STREAM, int8=True)
    yield from micro.dense("MatMul", False)
    yield from micro.dense("MatMulIntegerToFloat", True, helper="quantize/QuantizeLinear/float")
    yield from micro.dense("QGemm", True)
    yield from micro.convolutions({"conv": "Conv", "pointwise": "Conv", "depthwise": "Conv"}, False)
    # Its kernels want channels last: alone, a layer stands between two transpositions.
    quantized: dict[Family, str] = {"conv": "QLinearConv", "pointwise": "QLinearConv", "depthwise": "QLinearConv"}
    yield from micro.convolutions(quantized, True, around="move/Transpose/float", joined=_QADD)
    yield from micro.matmuls("MatMul", ("elementwise/Mul/float", 4), ("reduce/ReduceMax/float", 4))
    yield from micro.recurrent("LSTM", False)
    yield from micro.recurrent("DynamicQuantizeLSTM", True)
    yield from micro.recurrent("GRU", False)
    yield from micro.pools("MaxPool", around="pointwise/Conv/float")
    yield from micro.halvings("NhwcMaxPool", _QADD)


def build(wanted: Micro | None) -> bytes:
    """The graph of one entry; None: one that does nothing but be called."""
    net = _Net()
    if wanted is None:
        net.chain("x", [("Identity", [], {})])
        return net.save((1, 1))
    if wanted.kind == STREAM:
        width = micro.INT8_STREAM_WIDTH if wanted.int8 else micro.STREAM_WIDTH
        return _products(net, wanted, (wanted.sizes[0], width, width))
    if wanted.kind == WIRE:
        names = [f"x{number}" for number in range(wanted.repeats)]
        wires = {name: net.node("Neg", [name]) for name in names}
        net.chain("x", [("Neg", [], {})])
        return net.save((1, wanted.sizes[0]), wires=wires)
    if wanted.family == "dense":
        return _products(net, wanted, wanted.sizes)
    if wanted.family in ("conv", "pointwise", "depthwise"):
        return _convolution(net, wanted)
    if wanted.family == "matmul":
        return _matmul(net, wanted)
    if wanted.family == "recurrent":
        return _recurrent(net, wanted)
    if wanted.family == "gather":
        return _tables(net, wanted)
    if wanted.kind == "NhwcMaxPool":
        return _halved(net, wanted)
    if wanted.kind == "MaxPool":
        return _pools(net, wanted)
    return _elements(net, wanted)


class _Net:
    """Nodes and constants that become a model."""

    def __init__(self) -> None:
        self.nodes: list[tuple[str, list[str], list[str], dict[str, Any], str]] = []
        self.constants: list[bytes] = []
        self.rng = np.random.default_rng(0)

    def constant(self, value: np.ndarray) -> str:
        name = f"c{len(self.constants)}"
        self.constants.append(onnx_file.constant(name, value))
        return name

    def floats(self, *shape: int) -> str:
        return self.constant((self.rng.standard_normal(shape) * 0.1).astype(np.float32))

    def int8(self, *shape: int) -> str:
        return self.constant(self.rng.integers(-127, 128, shape, dtype=np.int8))

    def scalar(self, value: float, dtype: type = np.float32) -> str:
        return self.constant(np.array(value, dtype))

    def node(self, kind: str, inputs: list[str], *, domain: str = "", outputs: int = 1, **options: Any) -> str:
        names = [f"v{len(self.nodes)}_{number}" for number in range(outputs)]
        self.nodes.append((kind, inputs, names, options, domain))
        return names[0]

    def chain(self, start: str, links: list[tuple[str, list[str], dict[str, Any]]]) -> str:
        for kind, more, options in links:
            start = self.node(kind, [start, *more], **options)
        return start

    def save(self, shape: tuple[int, ...], dtype: type = np.float32, wires: Mapping[str, str] = {}) -> bytes:
        """The model from `x` to the first answer of the last node; `wires`: more inputs like it, and answers."""
        kind, inputs, names, options, domain = self.nodes[-1]
        self.nodes[-1] = (kind, inputs, ["y", *names[1:]], options, domain)
        answer = "uint8" if kind in ("QLinearConv", "QLinearAdd", "NhwcMaxPool", "QGemm") else "float32"
        return onnx_file.model(
            [onnx_file.node(*each) for each in self.nodes],
            self.constants,
            [(name, np.dtype(dtype).name, shape) for name in ("x", *wires)],
            [(name, answer) for name in ("y", *wires.values())],
            opsets={"": _OPSET, "com.microsoft": 1},
            ir_version=_IR,
        )


def _products(net: _Net, wanted: Micro, sizes: tuple[int, ...]) -> bytes:
    rows, inner, columns = sizes
    value, quantized = "x", wanted.kind.startswith("QGemm")
    for number in range(wanted.repeats):
        k, n = (inner, columns) if number % 2 == 0 else (columns, inner)
        if quantized:
            scale, zero, bias = net.scalar(0.05), net.scalar(128, np.uint8), net.constant(np.zeros(n, np.int32))
            weights = [net.int8(k, n), net.constant(np.full(n, 0.002, np.float32)), net.constant(np.zeros(n, np.int8))]
            value = net.node("QGemm", [value, scale, zero, *weights, bias, scale, zero], domain="com.microsoft")
        elif wanted.int8:
            scale, zero = net.scalar(0.05), net.scalar(128, np.uint8)
            codes = net.node("QuantizeLinear", [value, scale, zero])
            scales = net.constant(np.full(n, 0.002, np.float32))
            value = net.node(
                "MatMulIntegerToFloat", [codes, net.int8(k, n), scale, scales, zero], domain="com.microsoft"
            )
        else:
            value = net.node("MatMul", [value, net.floats(k, n)])
    return net.save((rows, inner), np.uint8 if quantized else np.float32)


def _convolution(net: _Net, wanted: Micro) -> bytes:
    columns = wanted.sizes[2]
    height, width, channels, *kernel = micro.picture(wanted)
    narrow = micro.is_narrow(wanted)
    kernel = kernel[1:] if narrow else kernel
    depthwise = wanted.family == "depthwise"
    before = [side // 2 for side in kernel]
    after = [side - 1 - side // 2 for side in kernel]
    options: dict[str, Any] = {"kernel_shape": kernel, "pads": before + after, "group": columns if depthwise else 1}
    shape = (columns, 1 if depthwise else channels, *kernel)
    value, beside = "x", wanted.int8 and not depthwise and channels != columns
    found = []
    for _ in range(wanted.repeats):
        if wanted.int8:
            scale, zero = net.scalar(0.05), net.scalar(128, np.uint8)
            weights = [net.int8(*shape), net.constant(np.full(columns, 0.002, np.float32))]
            zeros = net.constant(np.zeros(columns, np.int8))
            bias = net.constant(np.zeros(columns, np.int32))
            given = "x" if beside else value
            value = net.node("QLinearConv", [given, scale, zero, *weights, zeros, scale, zero, bias], **options)
            found.append(value)
        else:
            value = net.node("Conv", [value, net.floats(*shape), net.floats(columns)], **options)
    if beside:
        _joined_up(net, found)
    sides = (width,) if narrow else (height, width)
    return net.save((1, channels, *sides), np.uint8 if wanted.int8 else np.float32)


def _joined_up(net: _Net, values: list[str]) -> None:
    scale, zero = net.scalar(0.05), net.scalar(128, np.uint8)
    total = values[0]
    for other in values[1:]:
        given = [total, scale, zero, other, scale, zero, scale, zero]
        total = net.node("QLinearAdd", given, domain="com.microsoft")


def _matmul(net: _Net, wanted: Micro) -> bytes:
    batch, rows, inner, columns = wanted.sizes
    # The second operand is an activation: made from the input, so that no kernel packs it ahead of time.
    left = net.node("Reshape", ["x", net.constant(np.array([1, batch, rows, inner]))])
    gate = net.node("ReduceMax", ["x"], keepdims=0)
    rights = [net.node("Mul", [net.floats(1, batch, inner, columns), gate]) for _ in range(wanted.repeats)]
    found = [net.node("MatMul", [left, right]) for right in rights]
    net.node("Max", [net.node("ReduceMax", [value], keepdims=0) for value in found])
    return net.save((batch * rows, inner))


def _recurrent(net: _Net, wanted: Micro) -> bytes:
    steps, features, hidden = micro.units(wanted)
    bias = net.floats(1, 8 * hidden)
    if wanted.int8:
        weights = [net.int8(1, features, 4 * hidden), net.int8(1, hidden, 4 * hidden)]
        scales = [net.constant(np.full((1, 4 * hidden), 0.002, np.float32)) for _ in range(2)]
        zeros = [net.constant(np.zeros((1, 4 * hidden), np.int8)) for _ in range(2)]
        given = ["x", *weights, bias, "", "", "", "", scales[0], zeros[0], scales[1], zeros[1]]
        net.node("DynamicQuantizeLSTM", given, domain="com.microsoft", hidden_size=hidden)
    else:
        gates = 3 if wanted.kind == "GRU" else 4
        weights = [net.floats(1, gates * hidden, features), net.floats(1, gates * hidden, hidden)]
        net.node(wanted.kind, ["x", *weights, net.floats(1, 2 * gates * hidden)], hidden_size=hidden)
    return net.save((steps, 1, features))


def _elements(net: _Net, wanted: Micro) -> bytes:
    rows, columns = micro.thin(wanted) or (max(wanted.sizes[0] // _ROW, 1), _ROW)
    value = "x"
    for _ in range(micro.LINKS):
        value = _chain(wanted)(net, value, rows)
    return net.save((rows, columns), np.uint8 if wanted.int8 else np.float32)


def _chain(wanted: Micro) -> Callable[[_Net, str, int], str]:
    """The link of a kernel; of one that goes by runs, that of its run."""
    long = len(wanted.sizes) == 2 and wanted.sizes[1] > _ROW
    return _AT_ONCE[wanted.kind] if long else _CHAINS[wanted.kind]


def _tables(net: _Net, wanted: Micro) -> bytes:
    size, width = wanted.sizes
    rows, value = size // width, "x"
    table = net.int8(_TABLE, width) if wanted.int8 else net.floats(_TABLE, width)
    scale, zero = net.scalar(0.05), net.scalar(0, np.int8)
    # Indices that come from the input: constants would be looked up once, when the graph is opened.
    still = net.node("Cast", [net.node("Mul", [net.node("ReduceMax", ["x"], keepdims=0), net.scalar(0.0)])], to=7)
    for _ in range(micro.LINKS):
        if wanted.kind == "ScatterND":
            ids = net.constant(net.rng.integers(0, rows, (rows, 1)))
            value = net.node("ScatterND", [net.floats(rows, width), ids, value], reduction="add")
            continue
        ids = net.node("Add", [still, net.constant(net.rng.integers(0, _TABLE, rows))])
        found = net.node("Gather", [table, ids])
        value = net.node("Add", [value, net.node("DequantizeLinear", [found, scale, zero]) if wanted.int8 else found])
    return net.save((rows, width))


def _pools(net: _Net, wanted: Micro) -> bytes:
    side, channels = micro.pooled(wanted)
    options: dict[str, Any] = {"kernel_shape": [3, 3], "pads": [1, 1, 1, 1], "strides": [1, 1]}
    # Behind a convolution it keeps that one's layout.
    value = net.node("Conv", ["x", net.floats(channels, channels, 1, 1)], kernel_shape=[1, 1])
    for _ in range(micro.LINKS):
        value = net.node("MaxPool", [value], **options)
    return net.save((1, channels, side, side))


def _halved(net: _Net, wanted: Micro) -> bytes:
    size, channels = wanted.sizes
    side = 2 * round((size // channels) ** 0.5)
    options: dict[str, Any] = {"kernel_shape": [2, 2], "strides": [2, 2]}
    found = [net.node("NhwcMaxPool", ["x"], domain="com.microsoft", **options) for _ in range(wanted.repeats)]
    _joined_up(net, found)
    return net.save((1, side, side, channels), np.uint8)


def _quantized(net: _Net, value: str, rows: int) -> str:
    scale, zero = net.scalar(0.05), net.scalar(128, np.uint8)
    return net.node("QLinearAdd", [value, scale, zero, value, scale, zero, scale, zero], domain="com.microsoft")


def _quantize(net: _Net, value: str, rows: int) -> str:
    # A round trip: half of it goes to each. The operator between has no quantized form that it could be fused to.
    scale, zero = net.scalar(0.05), net.scalar(128, np.uint8)
    codes = net.node("QuantizeLinear", [value, scale, zero])
    return net.node("Tanh", [net.node("DequantizeLinear", [codes, scale, zero])])


def _transposed(net: _Net, value: str, rows: int) -> str:
    split = net.node("Reshape", [value, net.constant(np.array([1, rows, 4, _ROW // 4]))])
    turned = net.node("Transpose", [split], perm=[0, 2, 1, 3])
    back = net.node("Reshape", [turned, net.constant(np.array([rows, _ROW]))])
    return net.node("Add", [back, net.floats(_ROW)])


def _reshaped(net: _Net, value: str, rows: int) -> str:
    # To half the width and, in the next link, back; two in a row would be made one.
    halved = len(net.nodes) % 4 == 0
    shape = [rows * 2, _ROW // 2] if halved else [rows, _ROW]
    turned = net.node("Reshape", [value, net.constant(np.array(shape))])
    return net.node("Add", [turned, net.floats(shape[1])])


def _joined(net: _Net, value: str, rows: int) -> str:
    return net.node("Concat", [value, net.floats(rows, 1)], axis=1)  # a column more each time


def _sliced(net: _Net, value: str, rows: int) -> str:
    starts, ends, axes = (net.constant(np.array([number])) for number in (1, 1 << 30, 1))
    return net.node("Slice", [value, starts, ends, axes])


def _padded(net: _Net, value: str, rows: int) -> str:
    return net.node("Pad", [value, net.constant(np.array([0, 0, 0, 1]))])


_CHAINS: dict[str, Callable[[_Net, str, int], str]] = {
    "Add": lambda net, value, rows: net.node("Add", [value, net.floats(_ROW)]),
    "Mul": lambda net, value, rows: net.node("Mul", [value, net.floats(_ROW)]),
    "Div": lambda net, value, rows: net.node("Div", [value, net.floats(rows, 1)]),
    "Sum": lambda net, value, rows: net.node("Sum", [value, "x", net.floats(_ROW)]),
    "Tanh": lambda net, value, rows: net.node("Tanh", [value]),
    "BiasGelu": lambda net, value, rows: net.node("BiasGelu", [value, net.floats(_ROW)], domain="com.microsoft"),
    # Neg costs what a Relu does, and is not made one with its like
    "Relu": lambda net, value, rows: net.node("Neg", [value]),
    "LogSoftmax": lambda net, value, rows: net.node("LogSoftmax", [value], axis=-1),
    "Softmax": lambda net, value, rows: net.node("Softmax", [value], axis=-1),
    "LayerNormalization": lambda net, value, rows: net.node(
        "LayerNormalization", [value, net.floats(_ROW), net.floats(_ROW)], axis=-1
    ),
    "ReduceMax": lambda net, value, rows: net.node(
        "Add", [value, net.node("ReduceMax", [value], axes=[-1], keepdims=1)]
    ),
    "QLinearAdd": _quantized,
    "QuantizeLinear": _quantize,
    "Transpose": _transposed,
    "Reshape": _reshaped,
    "Concat": _joined,
    "Slice": _sliced,
    "Pad": _padded,
}
# The same for whole tensors: operands of one size, a row more or less.
_AT_ONCE: dict[str, Callable[[_Net, str, int], str]] = {
    "Add": lambda net, value, rows: net.node("Add", [value, "x"]),
    "Mul": lambda net, value, rows: net.node("Mul", [value, net.scalar(0.9)]),
    "Concat": lambda net, value, rows: net.node("Concat", [value, net.floats(1, _ROW)], axis=0),
    "Slice": lambda net, value, rows: net.node(
        "Slice", [value, *(net.constant(np.array([number])) for number in (1, 1 << 30, 0))]
    ),
    "Pad": lambda net, value, rows: net.node("Pad", [value, net.constant(np.array([0, 0, 1, 0]))]),
}
