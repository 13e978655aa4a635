"""The graphs of a calibration for LiteRT."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from edgekit.devices import micro, micro_tflite_own
from edgekit.devices.coordinates import VECTOR
from edgekit.devices.micro import Micro
from edgekit.devices.table import STREAM, WIRE
from edgekit.devices.tflite_net import Net

_ADD, _ADD_INT8 = "elementwise/ADD/float", "elementwise/ADD/int8"
_ROW = micro.ROW
_TABLE = 4096  # rows of what is gathered from
_EDGES = 4  # that a node of a graph has
_HIDDEN = (32, 64, 128, 256)  # units of the recurrences
_STEPS = 16
_CALLED = (128, 512, 2048)  # elements of the tensor that a called subgraph takes


def plan() -> Iterator[Micro]:
    """What is measured, helpers first."""
    yield from micro.elements("elementwise", "ADD")
    yield from micro.elements("elementwise", "MUL")
    yield from micro.elements("elementwise", "RELU")
    yield from micro.elements("elementwise", "DIV")
    yield from micro.elements("elementwise", "LOGISTIC")
    yield from micro.elements("elementwise", "TANH")
    yield from micro.elements("elementwise", "GELU")
    yield from micro.elements("elementwise", "ADD", int8=True)
    yield from micro.elements("normalize", "SOFTMAX")
    yield from micro.elements("normalize", "LOG_SOFTMAX")
    yield from micro.elements("reduce", "MEAN", helpers=(_ADD,))
    yield from micro.elements("reduce", "REDUCE_MAX", helpers=(_ADD,))
    yield from micro.elements("reduce", "MEAN", int8=True, helpers=(_ADD_INT8,))
    yield from micro.elements("move", "RESHAPE", helpers=(_ADD,))
    yield from micro.elements("move", "TRANSPOSE", helpers=(_ADD,))
    yield from micro.elements("move", "TRANSPOSE", int8=True, helpers=(_ADD_INT8,))
    for int8 in (False, True):
        for kind in ("CONCATENATION", "STRIDED_SLICE"):
            yield from micro.moves(kind, int8)
        yield from micro.rows_of_tables("EMBEDDING_LOOKUP", int8, (_ADD,))
        yield from micro.rows_of_tables("GATHER", int8)
        yield from micro.rows_of_tables("GATHER_ND", int8)
    yield from micro.rows_of_tables("SCATTER_ND")
    yield from micro_tflite_own.plan()
    yield from micro.elements("quantize", "QUANTIZE", per_link=2)
    for size in _CALLED:
        yield Micro("move", "IF", False, (size,), 12, ((_ADD, micro.beside(_ADD, size), 12),))
    yield from micro_tflite_own.called()
    yield from micro_tflite_own.thin_transpositions()
    yield from micro.wires("elementwise/RELU/float")
    yield from micro.streams(STREAM)
    yield from micro.streams(STREAM, int8=True)
    yield from micro.dense("FULLY_CONNECTED", False)
    yield from micro.dense("FULLY_CONNECTED", True)
    kinds: dict[Any, str] = {"conv": "CONV_2D", "pointwise": "CONV_2D", "depthwise": "DEPTHWISE_CONV_2D"}
    yield from micro.convolutions(kinds, False)
    yield from micro.convolutions(kinds, True)
    yield from micro.matmuls("BATCH_MATMUL", ("elementwise/MUL/float", 1), (_ADD, 3))
    for int8 in (False, True):
        yield from micro.pools("MAX_POOL_2D", int8)
        yield from micro.pools("AVERAGE_POOL_2D", int8)
    yield from _steps(False)
    yield from _steps(True)


def build(wanted: Micro | None) -> bytes:
    """The graph of one entry; None: one that does nothing but be called."""
    if wanted is None:
        net = Net((1, _ROW))
        return net.save(net.op("RESHAPE", [net.x, net.shape(1, _ROW)], (1, _ROW)))
    if micro_tflite_own.takes(wanted):
        return micro_tflite_own.build(wanted)
    if wanted.kind == "IF":
        return _called(wanted)
    if wanted.family == "recurrent":
        return _step(wanted)
    if wanted.kind == WIRE:
        return _wires(wanted)
    if wanted.kind == STREAM:
        width = micro.INT8_STREAM_WIDTH if wanted.int8 else micro.STREAM_WIDTH
        return _dense(wanted, (wanted.sizes[0], width, width))
    if wanted.family == "dense":
        return _dense(wanted, wanted.sizes)
    if wanted.family in ("conv", "pointwise", "depthwise"):
        return _convolution(wanted)
    if wanted.family == "matmul":
        return _matmul(wanted)
    if wanted.family == "gather":
        return _tables(wanted)
    if wanted.kind.endswith("_POOL_2D"):
        return _pools(wanted)
    return _elements(wanted)


def _wires(wanted: Micro) -> bytes:
    shape = (1, wanted.sizes[0])
    net = Net(shape)
    more = [net.tensor(shape) for _ in range(wanted.repeats)]
    answers = [net.op("ABS", [value], shape) for value in (net.x, *more)]
    return net.save(answers[0], dict(zip(more, answers[1:], strict=True)))


def _dense(wanted: Micro, sizes: tuple[int, ...]) -> bytes:
    rows, inner, columns = sizes
    net = Net((rows, inner))
    value = net.x
    for number in range(wanted.repeats):
        k, n = (inner, columns) if number % 2 == 0 else (columns, inner)
        weights = net.int8((n, k), 0) if wanted.int8 else net.floats(n, k)
        value = net.op("FULLY_CONNECTED", [value, weights, net.floats(n)], (rows, n), keepNumDims=True)
    return net.save(value)


def _convolution(wanted: Micro) -> bytes:
    columns, depthwise = wanted.sizes[2], wanted.family == "depthwise"
    height, width, channels, *kernel = micro.picture(wanted)
    shape = (1, *kernel, columns) if depthwise else (columns, *kernel, channels)
    net = Net((1, height, width, channels), int8=wanted.int8)
    value = net.x
    options = {"depthMultiplier": 1} if depthwise else {}
    for _ in range(wanted.repeats):
        weights = net.int8(shape, 3 if depthwise else 0) if wanted.int8 else net.floats(*shape)
        value = net.op(
            wanted.kind.removesuffix(VECTOR).removesuffix("1d"),
            [value, weights, net.bias(columns, int8=wanted.int8)],
            (1, height, width, columns),
            "int8" if wanted.int8 else "float32",
            strideH=1,
            strideW=1,
            dilationHFactor=1,
            dilationWFactor=1,
            **options,
        )
    return net.save(value)


def _steps(int8: bool) -> Iterator[Micro]:
    """The products of an LSTM's step, two directions at a time, in a subgraph that is called once a step."""
    for hidden in _HIDDEN:
        wide, narrow = 8 * hidden, 2 * hidden
        join = "move/CONCATENATION/float"
        around = [("move/IF/float", wide, 1), (join, wide, 1), (_ADD, wide, 1)]
        around += [("elementwise/LOGISTIC/float", wide, 1), (join, wide, 1)]
        around += [("elementwise/MUL/float", narrow, 5), (_ADD, narrow, 1), ("elementwise/TANH/float", narrow, 1)]
        sizes = [(size, size // 2) if key == join else micro.beside(key, size) for key, size, _ in around]
        helpers = tuple((key, at, count * _STEPS) for (key, _, count), at in zip(around, sizes, strict=True))
        yield Micro("recurrent", "FULLY_CONNECTED", int8, (1, hidden, 4 * hidden), 2 * _STEPS, helpers)


def _step(wanted: Micro) -> bytes:
    """As the converter writes it (`edgekit_converters.tflite.passes.step_lstm`)."""
    hidden = wanted.sizes[1]
    wide, narrow = (2, 4 * hidden), (2, hidden)
    net = Net(narrow)
    net.subgraph()
    row, state, memory = net.tensor(wide), net.tensor(narrow), net.tensor(narrow)
    halves = net.split(state, 0, (1, hidden), 2)
    weights = [net.int8((4 * hidden, hidden), 0) if wanted.int8 else net.floats(4 * hidden, hidden) for _ in range(2)]
    found = [
        net.op("FULLY_CONNECTED", [half, weight, -1], (1, 4 * hidden))
        for half, weight in zip(halves, weights, strict=True)
    ]
    gates = net.op("LOGISTIC", [net.op("ADD", [row, net.op("CONCATENATION", found, wide)], wide)], wide)
    i, f, g, o = net.split(gates, 1, narrow, 4)
    doubled = net.op("MUL", [g, net.floats(1)], narrow)
    written = net.op("MUL", [i, net.op("ADD", [doubled, net.floats(1)], narrow)], narrow)
    kept = net.op("ADD", [net.op("MUL", [f, memory], narrow), written], narrow)
    answer = net.op("MUL", [o, net.op("TANH", [kept], narrow)], narrow)
    net.into.inputs, net.into.outputs = [row, state, memory], [answer, kept]
    net.into = net.main
    condition, given = net.tensor((), "bool", np.array(True)), net.floats(*wide)
    state = memory = net.x
    for _ in range(_STEPS):
        state = net.op("IF", [condition, given, state, memory], narrow, thenSubgraphIndex=1, elseSubgraphIndex=1)
        memory = net.also(narrow)
    return net.save(state)


def _matmul(wanted: Micro) -> bytes:
    batch, rows, inner, columns = wanted.sizes
    net = Net((batch, rows, inner))
    value = net.x
    # The second operand is an activation: made from the input, so that no kernel packs it ahead of time.
    corner = [net.shape(*ends) for ends in ((0, 0, 0), (batch, 1, 1), (1, 1, 1))]
    gate = net.op("STRIDED_SLICE", [value, *corner], (batch, 1, 1))
    right = net.op("MUL", [net.floats(batch, inner, columns), gate], (batch, inner, columns))
    found = [net.op("BATCH_MATMUL", [value, right], (batch, rows, columns)) for _ in range(wanted.repeats)]
    total = found[0]
    for other in found[1:]:
        total = net.op("ADD", [total, other], (batch, rows, columns))
    return net.save(total)


def _called(wanted: Micro) -> bytes:
    shape = (wanted.sizes[0] // _ROW, _ROW)
    net = Net(shape)
    condition = net.tensor((), "bool", np.array(True))
    net.subgraph()
    inner = net.tensor(shape)
    answer = net.op("ADD", [inner, net.floats(_ROW)], shape)
    net.into.inputs, net.into.outputs = [inner], [answer]
    net.into = net.main
    value = net.x
    for _ in range(wanted.repeats):
        value = net.op("IF", [condition, value], shape, thenSubgraphIndex=1, elseSubgraphIndex=1)
    return net.save(value)


def _elements(wanted: Micro) -> bytes:
    rows = max(wanted.sizes[0] // _ROW, 1)
    shape = (1, rows, 8, _ROW // 8) if wanted.kind == "STRIDED_SLICE" else (rows, _ROW)
    net = Net(shape, int8=wanted.int8)
    value = net.x
    # Of a kernel that goes by runs, the link of its run.
    long = len(wanted.sizes) == 2 and wanted.sizes[1] > _ROW
    link = _AT_ONCE[wanted.kind] if long else _CHAINS[wanted.kind]
    for _ in range(micro.LINKS):
        value = link(net, value, rows, "int8" if wanted.int8 else "float32")
    return net.save(value)


def _tables(wanted: Micro) -> bytes:
    size, width = wanted.sizes
    shape, dtype = (size // width, width), "int8" if wanted.int8 else "float32"
    looked_up = wanted.kind == "EMBEDDING_LOOKUP"  # int8 is its table then; what comes out is floating point
    net = Net(shape, int8=wanted.int8 and not looked_up)
    value = net.x
    codes = net.rng.integers(-127, 128, (_TABLE, width), dtype=np.int8)
    table = net.tensor((_TABLE, width), "int8", codes) if wanted.int8 else net.floats(_TABLE, width)
    # What goes along the edges of a graph: several of them meet in a node
    nodes = (max(shape[0] // _EDGES, 1), width)
    ends = net.tensor((shape[0], 1), "int32", net.rng.integers(0, nodes[0], (shape[0], 1), dtype=np.int32))
    of_nodes = net.tensor(nodes, "int8", codes[: nodes[0]]) if wanted.int8 else net.floats(*nodes)
    for _ in range(micro.LINKS):
        ids = net.tensor((shape[0],), "int32", net.rng.integers(0, _TABLE, shape[0], dtype=np.int32))
        if wanted.kind == "SCATTER_ND":
            value = net.op("SCATTER_ND", [ends, net.x, net.shape(*nodes)], nodes)
        elif looked_up:
            value = net.op("ADD", [value, net.op("EMBEDDING_LOOKUP", [ids, table], shape)], shape)
        elif wanted.kind == "GATHER_ND":
            value = net.op("GATHER_ND", [of_nodes, ends], shape, dtype)
        else:  # one beside the other: the interpreter runs unused ones, too
            value = net.op("GATHER", [table, ids], shape, dtype)
    return net.save(value)


def _pools(wanted: Micro) -> bytes:
    side, channels = micro.pooled(wanted)
    shape, dtype = (1, side, side, channels), "int8" if wanted.int8 else "float32"
    net = Net(shape, int8=wanted.int8)
    value = net.x
    for _ in range(micro.LINKS):
        value = net.op(wanted.kind, [value], shape, dtype, strideH=1, strideW=1, filterHeight=3, filterWidth=3)
    return net.save(value)


def _added(net: Net, value: int, rows: int, dtype: str) -> int:
    other = net.floats(_ROW) if dtype == "float32" else value
    return net.op("ADD", [value, other], (rows, _ROW), dtype)


def _mean(net: Net, value: int, rows: int, dtype: str) -> int:
    found = net.op("MEAN", [value, net.shape(1)], (rows, 1), dtype, keepDims=True)
    return net.op("ADD", [value, found], (rows, _ROW), dtype)


def _largest(net: Net, value: int, rows: int, dtype: str) -> int:
    where = net.tensor((1,), "int32", np.array([0], np.int32))
    return net.op("ADD", [value, net.op("REDUCE_MAX", [value, where], (1, _ROW), keepDims=True)], (rows, _ROW))


def _reshaped(net: Net, value: int, rows: int, dtype: str) -> int:
    wide = (rows, _ROW) if net.into.tensors[value].shape[1] != _ROW else (rows * 2, _ROW // 2)
    turned = net.op("RESHAPE", [value, net.shape(*wide)], wide)
    return net.op("ADD", [turned, net.floats(wide[1])], wide)


def _transposed(net: Net, value: int, rows: int, dtype: str) -> int:
    have = tuple(net.into.tensors[value].shape)
    turned = net.op("TRANSPOSE", [value, net.shape(1, 0)], have[::-1], dtype)
    return net.op("ADD", [turned, turned if dtype == "int8" else net.floats(have[0])], have[::-1], dtype)


def _columns(net: Net, value: int) -> int:
    return int(net.into.tensors[value].shape[1])


def _joined(net: Net, value: int, rows: int, dtype: str) -> int:
    more = net.int8((rows, 1), 1) if dtype == "int8" else net.floats(rows, 1)
    if dtype == "int8":
        net.into.tensors[more].quantization = net.into.tensors[value].quantization
    return net.op("CONCATENATION", [value, more], (rows, _columns(net, value) + 1), dtype, axis=1)


def _sliced(net: Net, value: int, rows: int, dtype: str) -> int:
    # Every second row of the input; one after the other would soon be nothing. The interpreter runs unused ones, too.
    ends = [net.shape(*places) for places in ((0, 0, 0, 0), (1, rows, 8, _ROW // 8), (1, 2, 1, 1))]
    return net.op("STRIDED_SLICE", [net.x, *ends], (1, rows // 2, 8, _ROW // 8), dtype)


def _round_trip(net: Net, value: int, rows: int, dtype: str) -> int:
    codes = net.op("QUANTIZE", [value], (rows, _ROW), "int8")
    return net.op("DEQUANTIZE", [codes], (rows, _ROW))


def _plain(kind: str, **options: Any) -> Callable[[Net, int, int, str], int]:
    return lambda net, value, rows, dtype: net.op(kind, [value], (rows, _ROW), dtype, **options)


_CHAINS: dict[str, Callable[[Net, int, int, str], int]] = {
    "ADD": _added,
    "MUL": lambda net, value, rows, dtype: net.op("MUL", [value, net.floats(_ROW)], (rows, _ROW)),
    "RELU": _plain("ABS"),  # costs the same, and is not made one with its like
    "DIV": lambda net, value, rows, dtype: net.op("DIV", [value, net.floats(_ROW)], (rows, _ROW)),
    "LOG_SOFTMAX": _plain("LOG_SOFTMAX"),
    "LOGISTIC": _plain("LOGISTIC"),
    "TANH": _plain("TANH"),
    "GELU": _plain("GELU"),
    "SOFTMAX": _plain("SOFTMAX", beta=1.0),
    "MEAN": _mean,
    "REDUCE_MAX": _largest,
    "RESHAPE": _reshaped,
    "TRANSPOSE": _transposed,
    "CONCATENATION": _joined,
    "STRIDED_SLICE": _sliced,
    "QUANTIZE": _round_trip,
}


def _longer(net: Net, value: int, rows: int, dtype: str) -> int:
    more = net.int8((1, _ROW), 0) if dtype == "int8" else net.floats(1, _ROW)
    if dtype == "int8":
        net.into.tensors[more].quantization = net.into.tensors[value].quantization
    return net.op("CONCATENATION", [value, more], (_rows(net, value) + 1, _ROW), dtype, axis=0)


def _shortened(net: Net, value: int, rows: int, dtype: str) -> int:
    ends = [net.shape(*places) for places in ((0, 0, 0, 0), (1, rows - 1, 8, _ROW // 8), (1, 1, 1, 1))]
    return net.op("STRIDED_SLICE", [net.x, *ends], (1, rows - 1, 8, _ROW // 8), dtype)


def _rows(net: Net, value: int) -> int:
    return int(net.into.tensors[value].shape[0])


# The same for whole tensors: operands of one size, a row more or less.
_AT_ONCE: dict[str, Callable[[Net, int, int, str], int]] = {
    "ADD": lambda net, value, rows, dtype: net.op("ADD", [value, net.x], (rows, _ROW), dtype),
    "MUL": lambda net, value, rows, dtype: net.op("MUL", [value, net.floats(1)], (rows, _ROW)),
    "CONCATENATION": _longer,
    "STRIDED_SLICE": _shortened,
}
