"""Every way in which a bundle can answer a request, with its cost between one device and one server."""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Literal

import msgspec
import numpy as np

from edgekit.planner.cascades import cascades
from edgekit.planner.times import Known, Timed, Times
from edgekit_runtime import chain, codecs
from edgekit_runtime.adaptive import ActionCost, early, names
from edgekit_runtime.bundle import Bundle
from edgekit_runtime.errors import Refused
from edgekit_runtime.manifest import Action, Graph, Manifest, OperatingPoint, SplitPoint, Tensor, WireTensor
from edgekit_runtime.remote.leaving import hands_over
from edgekit_runtime.remote.offer import highest
from edgekit_runtime.remote.pieces import first_sample

Basis = Literal["measured", "predicted"]

_TRIED_BYTES = 1 << 18
FRAMING_BYTES = 300  # of a request and of an answer: HTTP/2, gRPC and the V2 message around the tensors


def actions_of(
    bundle: Bundle, device: Times, server: Times, first: tuple[Bundle, Times] | None = None
) -> tuple[ActionCost, ...]:
    """All actions of a bundle, the local ones first.

    Args:
        bundle: Opened.
        device: Times of the device; what is timed here (codecs) is scaled by the same profile.
        server: Times of the server.
        first: The cheaper student of the bundle's cascades, and its times on the device; None: cascades are left out.

    Raises:
        Refused: No full graph has a known time on the device, or `first` is another bundle than the cascades name.
    """
    manifest = bundle.manifest
    graphs = {graph.id: graph for graph in manifest.graphs}
    sizes = _sizes(bundle)
    known = Known(graphs, device, server)
    full = [graph for graph in manifest.graphs if graph.role == "full" and known.on_device([graph.id])]
    if not full:
        raise Refused(
            f"no full graph has a known time on {device.profile.name}",
            remedy=f"edgekit profile BUNDLE --device {device.profile.name}",
        )
    down = FRAMING_BYTES + sum(_bytes(tensor, sizes) for tensor in manifest.outputs)
    rows = list(_locals(manifest, full, known))
    local = _best(manifest, full, known)
    # A stream that ends early saves steps, not a part of a request: requests are what is planned here.
    rows += [_chain(manifest, point, known, local) for point in manifest.operating_points if point.in_depth]
    served = [graph for graph in manifest.graphs if graph.role == "full" and known.on_server([graph.id])]
    if served:
        tail = min(served, key=lambda graph: known.on_server([graph.id]).ms)  # type: ignore[union-attr]
        rows += _offloads(bundle, tail, known, down, sizes)
    order = sorted(manifest.split_points, key=lambda point: len(point.before))
    for depth, point in enumerate(order):
        cut = _cut(manifest, point, depth, known, down, sizes, local)
        if cut is not None:
            rows += [cut, *_int8(manifest, point, cut, sizes, known), *_handed_over(manifest, point, cut, known, local)]
    if first is not None:
        rows += cascades(manifest, first, known, local, rows)
    return tuple({row.id: row for row in rows}.values())


def _locals(manifest: Manifest, full: Sequence[Graph], known: Known) -> Iterator[ActionCost]:
    """The fastest graph whose gate passed is `local`; the others are variants."""
    best = _best(manifest, full, known)
    for name in _passed(manifest, full):
        found = known.on_device([name])
        assert found is not None
        drop, high = _drop(manifest, name)
        yield ActionCost(
            id="local" if name == best else f"variant:{name}",
            kind="local" if name == best else "variant",
            head_ms=found.ms,
            head_sd_ms=found.sd_ms,
            accuracy_drop=drop,
            accuracy_drop_high=high,
            basis=found.basis,
        )


def _passed(manifest: Manifest, full: Sequence[Graph]) -> list[str]:
    """The full graphs whose gate passed; all of them where none did."""
    failed = {row.graph for row in manifest.quality if row.gate == "failed"}
    return [graph.id for graph in full if graph.id not in failed] or [graph.id for graph in full]


def _best(manifest: Manifest, full: Sequence[Graph], known: Known) -> str:
    """The graph of the action `local`."""
    return min(_passed(manifest, full), key=lambda name: known.on_device([name]).ms)  # type: ignore[union-attr]


def _drop(manifest: Manifest, graph: str) -> tuple[float | None, float | None]:
    """What the gate saw for a graph; 0 for fp32, which is the reference."""
    rows = [row for row in manifest.quality if row.graph == graph and row.slice == "all"]
    if rows:
        return max(rows[0].drop, 0.0), max(rows[0].interval_95[1], 0.0)
    precision = next(row.precision for row in manifest.graphs if row.id == graph)
    return (0.0, 0.0) if precision == "fp32" else (None, None)


