"""The actions of a bundle between this device and a server, with costs measured here as far as they can be.

What the server takes is not known before it has answered: it is assumed to be a few times quicker than this device, and
the first replies correct that (`adaptive.estimators`).
"""

from __future__ import annotations

import dataclasses
import math
import statistics
import time
from collections.abc import Callable, Iterable

import msgspec

from edgekit_runtime import chain, codecs
from edgekit_runtime.adaptive import ActionCost
from edgekit_runtime.bundle import Bundle
from edgekit_runtime.engines.base import Arrays
from edgekit_runtime.remote.pieces import Piece, tail_sha256

FRAMING_BYTES = 300
_SERVER_GAIN = 4.0
_BUDGET_S, _RUNS = 0.3, 7


@dataclasses.dataclass(frozen=True)
class Offer:
    """How an action is carried out.

    Attributes:
        cost: What it costs.
        model: Called on the server; empty: nothing is sent.
        head: Runs on the device before sending; None: the inputs are sent.
        sends: Names of the tensors that are sent.
        codec: Of every one of them.
        sha256: Of the graph that is meant on the server; empty: any.
    """

    cost: ActionCost
    model: str = ""
    head: Piece | None = None
    sends: tuple[str, ...] = ()
    codec: str = "none"
    sha256: str = ""


def offers(
    bundle: Bundle,
    graph: str,
    run: Callable[[Arrays], Arrays],
    golden: Arrays,
    *,
    ours: bool,
    engine: str = "",
    threads: int = 1,
) -> list[Offer]:
    """All actions, the local one first.

    Args:
        bundle: Opened.
        graph: Id of the full graph that the local run uses; heads are cut from it.
        run: The local run.
        golden: Example inputs, as the engines take them.
        ours: The server is edgekit's own: codecs and hashes may be asked for.
        engine: That the local run uses; heads run on it, too. Empty: the first installed one.
        threads: Of a run.
    """
    manifest = bundle.manifest
    local_ms, sd_ms, outputs = measured(lambda: run(golden))
    down = sum(array.nbytes for array in outputs.values()) + FRAMING_BYTES
    local = Offer(ActionCost(id="local", kind="local", head_ms=local_ms, head_sd_ms=sd_ms, basis="measured"))
    found = [local]
    names = codecs.available() if ours else ("none",)
    for row in _worth(codecs.measure(name, golden.values()) for name in names):
        found.append(
            Offer(
                _sent(row, "offload", "offload", 0.0, local_ms / _SERVER_GAIN, down),
                model=manifest.name,
                sends=tuple(golden),
                codec=row.codec,
                sha256=bundle.graph(graph).sha256 if ours else "",
            )
        )
    for depth, point in enumerate(chain.split_points(manifest, graph)):
        # A tail gives the full answer alone: where the local run also tells what early exits say, it is no answer.
        if not outputs.keys() <= {tensor.name for name in point.after for tensor in bundle.graph(name).outputs}:
            continue
        head = chain.Chain(bundle, graph, stop=point.id, engine=engine, threads=threads)
        head_ms, _, values = measured(lambda head=head: head.run(golden))  # type: ignore[misc]
        share = max(1 - head_ms / max(local_ms, 1e-6), 0.05)
        row = min(_worth(codecs.measure(name, values.values()) for name in names), key=lambda seen: seen.bytes)
        cost = _sent(row, f"split:{point.place or point.id}", "split", head_ms, share * local_ms / _SERVER_GAIN, down)
        cost = msgspec.structs.replace(cost, split_point=point.place or point.id, depth=depth)
        sha256 = tail_sha256(bundle, point) if ours else ""
        found.append(Offer(cost, f"{manifest.name}.tail.{point.id}", head, tuple(values), row.codec, sha256))
    return found


def measured(call: Callable[[], Arrays]) -> tuple[float, float, Arrays]:
    """Median and spread of a few runs within a budget (ms), and what the last one gave. The first run warms up."""
    outputs = call()
    end = time.perf_counter() + _BUDGET_S
    samples: list[float] = []
    while len(samples) < _RUNS and (len(samples) < 2 or time.perf_counter() < end):
        start = time.perf_counter()
        outputs = call()
        samples.append((time.perf_counter() - start) * 1e3)
    middle = statistics.median(samples)
    return middle, 1.48 * statistics.median(abs(sample - middle) for sample in samples), outputs


def _worth(rows: Iterable[codecs.Measured]) -> list[codecs.Measured]:
    """Codecs that nothing beats in both bytes and time, fewest bytes first."""
    best_ms, kept = math.inf, []
    for row in sorted(rows, key=lambda seen: (seen.bytes, seen.encode_ms)):
        if row.encode_ms + row.decode_ms < best_ms:
            best_ms = row.encode_ms + row.decode_ms
            kept.append(row)
    return kept


def _sent(row: codecs.Measured, name: str, kind: str, head_ms: float, tail_ms: float, down: int) -> ActionCost:
    return ActionCost(
        id=name if row.codec == "none" else f"{name}:{row.codec}",
        kind=kind,  # type: ignore[arg-type]
        head_ms=head_ms,
        encode_ms=row.encode_ms,
        offload_fraction=1.0,
        bytes_up=row.bytes + FRAMING_BYTES,
        bytes_down=down,
        decode_ms=row.decode_ms,
        tail_ms=tail_ms,
        codec=row.codec,
        basis="assumed",
    )
