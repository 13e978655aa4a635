"""The recurrent students at full size: what "works" means for a row, seen; speed in alternation; conversion seconds."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import msgspec
import numpy as np
import torch
from torch import nn

import edgekit
import edgekit_runtime as er
from benchmarks.alternate import alternate, ratio, told
from benchmarks.common import GRAPHS
from benchmarks.page import table, target
from edgekit.students import integer_reference, integer_rnn, registry
from edgekit.students.registry import Student
from edgekit.students.sampling import run as run_student
from edgekit_converters.recipe.types import Recipe
from edgekit_converters.verify.audit import float_tensors
from edgekit_converters.verify.metrics import cosine
from edgekit_runtime.bundle import Arrays, Bundle

NAMES = ("bilstm_classifier", "bilstm_tagger", "lrcn", "lrcn_step", "essay_scorer", "truecaser")
STEPS = 64
SECONDS = 8.0


class Layers(nn.Module):
    """Embedding, two bidirectional layers of 128 units, max over time, Linear: what the targets are set for."""

    def __init__(self, kind: type[nn.RNNBase]) -> None:
        super().__init__()
        self.embedding = nn.Embedding(1000, 128)
        self.layers = kind(128, 128, num_layers=2, bidirectional=True, batch_first=True)
        self.head = nn.Linear(256, 2)

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        return self.head(self.layers(self.embedding(ids))[0].amax(1))


def run() -> str:
    return "\n\n".join([_layers(), _integer(), _rows()])


def _layers() -> str:
    """BiLSTM and BiGRU at T = 64, batch 1."""
    rows, targets = [], []
    for kind in (nn.LSTM, nn.GRU):
        torch.manual_seed(0)
        ids = np.random.default_rng(0).integers(1, 1000, (16, STEPS))
        with tempfile.TemporaryDirectory() as folder:
            seconds = {}
            for name in ("onnx", "tflite"):
                start = time.monotonic()
                edgekit.convert(
                    Layers(kind).eval(), out=f"{folder}/{name}.edge", calibration={"ids": ids}, formats=(name,)
                )
                seconds[name] = time.monotonic() - start
            torch.manual_seed(0)
            bundle = edgekit.convert(Layers(kind).eval(), out=f"{folder}/both.edge", calibration={"ids": ids})
            seen = _timed(bundle, {"ids": ids[:1]})
            why = stored_because(bundle, "GRU")
        gains = {name: ratio(seen[f"{name}.fp32"], seen[f"{name}.int8"]) for name in ("onnx", "tflite")}
        rows.append(
            (f"Bi{kind.__name__}", *(seen[g] for g in GRAPHS), *(told(gains[name]) for name in ("onnx", "tflite")))
        )
        between = seen["tflite.int8"].median_ms / seen["onnx.int8"].median_ms
        if kind is nn.LSTM:
            targets.append((f"ONNX int8 {gains['onnx'][0]:.2f}x faster", *target("≥ 1.8x", gains["onnx"][0] >= 1.8)))
            targets.append((f"TFLite int8 {between:.2f}x the time of ONNX int8", *target("≤ 1.5x", between <= 1.5)))
        else:
            targets.append((f"TFLite int8 GRU {gains['tflite'][0]:.2f}x", *target("≥ 1.5x", gains["tflite"][0] >= 1.5)))
            wanted = "≥ 1.5x, or fp32 compute with int8 weights and the reason"
            seen_as = f"ONNX int8 GRU {gains['onnx'][0]:.2f}x" + (f"; {why}" if why else "")
            targets.append((seen_as, *target(wanted, gains["onnx"][0] >= 1.5 or bool(why))))
        targets.append(
            (
                f"Bi{kind.__name__} to TFLite, verified: {seconds['tflite']:.1f} s",
                *target("≤ 10 s", seconds["tflite"] <= 10),
            )
        )
    header = ("two layers of 128 units, T = 64", *(f"{g} ms" for g in GRAPHS), "ONNX int8", "TFLite int8")
    return table(header, rows) + "\n\n" + table(("seen", "target", "verdict"), targets)


def stored_because(bundle: Bundle, kind: str) -> str:
    """Why the layers of a kind have int8 weights and fp32 arithmetic in ONNX; empty where one has not."""
    graph = bundle.graph("onnx.int8")
    recipe = msgspec.json.decode(bundle.file(graph.recipe).read_bytes(), type=Recipe)
    layers = [op for op in recipe.ops if op.kind == kind]
    stored = bool(layers) and all(op.scheme == "weight_channel" for op in layers)
    return "; ".join(sorted({op.reason for op in layers})) if stored else ""


def _integer() -> str:
    """The integer-only RNN beside its floating-point twin: bits, bytes, speed."""
    student = registry.get("integer_rnn")
    inputs = student.example(1, STEPS, seed=7)
    module = student.build()
    weights = {name: value.numpy() for name, value in module.named_buffers()}
    many = student.example(16, STEPS, seed=8)["ids"]
    want = integer_reference.logits(weights, many)
    rows: list[tuple[object, ...]] = []
    with tempfile.TemporaryDirectory() as folder:
        options = {"example": {"ids": many}, "dynamic": student.dynamic(), "split_points": ("none",)}
        small = edgekit.convert(module, out=f"{folder}/int8.edge", **options)
        large = edgekit.convert(integer_rnn.twin(), out=f"{folder}/fp32.edge", precision="fp32", **options)
        calls, bytes_of = {}, {}
        for bundle in (small, large):
            for graph in bundle.manifest.graphs:
                session = er.open(bundle.root, graph=graph.id, threads=1)
                calls[graph.id] = lambda s=session: s.run(inputs)
                bytes_of[graph.id] = graph.bytes
        seen = alternate(calls, SECONDS)
        for kind in ("onnx", "tflite"):
            graph = small.graph(f"{kind}.int8")
            with er.open(small.root, graph=graph.id, threads=1) as session:
                equal = bool((session.run({"ids": many})["output"] == want).all())
            found = float_tensors(small.graph_path(graph))
            rows.append(
                (
                    kind,
                    f"{equal}, {want.size} logits",
                    len(found),
                    f"{bytes_of[graph.id] / bytes_of[f'{kind}.fp32']:.3f}x",
                    f"{100 * graph.int8_weight_bytes_fraction:.0f} %",
                    seen[graph.id],
                    seen[f"{kind}.fp32"],
                    told(ratio(seen[f"{kind}.fp32"], seen[graph.id])),
                )
            )
    header = (
        "integer-only RNN", "equal to numpy, bit by bit", "float tensors inside", "bytes of its fp32 twin",
        "int8 weight bytes", "ms", "twin ms", "faster than the twin (paper: 2x)",
    )  # fmt: skip
    return f"T = {STEPS}, batch 1; the twin is the same network in floating point.\n\n" + table(header, rows)


def _timed(bundle: Bundle, inputs: Arrays) -> dict[str, object]:
    present = [graph.id for graph in bundle.manifest.graphs if graph.id in GRAPHS]
    sessions = {graph: er.open(bundle.root, graph=graph, threads=1) for graph in present}
    seen = alternate({graph: (lambda s=session: s.run(inputs)) for graph, session in sessions.items()}, SECONDS)
    for session in sessions.values():
        session.close()
    return seen


def _rows() -> str:
    """Every student of the family with seeded weights: the definition of "works", line by line."""
    rows = []
    for name in NAMES:
        student = registry.get(name)
        with tempfile.TemporaryDirectory() as folder:
            rows += check(student, Path(folder))
        print(*rows[-2:], sep="\n", flush=True)
    header = (
        "student", "graph", "fp32 error / range", "int8 agreement or cosine", "int8 weight bytes", "bytes of fp32",
        "int8 MACs", "alone = in a batch (cosine)", "sizes", "int8 ms / fp32 ms", "ships",
    )  # fmt: skip
    return (
        "Students at full size with seeded weights; calibrated on 64 samples, judged on 64 others by cosine of the "
        "outputs and, for classes, by the same label.\n\n" + table(header, rows)
    )


def check(student: Student, folder: Path, size: str = "full") -> list[tuple[object, ...]]:
    """One row a format: all that the definition of a working row asks for."""
    length = next((axis.max for axis in student.axes if axis.symbol == "T"), 1)
    module = student.build(size)
    samples = [student.example(1, min(length, 64), size=size, seed=seed) for seed in range(64)]
    judged = [student.example(1, min(length, 64), size=size, seed=seed) for seed in range(100, 164)]
    bundle = edgekit.convert(
        module,
        out=folder / "s.edge",
        calibration=samples,
        eval=judged,
        metric="cosine",
        max_drop=0.01,
        dynamic=student.dynamic(),
        states=tuple(f"{a}={b}" for a, b in student.states),
        split_points=("none",),
        name=student.name,
    )
    inputs = student.example(1, min(length, 64), size=size, seed=7)
    seen = _timed(bundle, inputs)
    found = []
    for kind in ("onnx", "tflite"):
        graphs = {graph.id: graph for graph in bundle.manifest.graphs}
        if f"{kind}.int8" not in graphs:
            why = [f"{r.precision}: {r.reason}" for r in bundle.manifest.refused if r.format == kind]
            found.append((student.name, kind, *["-"] * 8, "; ".join(why)))
            continue
        small = graphs[f"{kind}.int8"]
        parity = [p for p in bundle.manifest.parity if p.graph == small.id]
        same = [p.same_label_fraction for p in parity if p.same_label_fraction is not None]
        fp32 = max(p.max_error_fraction for p in bundle.manifest.parity if p.graph == f"{kind}.fp32")
        with er.open(bundle.root, graph=small.id, threads=1) as session:
            alone = invariance(student, session, size)
            sizes = every_size(student, module, session, size)
        with er.open(bundle.root, graph=f"{kind}.fp32", threads=1) as session:
            every_size(student, module, session, size, tolerance=1e-4)
        found.append(
            (
                student.name,
                small.id,
                f"{fp32:.1e}",
                f"{min(p.cosine_min for p in parity):.4f}" + (f", {100 * min(same):.0f} %" if same else ""),
                f"{100 * small.int8_weight_bytes_fraction:.1f} %",
                f"{small.bytes / graphs[f'{kind}.fp32'].bytes:.3f}x",
                f"{100 * small.executed_int8_macs_fraction:.0f} %",
                f"{alone:.6f}",
                sizes,
                f"{seen[small.id]} / {seen[f'{kind}.fp32']}",
                small.ships_because,
            )
        )
    return found


def invariance(student: Student, session: er.Session, size: str) -> float:
    """Smallest cosine between a sample's answer alone and among five others."""
    batch = student.example(6, 20, size=size, seed=3)
    together = session.run(batch)
    worst = 1.0
    for row in range(6):
        alone = session.run({name: array[row : row + 1] for name, array in batch.items()})
        worst = min(worst, *(cosine(alone[name][0], together[name][row]) for name in alone))
    return worst


