"""Which graph of a bundle one kind of device needs."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from edgekit_converters.target import Target, no_int8, onnx_variant
from edgekit_runtime import engines
from edgekit_runtime.errors import Refused, UsageError
from edgekit_runtime.manifest import Graph, Manifest
from edgekit_runtime.measurement import Measurement
from edgekit_runtime.selection import ANSWERING

if TYPE_CHECKING:
    from edgekit_runtime.bundle import Bundle


@dataclasses.dataclass(frozen=True)
class Pick:
    """The graph that a device gets.

    Attributes:
        graph: Its id.
        why: Why this one.
        left_out: Every other graph that answers, with the reason.
    """

    graph: str
    why: str
    left_out: dict[str, str]


def slim(
    bundle: str | os.PathLike[str], target: str, out: str | os.PathLike[str], *, force: bool = False
) -> tuple[Bundle, Pick]:
    """Writes a bundle with only what one kind of device needs: the fastest graph for it, and that graph's pieces.

    Measurements of the device kept in the bundle decide; without them, predictions from its profile.

    Args:
        bundle: The whole bundle.
        target: Name of a device profile.
        out: Where the new bundle goes; ends with `.edge`.
        force: Replace what is there.

    Raises:
        UsageError: No such device.
        Refused: No graph of the bundle runs on it.
    """
    from edgekit.converting import resolve
    from edgekit_converters.slim import keep_graphs
    from edgekit_runtime.bundle import open_bundle

    (wanted,) = resolve([target])
    with open_bundle(bundle) as source:
        manifest = source.manifest
        known = [m for m in source.measurements() if m.device == target and m.bundle_id == source.bundle_id]
        documents, untold = (known, "") if known else _predicted(target, source.root)
    picked = pick(manifest, wanted, documents, untold)
    return keep_graphs(bundle, [picked.graph], out, force=force), picked


def pick(manifest: Manifest, target: Target, documents: Sequence[Measurement], untold: str = "") -> Pick:
    """The fastest graph that is right for a device; with no figure for any of them, the smallest. Pure.

    Args:
        manifest: What the bundle holds.
        target: The device.
        documents: Measurements or predictions of the device.
        untold: Why there are no documents, for the person.

    Raises:
        Refused: No graph is right for it (lists why).
    """
    answering = [graph for graph in manifest.graphs if graph.role in ANSWERING]
    against = {graph.id: reason for graph in answering if (reason := unfit(graph, target))}
    open_to = [graph for graph in answering if graph.id not in against]
    if not open_to:
        runs = any(name in target.engines for name in engines.names())
        raise Refused(
            f"no graph of this bundle is for {target.name}: " + "; ".join(f"{k}: {v}" for k, v in against.items()),
            remedy=f"convert again with --target {target.name}" if runs else f"a device with {_or(engines.names())}",
        )
    times = {m.graph: m.latency_ms.p50 for m in documents if m.threads == 1 and m.latency_ms.p50 is not None}
    timed = [graph for graph in open_to if graph.id in times]
    if not timed:
        best = min(open_to, key=lambda graph: graph.bytes)
        why = f"the smallest: nothing tells how fast it is on {target.name}{f' ({untold})' if untold else ''}"
        rest = {graph.id: f"{graph.bytes} bytes, not the smallest" for graph in open_to if graph is not best}
        return Pick(best.id, why, {**against, **rest})
    best = min(timed, key=lambda graph: times[graph.id] or 0.0)
    told = "predicted" if any(m.predicted for m in documents) else "measured"
    rest = {
        graph.id: f"{times[graph.id]:.3g} ms" if graph.id in times else "no figure for this device"
        for graph in open_to
        if graph is not best
    }
    return Pick(best.id, f"{times[best.id]:.3g} ms on {target.name}, {told}", {**against, **rest})


def _or(names: Sequence[str]) -> str:
    return " or ".join((", ".join(names[:-1]), names[-1]))


def unfit(graph: Graph, target: Target) -> str:
    """Why a graph is not right for a device; empty where it is."""
    if graph.targets and target.name not in graph.targets:
        return f"made for {', '.join(graph.targets)}"
    reason = no_int8(target, graph.format)
    if reason and (graph.precision == "int8" or "onnxruntime-gpu" not in target.engines or graph.format != "onnx"):
        return reason
    if (
        graph.precision == "int8"
        and graph.format == "onnx"
        and onnx_variant(target) == "reduced_range" != graph.variant
    ):
        return "u8 x s8 products saturate in 16 bits there: convert with --target"
    return ""


def _predicted(target: str, root: Path) -> tuple[Sequence[Measurement], str]:
    """Predictions for the device, or none and the reason."""
    from edgekit.profiler.dispatch import predicted
    from edgekit.profiler.request import Request

    try:
        return predicted(target, root, Request()), ""
    except (Refused, UsageError) as error:  # its profile tells too little, or it runs none of the graphs' engines
        return (), error.message
