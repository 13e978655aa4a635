"""Times of single operators from LiteRT's own profiler.

The interpreter of the wheel tells nothing of single operators; the C interface in the same wheel (`libLiteRt.so`) does,
also for what runs inside the XNNPACK delegate. It is called through ctypes, only to profile, and only by the profiler's
own process: a layout that a later version changes must not take a person's program with it.

    LiteRT's events of one run                          rows
    delegate  Convolution (NHWC, QC8) IGEMM    18 us    CONV_2D_0             XNNPACK   0.018 ms   MACs of the file
    delegate  Fully Connected (NC, QS8) GEMM    7 us    FULLY_CONNECTED_1     XNNPACK   0.007 ms
    operator  SOFTMAX                           1 us    SOFTMAX_2             LiteRT    0.001 ms

The profiler counts whole microseconds, rounded down: an operator of less reads 0 in most runs, and the sum of all rows
lies a little below the latency. XNNPACK fuses and renames: the rows of the file that multiply are matched to XNNPACK's
in order, and where their numbers differ no MACs are claimed for any row.
"""

from __future__ import annotations

import ctypes
import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path

import msgspec
import numpy as np

from edgekit_runtime.engines.base import middle_mean
from edgekit_runtime.errors import Refused
from edgekit_runtime.measurement import OpCost

OLDEST, NEWEST_MAJOR = (2, 3), 2  # the C interface is called as these versions lay it out
DELEGATE, KERNEL = "XNNPACK", "LiteRT"

_CPU = 1
_WRITE = 1
_OPERATOR, _DELEGATE_OPERATOR, _DELEGATE_PROFILED = 2, 4, 8
_MULTIPLIES = ("Convolution", "Deconvolution", "Fully Connected", "Batch Matrix Multiply")
_WRAPPERS = ("TfLiteXNNPackDelegate", "DELEGATE")  # their time is that of the events inside


@dataclasses.dataclass(frozen=True)
class Event:
    """One operator of one run.

    Attributes:
        tag: LiteRT's or XNNPACK's name of the operator.
        delegate: It ran inside XNNPACK.
        index: Its number within the delegate's or the interpreter's plan.
        micros: Whole microseconds.
    """

    tag: str
    delegate: bool
    index: int
    micros: int


class _Layout(ctypes.Structure):
    _fields_ = [("rank", ctypes.c_uint32), ("sizes", ctypes.c_int32 * 8), ("strides", ctypes.c_uint32 * 8)]


class _TensorType(ctypes.Structure):
    _fields_ = [("element", ctypes.c_int), ("layout", _Layout)]


class _Event(ctypes.Structure):
    _fields_ = [
        ("tag", ctypes.c_char_p),
        ("kind", ctypes.c_int),
        ("start_us", ctypes.c_uint64),
        ("elapsed_us", ctypes.c_uint64),
        ("memory", ctypes.c_int64 * 6),
        ("first", ctypes.c_uint64),
        ("second", ctypes.c_uint64),
        ("source", ctypes.c_int),
    ]


def supported(version: str) -> bool:
    """Whether the C interface of this version of ai-edge-litert is known."""
    numbers = tuple(int(part) for part in version.split(".")[:2] if part.isdecimal())
    return len(numbers) == 2 and numbers >= OLDEST and numbers[0] == NEWEST_MAJOR


def record(
    path: Path, signature: str, inputs: Mapping[str, np.ndarray], *, threads: int, runs: int
) -> list[list[Event]]:
    """Runs a file under LiteRT's profiler.

    Args:
        path: A TFLite file.
        signature: Its entry point; empty: the first.
        inputs: Arrays by name, in the file's shapes and dtypes.
        threads: Threads of XNNPACK.
        runs: Runs recorded, after two to warm up.

    Returns:
        The operators of each run, in order.

    Raises:
        Refused: LiteRT's C interface does not take the file (variables), or is not there.
    """
    import ai_edge_litert

    library = Path(str(ai_edge_litert.__file__)).parent / "libLiteRt.so"
    try:
        session = _Session(ctypes.CDLL(str(library)), path, signature, inputs, threads)
    except (OSError, AttributeError) as error:  # no such file or symbol
        raise Refused(f"this LiteRT has no profiler to ask: {error}") from error
    for _ in range(2):
        session.run()
    return [session.recorded() for _ in range(runs)]


