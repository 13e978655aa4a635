"""Which of the reference students become int8: the tools underneath with their defaults, and edgekit."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np

import edgekit
import edgekit_runtime as er
from benchmarks.page import table
from edgekit.students import registry
from edgekit_converters.capture import capture
from edgekit_converters.capture.axes import parse_dynamic
from edgekit_converters.captured import Arrays, Captured
from edgekit_converters.stock import Attempt, attempts
from edgekit_runtime.errors import EdgekitError

# Names of students of one kind stand for each other: one of each is converted.
NAMES = ("text_cnn", "bilstm_classifier", "bilstm_tagger", "bert_tiny", "minilm", "resnet20", "multi_exit")
SAMPLES = 24
SIZES = ((1, 1), (5, 3), (2, 24))


def run() -> str:
    rows: list[tuple[str, ...]] = []
    counts: dict[str, int] = {}
    everywhere: dict[str, int] = {}
    for name in NAMES:
        with tempfile.TemporaryDirectory() as folder:
            row = _student(name, Path(folder))
        rows.append((name, *row.values()))
        for tool, cell in row.items():
            counts[tool] = counts.get(tool, 0) + (" dB" in cell)
            everywhere[tool] = everywhere.get(tool, 0) + cell.endswith("dB")
        print(rows[-1], flush=True)
    total = len(NAMES)
    rows.append(("**int8 at one size**", *(f"**{counts[tool]} of {total}**" for tool in counts)))
    rows.append(("**int8 at every size**", *(f"**{everywhere[tool]} of {total}**" for tool in counts)))
    return "\n\n".join(
        [
            "Students at their tiny size with seeded weights, dynamic batch and length. A cell is the signal to noise "
            "ratio of the int8 graph against the student at the example's size, or why there is none; `one size` where "
            f"the file then fails at another one of {', '.join(f'{b} x {t}' for b, t in SIZES)} (batch x length). A "
            "tool that leaves a layer in floating point without a word still counts as converted here.",
            table(("student", *counts), rows),
        ]
    )


def _student(name: str, folder: Path) -> dict[str, str]:
    student = registry.get(name)
    module = student.build("tiny")
    samples = [student.example(1, 12, size="tiny", seed=seed) for seed in range(SAMPLES)]
    dynamic = student.dynamic({axis.symbol: 24 for axis in student.axes})
    captured = capture(module, name=name, example=samples[0], dynamic=parse_dynamic(dynamic))
    others = [student.example(batch, length, size="tiny", seed=99) for batch, length in SIZES]
    row = {
        attempt.tool: tell_attempt(captured, attempt, samples, others)
        for attempt in attempts(captured, samples, folder / "stock")
    }
    bundle = edgekit.convert(
        module, out=folder / "s.edge", calibration=samples, dynamic=dynamic, metric="cosine", max_drop=0.02, name=name
    )
    for kind in ("onnx", "tflite"):
        row[f"edgekit {kind}"] = _own(bundle, f"{kind}.int8", others)
    return row


def tell_attempt(student: Captured, attempt: Attempt, samples: Sequence[Arrays], others: Sequence[Arrays]) -> str:
    """What a stock tool's file is worth: its signal to noise ratio, whether it takes other sizes, or why it fails."""
    if attempt.path is None:
        return f"fails: {attempt.error[:60]}"
    want, got = [], []
    try:
        with er.open(attempt.path, threads=1) as session:
            names = [tensor.name for tensor in session.inputs]
            for sample in samples:
                arrays = sample if set(names) == set(sample) else dict(zip(names, sample.values(), strict=True))
                got.append(np.concatenate([a.ravel() for a in session.run(arrays).values()]))
                want.append(np.concatenate([a.ravel() for a in student.reference(sample).values()]))
            renamed = [x if set(names) == set(x) else dict(zip(names, x.values(), strict=True)) for x in others]
            note = _elsewhere(session, renamed)
    except EdgekitError as error:
        return f"does not run: {error.message[:60]}"
    except ValueError:
        return f"does not run: inputs are {', '.join(names)}"
    noise = np.concatenate(got) - np.concatenate(want)
    signal = float(np.sum(np.concatenate(want) ** 2))
    return f"{10 * np.log10(signal / max(float(np.sum(noise**2)), 1e-30)):.0f} dB{note}"


def _elsewhere(session: er.Session, others: Sequence[Arrays]) -> str:
    try:
        for arrays in others:
            session.run(arrays)
    except EdgekitError:
        return ", one size"
    return ""


def _own(bundle: er.Bundle, graph: str, others: Sequence[Arrays]) -> str:
    seen = [p.sqnr_db for p in bundle.manifest.parity if p.graph == graph]
    if seen:
        with er.open(bundle.root, graph=graph, threads=1) as session:
            note = _elsewhere(session, others)
        return f"{min(value for value in seen if value is not None):.0f} dB{note}"
    return "refused: " + next(
        (r.reason[:60] for r in bundle.manifest.refused if graph.startswith(r.format)), "not asked for"
    )
