"""Every way in which a bundle can answer a request, with its cost between one device and one server."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence

import msgspec
import numpy as np

from edgekit.planner.times import Timed, Times
from edgekit_runtime import codecs
from edgekit_runtime.adaptive import ActionCost
from edgekit_runtime.bundle import Bundle
from edgekit_runtime.errors import Refused
from edgekit_runtime.manifest import Graph, Manifest, OperatingPoint, SplitPoint, Tensor
from edgekit_runtime.remote.pieces import first_sample

FRAMING_BYTES = 300  # of a request and of an answer: HTTP/2, gRPC and the V2 message around the tensors
_SERIALISE_MS_PER_MB = 0.5  # on the slowest board's memory; a copy or two


def actions_of(bundle: Bundle, device: Times, server: Times) -> tuple[ActionCost, ...]:
    """All actions of a bundle, the local ones first.

    Args:
        bundle: Opened.
        device: Times of the device.
        server: Times of the server.

    Raises:
        Refused: No full graph has a known time on the device.
    """
    manifest = bundle.manifest
    graphs = {graph.id: graph for graph in manifest.graphs}
    sizes = _sizes(bundle)
    known = _Known(graphs, device, server)
    full = [graph for graph in manifest.graphs if graph.role == "full" and known.on_device([graph.id])]
    if not full:
        raise Refused(
            f"no full graph has a known time on {device.profile.name}",
            remedy=f"edgekit profile BUNDLE --device {device.profile.name}",
        )
    down = FRAMING_BYTES + sum(_bytes(tensor, sizes) for tensor in manifest.outputs)
    rows = list(_locals(manifest, full, known))
    # A stream that ends early saves steps, not a part of a request: requests are what is planned here.
    rows += [_chain(manifest, point, graphs, known) for point in manifest.operating_points if not point.steps]
    served = [graph for graph in manifest.graphs if graph.role == "full" and known.on_server([graph.id])]
    if served:
        tail = min(served, key=lambda graph: known.on_server([graph.id]).ms)  # type: ignore[union-attr]
        rows += _offloads(bundle, tail, known, down, sizes)
    order = sorted(manifest.split_points, key=lambda point: len(point.before))
    rows += [row for depth, point in enumerate(order) if (row := _split(manifest, point, depth, known, down, sizes))]
    return tuple({row.id: row for row in rows}.values())


class _Known:
    """Summed times of graphs, None where one of them is not known."""

    def __init__(self, graphs: Mapping[str, Graph], device: Times, server: Times) -> None:
        self._graphs, self._device, self._server = graphs, device, server

    def on_device(self, ids: Sequence[str]) -> Timed | None:
        return self._sum(self._device, ids)

    def on_server(self, ids: Sequence[str]) -> Timed | None:
        return self._sum(self._server, ids)

    def _sum(self, times: Times, ids: Sequence[str]) -> Timed | None:
        try:
            rows = [times.of(self._graphs[name]) for name in ids]
        except Refused:
            return None
        basis = "measured" if all(row.basis == "measured" for row in rows) else "predicted"
        return Timed(sum(row.ms for row in rows), math.hypot(*(row.sd_ms for row in rows)), basis)  # type: ignore[arg-type]


def _locals(manifest: Manifest, full: Sequence[Graph], known: _Known) -> Iterator[ActionCost]:
    """The fastest graph whose gate passed is `local`; the others are variants."""
    failed = {row.graph for row in manifest.quality if row.gate == "failed"}
    timed = {graph.id: known.on_device([graph.id]) for graph in full if graph.id not in failed} or {
        graph.id: known.on_device([graph.id]) for graph in full
    }
    best = min(timed, key=lambda name: timed[name].ms)  # type: ignore[union-attr]
    for name, found in timed.items():
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


def _drop(manifest: Manifest, graph: str) -> tuple[float | None, float | None]:
    """What the gate saw for a graph; 0 for fp32, which is the reference."""
    rows = [row for row in manifest.quality if row.graph == graph and row.slice == "all"]
    if rows:
        return max(rows[0].drop, 0.0), max(rows[0].interval_95[1], 0.0)
    precision = next(row.precision for row in manifest.graphs if row.id == graph)
    return (0.0, 0.0) if precision == "fp32" else (None, None)


def _chain(manifest: Manifest, point: OperatingPoint, graphs: Mapping[str, Graph], known: _Known) -> ActionCost:
    """A chain of segments and exits: each graph costs its time for the requests that still go on."""
    going, ms, square, exits = 1.0, 0.0, 0.0, 0
    basis = "measured"
    for name in point.graph_chain:
        found = known.on_device([name]) or Timed(0.0, 0.0, "predicted")
        ms += going * found.ms
        # A request goes on or not: the variance of a Bernoulli times what going on costs.
        square += going * found.sd_ms**2 + going * (1 - going) * found.ms**2
        basis = found.basis if found.basis == "predicted" else basis
        if graphs[name].role == "exit" and exits < len(point.exit_fractions):
            going = max(going - point.exit_fractions[exits], 0.0)
            exits += 1
    return ActionCost(
        id=f"exit:{point.id}",
        kind="exit",
        head_ms=ms,
        head_sd_ms=math.sqrt(square),
        accuracy_drop=point.empirical_risk,
        accuracy_drop_high=point.risk,
        basis=basis,  # type: ignore[arg-type]
    )


def _offloads(bundle: Bundle, tail: Graph, known: _Known, down: int, sizes: Mapping[str, int]) -> Iterator[ActionCost]:
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
        encode_ms=raw * 1e-6 * _SERIALISE_MS_PER_MB,
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
                plain,
                id=f"offload:{best.codec}",
                codec=best.codec,
                encode_ms=best.encode_ms,
                decode_ms=best.decode_ms,
                bytes_up=best.bytes + FRAMING_BYTES,
            )


def _split(
    manifest: Manifest, point: SplitPoint, depth: int, known: _Known, down: int, sizes: Mapping[str, int]
) -> ActionCost | None:
    head, tail = known.on_device(point.before), known.on_server(point.after)
    if head is None or tail is None:
        return None
    graphs = {graph.id: graph for graph in manifest.graphs}
    again = sum(_bytes(tensor, sizes) for tensor in manifest.inputs if tensor.name in point.tail_inputs)
    # `bytes` counts int8 where a float crosses: that is a lossy codec with an action and an accuracy of its own.
    ids = f"split:{point.id}:"
    listed = next((row for row in manifest.actions if row.kind == "split" and row.id.startswith(ids)), None)
    lossless = all(tensor.dtype != "float32" for tensor in point.tensors)
    drop: float | None = 0.0 if lossless else None
    high = drop
    if listed and listed.accuracy_drop is not None:
        drop = high = max(listed.accuracy_drop, 0.0)
        high = max(listed.interval_95[1], drop) if listed.interval_95 else drop
    return ActionCost(
        id=f"split:{point.id}",
        kind="split",
        head_ms=head.ms,
        head_sd_ms=head.sd_ms,
        encode_ms=point.bytes * 1e-6 * _SERIALISE_MS_PER_MB,
        offload_fraction=1.0,
        bytes_up=point.bytes + again + FRAMING_BYTES,
        bytes_down=down,
        tail_ms=tail.ms,
        tail_sd_ms=tail.sd_ms,
        server_macs=sum(graphs[name].macs or 0 for name in point.after),
        accuracy_drop=drop,
        accuracy_drop_high=high,
        codec=listed.codec if listed else "none",
        split_point=point.id,
        depth=depth,
        basis=head.basis if head.basis == tail.basis else "predicted",
    )


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


def _bytes(tensor: Tensor, sizes: Mapping[str, int]) -> int:
    shape = [size if isinstance(size, int) else sizes.get(size, 1) for size in tensor.shape]
    return math.prod(shape) * np.dtype(tensor.dtype).itemsize