class _Session:
    """One compiled model with its buffers. Freed with the process, which does nothing else."""

    def __init__(
        self, library: ctypes.CDLL, path: Path, signature: str, inputs: Mapping[str, np.ndarray], threads: int
    ) -> None:
        self._library = library
        self._environment = self._made("LiteRtCreateEnvironment", 0, None)
        self._model = self._made("LiteRtCreateModelFromFile", self._environment, str(path).encode())
        options = self._made("LiteRtCreateOptions")
        self._call("LiteRtSetOptionsHardwareAccelerators", options, _CPU)
        self._add(options, b"runtime_options_string", b"enable_profiling = true\n")
        self._add(options, b"xnnpack", f"num_threads = {threads}\n".encode())
        self._compiled = self._made("LiteRtCreateCompiledModel", self._environment, self._model, options)
        self._profiler = self._made("LiteRtCompiledModelGetProfiler", self._compiled)
        self._number, self._signature = self._find(signature)
        self._inputs = self._buffers("Input", inputs)
        self._outputs = self._buffers("Output", {})

    def run(self) -> None:
        """Runs once."""
        self._call(
            "LiteRtRunCompiledModel",
            self._compiled,
            self._number,
            ctypes.c_size_t(len(self._inputs)),
            self._inputs,
            ctypes.c_size_t(len(self._outputs)),
            self._outputs,
        )

    def recorded(self) -> list[Event]:
        """Runs once and returns the operators."""
        self._call("LiteRtResetProfiler", self._profiler)
        self._call("LiteRtStartProfiler", self._profiler)
        self.run()
        count = ctypes.c_int()
        self._call("LiteRtGetNumProfilerEvents", self._profiler, ctypes.byref(count))
        events = (_Event * max(count.value, 1))()
        if count.value:
            self._call("LiteRtGetProfilerEvents", self._profiler, count.value, events)
        self._call("LiteRtStopProfiler", self._profiler)
        kept = _OPERATOR | _DELEGATE_OPERATOR | _DELEGATE_PROFILED
        return [
            Event((event.tag or b"").decode(errors="replace"), event.kind != _OPERATOR, event.first, event.elapsed_us)
            for event in events[: count.value]
            if event.kind & kept
        ]

    def _call(self, name: str, *arguments: object) -> None:
        status = getattr(self._library, name)(*arguments)
        if status:
            raise Refused(f"LiteRT's profiler does not take this file ({name} says {status})")

    def _made(self, name: str, *arguments: object) -> ctypes.c_void_p:
        handle = ctypes.c_void_p()
        self._call(name, *arguments, ctypes.byref(handle))
        return handle

    def _add(self, options: ctypes.c_void_p, name: bytes, text: bytes) -> None:
        # LiteRT frees the text with the function given: it has to come from the C library.
        c = ctypes.CDLL(None)
        c.strdup.restype = ctypes.c_void_p
        payload, free = ctypes.c_void_p(c.strdup(text)), ctypes.cast(c.free, ctypes.c_void_p)
        self._call("LiteRtAddOpaqueOptions", options, self._made("LiteRtCreateOpaqueOptions", name, payload, free))

    def _find(self, wanted: str) -> tuple[ctypes.c_size_t, ctypes.c_void_p]:
        count = ctypes.c_size_t()
        self._call("LiteRtGetNumModelSignatures", self._model, ctypes.byref(count))
        for number in range(count.value):
            signature = self._made("LiteRtGetModelSignature", self._model, ctypes.c_size_t(number))
            key = ctypes.c_char_p()
            self._call("LiteRtGetSignatureKey", signature, ctypes.byref(key))
            if not wanted or (key.value or b"").decode() == wanted:
                return ctypes.c_size_t(number), signature
        raise Refused(f"the file has no signature {wanted!r}")

    def _buffers(self, kind: str, values: Mapping[str, np.ndarray]) -> ctypes.Array[ctypes.c_void_p]:
        count = ctypes.c_size_t()
        self._call(f"LiteRtGetNumSignature{kind}s", self._signature, ctypes.byref(count))
        described = [self._described(kind, number) for number in range(count.value)]
        if kind == "Input":
            missing = [name for name, _ in described if name not in values]
            if missing:
                raise Refused(f"LiteRT's profiler calls inputs {missing}, which are not given")
            for number, (name, tensor) in enumerate(described):
                self._resize(number, tensor, values[name].shape)
        elif count.value:
            # Where a size was left open, the layouts tell what it became.
            layouts = (_Layout * count.value)()
            self._call(
                "LiteRtGetCompiledModelOutputTensorLayouts",
                self._compiled,
                self._number,
                ctypes.c_size_t(count.value),
                layouts,
                ctypes.c_bool(True),
            )
            for (_, tensor), layout in zip(described, layouts, strict=True):
                tensor.layout = layout
        buffers = [
            self._buffer(kind, number, tensor, values.get(name)) for number, (name, tensor) in enumerate(described)
        ]
        return (ctypes.c_void_p * len(buffers))(*buffers)

    def _described(self, kind: str, number: int) -> tuple[str, _TensorType]:
        """Name and type of one input or output."""
        index, name, described = ctypes.c_size_t(number), ctypes.c_char_p(), _TensorType()
        tensor = self._made(f"LiteRtGetSignature{kind}TensorByIndex", self._signature, index)
        self._call("LiteRtGetRankedTensorType", tensor, ctypes.byref(described))
        self._call(f"LiteRtGetSignature{kind}Name", self._signature, index, ctypes.byref(name))
        return (name.value or b"").decode(), described

    def _resize(self, number: int, described: _TensorType, shape: tuple[int, ...]) -> None:
        """Gives an input the sizes that the file leaves open."""
        declared = tuple(described.layout.sizes[: described.layout.rank & 0x7F])
        if declared == shape:
            return
        if len(declared) != len(shape) or any(a not in (-1, b) for a, b in zip(declared, shape, strict=True)):
            raise Refused(f"LiteRT's profiler takes {list(declared)}, {list(shape)} is given")
        sizes = (ctypes.c_int * len(shape))(*shape)
        self._call(
            "LiteRtCompiledModelResizeInputTensor",
            self._compiled,
            self._number,
            ctypes.c_size_t(number),
            sizes,
            ctypes.c_size_t(len(shape)),
        )
        for axis, size in enumerate(shape):
            described.layout.sizes[axis] = size

    def _buffer(self, kind: str, number: int, described: _TensorType, value: np.ndarray | None) -> ctypes.c_void_p:
        index = ctypes.c_size_t(number)
        needs = self._made(f"LiteRtGetCompiledModel{kind}BufferRequirements", self._compiled, self._number, index)
        buffer = self._made(
            "LiteRtCreateManagedTensorBufferFromRequirements", self._environment, ctypes.byref(described), needs
        )
        if value is not None:
            self._fill(buffer, np.ascontiguousarray(value))
        return buffer

    def _fill(self, buffer: ctypes.c_void_p, value: np.ndarray) -> None:
        size, address = ctypes.c_size_t(), ctypes.c_void_p()
        self._call("LiteRtGetTensorBufferPackedSize", buffer, ctypes.byref(size))
        if size.value != value.nbytes:
            raise Refused(f"LiteRT's profiler wants {size.value} bytes, {value.nbytes} are given")
        self._call("LiteRtLockTensorBuffer", buffer, ctypes.byref(address), _WRITE)
        ctypes.memmove(address, value.ctypes.data, value.nbytes)
        self._call("LiteRtUnlockTensorBuffer", buffer)