def every_size(
    student: Student, module: nn.Module, session: er.Session, size: str, tolerance: float | None = None
) -> str:
    """Runs at five sizes and more of each axis; with a tolerance the answers are held against the student's."""
    batch = {axis.symbol: axis.max for axis in student.axes}.get("B", 1)
    longest = {axis.symbol: axis.max for axis in student.axes}.get("T", 0)
    batches = sorted({1, 2, 3, 5, min(batch, 8), min(batch, 16)})
    lengths: Sequence[int] = sorted({1, 2, 7, 33, longest} & set(range(1, longest + 1))) if longest else (1,)
    tried = [(b, lengths[-1] if b == 1 else lengths[0]) for b in batches] + [(2, length) for length in lengths]
    spans = {n: float(np.ptp(v)) for n, v in run_student(module, student.example(16, 20, size=size)).items()}
    for b, length in tried:
        inputs = student.example(b, length, size=size, seed=b + length)
        answers = session.run(inputs)
        if tolerance is not None:
            for name, value in run_student(module, inputs).items():
                error = float(np.abs(answers[name] - value).max()) / spans[name]
                if error > tolerance:
                    raise AssertionError(f"{student.name} at {b} x {length}: {name} is off by {error:.1e} of its range")
    return f"{len(tried)} of {len(tried)}"


__all__ = ["check", "run"]