def _chain(manifest: Manifest, point: OperatingPoint, known: Known, local: str) -> ActionCost:
    """A chain of segments and exits on the device."""
    leave_ms, basis = _ways_out(manifest, point, known)
    mean_ms, sd_ms = early.spent(leave_ms, point.exit_fractions)
    return ActionCost(
        id=names.certified(point, local),
        kind="exit",
        head_ms=mean_ms,
        head_sd_ms=sd_ms,
        accuracy_drop=point.empirical_risk,
        accuracy_drop_high=point.risk,
        basis=basis,
    )


def _ways_out(manifest: Manifest, point: OperatingPoint, known: Known) -> tuple[list[float], Basis]:
    """Time until each exit and until the full answer, ms, and where it is from."""
    roles = {graph.id: graph.role for graph in manifest.graphs}
    spent_ms, leave_ms = 0.0, []
    basis: Basis = "measured"
    for name in point.graph_chain:
        found = known.on_device([name]) or Timed(0.0, 0.0, "predicted")
        spent_ms += found.ms
        basis = basis if found.basis == "measured" else "predicted"
        if roles[name] == "exit":
            leave_ms.append(spent_ms)
    return [*leave_ms, spent_ms], basis


def _handed_over(
    manifest: Manifest, point: SplitPoint, cut: ActionCost, known: Known, local: str
) -> Iterator[ActionCost]:
    """Exits up to a split point here, its tail on the server for whoever is not sure."""
    for certified in manifest.operating_points:
        last = _exit_at(manifest, certified, point)
        if not certified.in_depth or last is None or not hands_over(certified):
            continue
        going = early.going_on(certified.exit_fractions, last)
        if going in (0.0, 1.0):
            continue
        leave_ms, basis = _ways_out(manifest, certified, known)
        mean_ms, sd_ms = early.spent(leave_ms[: last + 1], certified.exit_fractions)
        yield msgspec.structs.replace(
            cut,
            id=names.handed_over(certified, local, point),
            kind="exit",
            head_ms=mean_ms,
            head_sd_ms=sd_ms,
            offload_fraction=going,
            accuracy_drop=certified.empirical_risk,
            accuracy_drop_high=certified.risk,
            basis=cut.basis if cut.basis == basis else "predicted",
        )


def _exit_at(manifest: Manifest, certified: OperatingPoint, point: SplitPoint) -> int | None:
    """Number of the exit that stands at a split point; None: none of this chain does."""
    if certified.of != point.of:
        return None
    found = [number for number, item in enumerate(chain.exits_of(manifest, point.of)) if item.after == point.id]
    return found[0] if found else None


def _offloads(bundle: Bundle, tail: Graph, known: Known, down: int, sizes: Mapping[str, int]) -> Iterator[ActionCost]:
    """The whole input to the server: as it is, and with the codec that measures smallest on the golden input."""
    manifest = bundle.manifest
    served = known.on_server([tail.id])
    assert served is not None
    drop, high = _drop(manifest, tail.id)
    raw = sum(_bytes(tensor, sizes) for tensor in manifest.inputs)
    plain = ActionCost(
        id="offload",
        kind="offload",
        offload_fraction=1.0,
        encode_ms=known.serialise_ms(raw),
        bytes_up=raw + FRAMING_BYTES,
        bytes_down=down,
        tail_ms=served.ms,
        tail_sd_ms=served.sd_ms,
        server_macs=tail.macs or 0,
        accuracy_drop=drop,
        accuracy_drop_high=high,
        basis=served.basis,
    )
    yield plain
    golden = first_sample(manifest, bundle.golden_inputs())
    if golden:
        found = codecs.measure_all(golden.values())
        best = min(found, key=lambda row: row.bytes)
        if best.bytes < raw:
            yield msgspec.structs.replace(
                known.coded(plain, best),
                id=f"offload:{best.codec}",
                codec=best.codec,
                bytes_up=best.bytes + FRAMING_BYTES,
            )
        for row in manifest.actions:
            if row.kind == "offload" and row.graphs == (tail.id,):
                yield from _picture(plain, row, golden, best.bytes, known)


def _picture(
    plain: ActionCost, row: Action, golden: Mapping[str, np.ndarray], least: int, known: Known
) -> Iterator[ActionCost]:
    """The pictures among the inputs as JPEG or WebP, with the accuracy measured at conversion, where it pays."""
    pictures = [array for array in golden.values() if codecs.takes(row.codec, array)]
    if not pictures or codecs.missing(row.codec):
        return
    found = codecs.measure(row.codec, pictures)
    crossing = found.bytes + sum(array.nbytes for array in golden.values() if not codecs.takes(row.codec, array))
    if crossing < least:
        yield _lossy(known.coded(plain, found), row, crossing)