def join(rows: Sequence[OpCost], runs: Sequence[Sequence[Event]], *, looped: bool) -> tuple[OpCost, ...]:
    """LiteRT's events with the MACs and bytes of the file's operators.

    Args:
        rows: The file's operators, in order, without times.
        runs: Events of each run.
        looped: A subgraph is run many times a run: its events are added up by name and number.

    Returns:
        One row an operator as it ran: its time in a run (mean of the middle half), who ran it, and its work where that
        is certain.
    """
    sums: dict[tuple[int, str, bool, int], list[int]] = {}
    for number, events in enumerate(runs):
        for key, micros in _numbered(events, looped):
            sums.setdefault(key, [0] * len(runs))[number] += micros
    keys = list(sums)
    plain = [(row.kind, row) for row in rows if row.macs != 0]
    multiplying = [key for key in keys if _multiplies(key[1], {kind for kind, _ in plain})]
    sure = len(plain) == len(multiplying)
    known = {key: row for key, (_, row) in zip(multiplying, plain, strict=False)} if sure else {}
    return tuple(
        msgspec.structs.replace(
            known.get(key) or _unknown(key[1], key[3]),
            ms=middle_mean(sums[key]) / 1e3,
            delegate=DELEGATE if key[2] else KERNEL,
        )
        for key in keys
    )


def _unknown(tag: str, index: int) -> OpCost:
    """A row of LiteRT's own: a name, and no work that would be guessed."""
    int8 = any(word in tag for word in ("QS8", "QC8", "QU8"))
    return OpCost(name=f"{tag} {index}", kind=tag, macs=None if _multiplies(tag, set()) else 0, int8=int8)


def _numbered(events: Sequence[Event], looped: bool) -> list[tuple[tuple[int, str, bool, int], int]]:
    """Events with a key that is the same in every run: each piece that the delegate took counts from 0 anew."""
    found, piece, last = [], 0, -1
    for event in events:
        if event.tag in _WRAPPERS:
            continue
        if event.delegate and not looped:
            piece += event.index <= last
            last = event.index
        found.append(((piece if event.delegate else -1, event.tag, event.delegate, event.index), event.micros))
    return found


def _multiplies(tag: str, kinds: set[str]) -> bool:
    return tag.startswith(_MULTIPLIES) or tag in kinds
