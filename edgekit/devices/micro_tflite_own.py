"""Graphs of a calibration for what XNNPACK does not take and LiteRT does itself: int32, truth; and runs of padding.

Several of a kind stand beside each other where no chain can be made: the interpreter runs those without a reader, too.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from edgekit.devices import micro
from edgekit.devices.coordinates import BROADCAST, INT, THIN
from edgekit.devices.micro import Micro
from edgekit.devices.table import CALLED
from edgekit.devices.tflite_net import Net

COMPARED_KEY = "elementwise/NOT_EQUAL/float"
_INTEGERS = ("ADD", "MUL", "MAXIMUM", "ABS", "DIV", "RIGHT_SHIFT")
_REPEATED = ("ADD", "MUL", "MAXIMUM")
_COUNTS = (128, 512, 4096, 32768)
# Elements by the run that is compared or selected at a time; 0: all of them
_RUNS = {0: (256, 4096, 32768, 131072), 64: (4096, 131072), 8: (1024, 16384), 1: (64, 2048, 16384)}
# The body of a call, several times over
_REPEATING = tuple(kind + INT + BROADCAST for kind in _REPEATED)
_BODY = (*_REPEATING, "RIGHT_SHIFT" + INT, "ABS" + INT, *_REPEATING)
_ROUNDS, _CALLS, _BODY_ELEMENTS = 8, 8, 128
_THIN, _BESIDE = (768, 3072, 12288, 49152), 4
_PADDED = {16: (512, 4096, 32768), 64: (512, 4096, 32768), 512: (4096, 32768, 262_144)}


def plan() -> Iterator[Micro]:
    """What is measured, helpers first."""
    for kind in _INTEGERS:
        for size in _COUNTS:
            yield Micro("elementwise", kind + INT, False, (size,), micro.LINKS)
    for kind in _REPEATED:
        for size in _COUNTS:
            yield Micro("elementwise", kind + INT + BROADCAST, False, (size,), micro.LINKS)
    for kind in ("NOT_EQUAL", "SELECT_V2"):
        for run, counts in _RUNS.items():
            for size in counts:
                yield Micro("elementwise", kind, False, (size, run or size), micro.LINKS)
    for kind in ("LOGICAL_AND", "CAST"):
        for size in _COUNTS:
            yield Micro("elementwise", kind, False, (size,), micro.LINKS, ((COMPARED_KEY, (size, size), 1),))
    for int8 in (False, True):
        for run, counts in _PADDED.items():
            for size in counts:
                yield Micro("move", "PAD", int8, (size, run), micro.LINKS)


def called() -> Iterator[Micro]:
    """Operators in a subgraph that is called: LiteRT prepares each of them anew at every call."""
    around = [("move/IF/float", _BODY_ELEMENTS, _CALLS)]
    around += [(f"elementwise/{kind}/float", _BODY_ELEMENTS, _CALLS * _ROUNDS) for kind in _BODY]
    helpers = tuple((key, (size,), count) for key, size, count in around)
    yield Micro("move", CALLED, False, (1,), _CALLS * _ROUNDS * len(_BODY), helpers)


def thin_transpositions() -> Iterator[Micro]:
    """Pictures of three channels whose channels go last."""
    for int8 in (False, True):
        key = f"elementwise/ADD/{'int8' if int8 else 'float'}"
        for size in _THIN:
            yield Micro("move", "TRANSPOSE" + THIN, int8, (size,), _BESIDE, ((key, (size, size), _BESIDE - 1),))


def takes(wanted: Micro) -> bool:
    """Whether a graph is built here."""
    return wanted.kind in ("NOT_EQUAL", "SELECT_V2", "LOGICAL_AND", "CAST", "PAD", CALLED) or wanted.kind.endswith(
        (THIN, INT, BROADCAST)
    )


def build(wanted: Micro) -> bytes:
    """The graph of one entry of the plan."""
    if INT in wanted.kind:
        return _integers(wanted)
    if wanted.kind == CALLED:
        return _called(wanted)
    if wanted.kind.endswith(THIN):
        return _transposed(wanted)
    if wanted.kind == "PAD":
        return _padded(wanted)
    if wanted.kind in ("LOGICAL_AND", "CAST"):
        return _of_truth(wanted)
    return _compared(wanted)


def _integers(wanted: Micro) -> bytes:
    kind, _, repeated = wanted.kind.partition(INT)
    shape = (1, wanted.sizes[0])
    net = Net(shape, dtype="int32")
    one = () if repeated else shape
    more = [] if kind == "ABS" else [net.tensor(one, "int32", np.ones(one, np.int32))]
    value = net.x
    for _ in range(wanted.repeats):
        value = net.op(kind, [value, *more], shape, "int32")
    return net.save(value)


def _compared(wanted: Micro) -> bytes:
    size, run = wanted.sizes
    shape = (size // run, run)
    net = Net(shape)
    answer = net.x
    if wanted.kind == "SELECT_V2":
        kept = np.ones(shape if run == size else (shape[0], 1), bool)
        condition = net.tensor(kept.shape, "bool", kept)
        other = net.floats(*shape) if run == size else net.floats()
        for _ in range(wanted.repeats):
            answer = net.op("SELECT_V2", [condition, net.x, other], shape)
        return net.save(answer)
    other = net.floats(*shape) if run == size else net.floats()
    for _ in range(wanted.repeats):
        answer = net.op("NOT_EQUAL", [net.x, other], shape, "bool")
    return net.save(answer)


def _of_truth(wanted: Micro) -> bytes:
    shape = (1, wanted.sizes[0])
    net = Net(shape)
    truth = net.op("NOT_EQUAL", [net.x, net.floats(*shape)], shape, "bool")
    answer, kinds = truth, net.schema.TensorType
    other = net.tensor(shape, "bool", np.ones(shape, bool)) if wanted.kind == "LOGICAL_AND" else -1
    for _ in range(wanted.repeats):
        if wanted.kind == "LOGICAL_AND":
            answer = net.op("LOGICAL_AND", [truth, other], shape, "bool")
        else:
            answer = net.op("CAST", [truth], shape, inDataType=kinds.BOOL, outDataType=kinds.FLOAT32)
    return net.save(answer)


def _padded(wanted: Micro) -> bytes:
    """A row more each time: what lies behind the axis that grows is a run."""
    size, run = wanted.sizes
    rows, dtype = size // run, "int8" if wanted.int8 else "float32"
    net = Net((rows, run), int8=wanted.int8)
    around = net.tensor((2, 2), "int32", np.array([[0, 1], [0, 0]], np.int32))
    value = net.x
    for number in range(wanted.repeats):
        value = net.op("PAD", [value, around], (rows + number + 1, run), dtype)
    return net.save(value)


def _called(wanted: Micro) -> bytes:
    shape = (1, _BODY_ELEMENTS)
    net = Net(shape, dtype="int32")
    condition = net.tensor((), "bool", np.array(True))
    net.subgraph()
    value = inner = net.tensor(shape, "int32")
    one, ones = (net.tensor(each, "int32", np.ones(each, np.int32)) for each in ((), shape))
    for _ in range(_ROUNDS):
        for at in _BODY:
            kind, _, repeated = at.partition(INT)
            more = [] if kind == "ABS" else [one if repeated else ones]
            value = net.op(kind, [value, *more], shape, "int32")
    net.into.inputs, net.into.outputs = [inner], [value]
    net.into = net.main
    answer = net.x
    for _ in range(_CALLS):
        answer = net.op("IF", [condition, answer], shape, "int32", thenSubgraphIndex=1, elseSubgraphIndex=1)
    return net.save(answer)


def _transposed(wanted: Micro) -> bytes:
    pixels, dtype = wanted.sizes[0] // 3, "int8" if wanted.int8 else "float32"
    net = Net((3, pixels), int8=wanted.int8)
    turned = [net.op("TRANSPOSE", [net.x, net.shape(1, 0)], (pixels, 3), dtype) for _ in range(wanted.repeats)]
    total = turned[0]
    for other in turned[1:]:
        total = net.op("ADD", [total, other], (pixels, 3), dtype)
    return net.save(total)