def _cut(
    manifest: Manifest, point: SplitPoint, depth: int, known: Known, down: int, sizes: Mapping[str, int], local: str
) -> ActionCost | None:
    """The head here and the tail there, with every bit of what crosses; None where one of them has no known time."""
    head, tail = known.on_device(point.before), known.on_server(point.after)
    if head is None or tail is None:
        return None
    graphs = {graph.id: graph for graph in manifest.graphs}
    crossing = sum(_bytes(tensor, sizes) for tensor in point.tensors) + _again(manifest, point, sizes)
    return ActionCost(
        id=names.cut(point, local),
        kind="split",
        head_ms=head.ms,
        head_sd_ms=head.sd_ms,
        encode_ms=known.serialise_ms(crossing),
        offload_fraction=1.0,
        bytes_up=crossing + FRAMING_BYTES,
        bytes_down=down,
        tail_ms=tail.ms,
        tail_sd_ms=tail.sd_ms,
        server_macs=sum(graphs[name].macs or 0 for name in point.after),
        split_point=point.id,
        depth=depth,
        basis=head.basis if head.basis == tail.basis else "predicted",
    )


def _int8(
    manifest: Manifest, point: SplitPoint, cut: ActionCost, sizes: Mapping[str, int], known: Known
) -> Iterator[ActionCost]:
    """int8 on a float wire: a lossy codec, an action where conversion has measured its accuracy."""
    wanted = f"split:{point.id}:{codecs.INT8_ROW}"
    for row in manifest.actions:
        if row.id == wanted:
            crossing = sum(_int8_bytes(tensor, sizes) for tensor in point.tensors) + _again(manifest, point, sizes)
            floats = sum(_bytes(tensor, sizes) for tensor in point.tensors if np.dtype(tensor.dtype).kind == "f")
            rate = _int8_rate()
            found = dataclasses.replace(
                rate,
                bytes=crossing,
                encode_ms=rate.encode_ms * floats / _TRIED_BYTES,
                decode_ms=rate.decode_ms * floats / _TRIED_BYTES,
            )
            yield _lossy(known.coded(cut, found), row, crossing)


@functools.cache
def _int8_rate() -> codecs.Measured:
    """What `int8-row` takes here for a tensor of `_TRIED_BYTES`; it goes through all bytes alike."""
    return codecs.measure(codecs.INT8_ROW, [np.ones((1, 64, _TRIED_BYTES // 256), np.float32)])


def _lossy(plain: ActionCost, row: Action, crossing: int) -> ActionCost:
    """A lossy codec on what is sent, with the loss measured at conversion (none: not measured, never offered)."""
    high = highest(row)
    return msgspec.structs.replace(
        plain,
        id=f"{plain.id}:{row.codec}",
        codec=row.codec,
        bytes_up=crossing + FRAMING_BYTES,
        accuracy_drop=None if high is None else max(row.accuracy_drop or 0.0, 0.0),
        accuracy_drop_high=high,
    )


def _again(manifest: Manifest, point: SplitPoint, sizes: Mapping[str, int]) -> int:
    """Bytes of the inputs that the tail needs again."""
    return sum(_bytes(tensor, sizes) for tensor in manifest.inputs if tensor.name in point.tail_inputs)


def _int8_bytes(tensor: WireTensor, sizes: Mapping[str, int]) -> int:
    """One byte an element and a scale for each row; what is not float travels as it is."""
    if np.dtype(tensor.dtype).kind != "f":
        return _bytes(tensor, sizes)
    shape = [size if isinstance(size, int) else sizes.get(size, 1) for size in tensor.shape]
    rows = math.prod(shape) // max(codecs.row_elements(shape), 1) if len(shape) > 1 else 1
    return math.prod(shape) + rows * max(np.dtype(tensor.dtype).itemsize, 4)


def _sizes(bundle: Bundle) -> dict[str, int]:
    """Sizes of the symbols: the golden input's, else the smallest allowed; one sample."""
    manifest = bundle.manifest
    sizes = {axis.symbol: 1 if axis.role == "batch" else max(axis.min, 1) for axis in manifest.axes}
    golden = bundle.golden_inputs() or {}
    batch = {axis.symbol for axis in manifest.axes if axis.role == "batch"}
    for tensor in manifest.inputs:
        if tensor.name in golden:
            for symbol, size in zip(tensor.shape, golden[tensor.name].shape, strict=False):
                if isinstance(symbol, str) and symbol not in batch:
                    sizes[symbol] = size
    return sizes


def _bytes(tensor: Tensor | WireTensor, sizes: Mapping[str, int]) -> int:
    shape = [size if isinstance(size, int) else sizes.get(size, 1) for size in tensor.shape]
    return math.prod(shape) * np.dtype(tensor.dtype).itemsize
