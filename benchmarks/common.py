"""Rows and timings that several pages share."""

from __future__ import annotations

import edgekit_runtime as er
from benchmarks.alternate import Timing, alternate, ratio, told
from edgekit_runtime.bundle import Arrays, Bundle

GRAPHS = ("onnx.fp32", "onnx.int8", "tflite.fp32", "tflite.int8")
QUALITY_HEADER = ("student", "graph", "metric (fp32)", "drop [95 %], points", "same label", "bytes", "of fp32", "gate")
SPEED_HEADER = ("student", *(f"{graph} ms [p10, p90]" for graph in GRAPHS), "ONNX int8 / fp32", "TFLite int8 / fp32")


def quality_rows(name: str, bundle: Bundle) -> list[tuple[object, ...]]:
    """One row an int8 graph: what the gate saw, label agreement with the student, and bytes against fp32."""
    rows: list[tuple[object, ...]] = []
    present = {graph.id: graph for graph in bundle.manifest.graphs}
    for quality in bundle.manifest.quality:
        low, high = quality.interval_95
        seen: list[object] = [name, quality.graph, f"{quality.value:.3f} ({quality.reference:.3f})"]
        seen.append(f"{100 * quality.drop:+.1f} [{100 * low:+.1f}, {100 * high:+.1f}]")
        graph = present.get(quality.graph)
        if graph is None:
            seen += ["-", "not shipped", "-"]
        else:
            fp32 = present[f"{graph.format}.fp32"]
            judged = bundle.manifest.exits[-1].output if bundle.manifest.exits else bundle.manifest.outputs[0].name
            same = next(
                p.same_label_fraction for p in bundle.manifest.parity if p.graph == graph.id and p.output == judged
            )
            told_same = "-" if same is None else f"{100 * same:.1f} %"
            seen += [told_same, graph.bytes, f"{graph.bytes / fp32.bytes:.3f}x"]
        rows.append((*seen, quality.gate))
    return rows


def speed_row(name: str, bundle: Bundle, inputs: Arrays, seconds: float = 12) -> tuple[object, ...]:
    """All graphs of a bundle in alternation, one thread."""
    present = [graph.id for graph in bundle.manifest.graphs if graph.id in GRAPHS]
    sessions = {graph: er.open(bundle.root, graph=graph, threads=1) for graph in present}
    seen = alternate({graph: (lambda s=session: s.run(inputs)) for graph, session in sessions.items()}, seconds)
    for session in sessions.values():
        session.close()
    return (name, *(seen.get(graph, "-") for graph in GRAPHS), _gain(seen, "onnx"), _gain(seen, "tflite"))


def _gain(seen: dict[str, Timing], kind: str) -> str:
    if f"{kind}.int8" not in seen or f"{kind}.fp32" not in seen:
        return "-"
    return told(ratio(seen[f"{kind}.fp32"], seen[f"{kind}.int8"]))
