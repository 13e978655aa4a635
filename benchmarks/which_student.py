"""Which student is best: five kinds trained on one task, accuracy against latency, bytes and memory, on each device.

    python -m benchmarks which_student                        all five
    python -m benchmarks which_student text_cnn bert_tiny     these
    --seconds 5    how long the graphs are timed here, all in one alternation

What the matrix trained and converted (build/matrix) is taken as it is; what is missing is made under build/which, once.
The budgets are data: for each the student is named that keeps within it and is right most often; where a cheaper one
cannot be told from it (its paired interval on the same sentences holds 0), the cheaper one.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

import msgspec
import numpy as np

import edgekit
import edgekit_runtime as er
from benchmarks.alternate import alternate
from benchmarks.page import table
from benchmarks.which_picture import Point, picture
from edgekit.students import registry
from edgekit.students.train import train
from edgekit_runtime.bundle import Bundle, read_arrays
from edgekit_runtime.errors import EdgekitError

STUDENTS = ("text_cnn", "bilstm_classifier", "bert_tiny", "bert_mini", "bert_small")
DEVICES = ("pi-zero-2-w", "pi4", "pi5", "n100", "phone-big-core")
ROOT = Path(__file__).parent.parent
FOLDER, MATRIX = ROOT / "build" / "which", ROOT / "build" / "matrix"
PICTURE = ROOT / "docs" / "results" / "which_student.svg"
WORDS = 32
SECONDS = 30.0
# Sentences judged in one request; answers do not depend on it.
TOGETHER = 16
# (what, limit on latency in ms, limit on bytes) on the device named in the row.
BUDGETS = ((1.0, None), (5.0, None), (20.0, None), (None, 2_000_000), (None, 8_000_000), (None, None))


@dataclasses.dataclass(frozen=True)
class Candidate:
    """One graph of one student, with what it costs on a device.

    Attributes:
        right: Whether each held-back sentence was answered rightly.
        ms: Median latency by device; a device that the graph cannot run on is missing.
        peak_bytes: Resident memory of an isolated process here.
        root: The bundle.
    """

    student: str
    graph: str
    root: Path
    right: np.ndarray
    bytes: int
    peak_bytes: int | None
    ms: Mapping[str, float]

    @property
    def accuracy(self) -> float:
        return float(self.right.mean())


def run(words: Sequence[str] = ()) -> str:
    parser = argparse.ArgumentParser(prog="python -m benchmarks which_student")
    parser.add_argument("students", nargs="*", choices=[[], *STUDENTS], metavar="STUDENT")
    parser.add_argument("--seconds", type=float, default=SECONDS)
    asked = parser.parse_args(words)
    candidates = [one for name in asked.students or STUDENTS for one in _student(name)]
    here = _here(candidates, asked.seconds)
    rows = [
        (
            one.student,
            one.graph,
            _told(one.right),
            f"{here[one.student, one.graph]:.3f}",
            f"{one.bytes / 1e6:.2f}",
            "-" if one.peak_bytes is None else f"{one.peak_bytes / 1e6:.0f}",
            *(f"{one.ms[device]:.2f}" if device in one.ms else "-" for device in DEVICES),
        )
        for one in candidates
    ]
    header = ("student", "graph", "top-1 [95 %]", "ms here", "MB", "peak MB here", *(f"{name} ms" for name in DEVICES))
    PICTURE.write_text(picture(_points(candidates, here)), encoding="utf-8")
    return "\n\n".join(
        [
            "SST-2, all trained on its 6,920 training sentences, judged on the 872 development sentences. The BERT "
            "students begin with MiniLM's table of word pieces (few sentences teach a Transformer no words), "
            "the others with nothing. "
            f"ms: one sentence of {WORDS} words, one thread; here measured in alternation, on the devices "
            "predicted from their profiles (an interval of 80 % spans about a factor of 2 either way). MB: the graph's "
            "file. Peak: resident memory of a process that opens and runs it.",
            table(header, rows),
            "![accuracy against latency on each device](which_student.svg)",
            "## Recommended",
            "Within each budget the student that is right most often; a cheaper one where the difference on the same "
            "sentences cannot be told from none.",
            table(("budget", *DEVICES), [_recommended(candidates, *budget) for budget in BUDGETS]),
        ]
    )


def _points(candidates: Sequence[Candidate], here: Mapping[tuple[str, str], float]) -> dict[str, list[Point]]:
    """What the picture shows, by panel: this machine, then each device."""
    panels = {"this machine": [Point(c.student, c.graph, here[c.student, c.graph], c.accuracy) for c in candidates]}
    for device in DEVICES:
        panels[device] = [Point(c.student, c.graph, c.ms[device], c.accuracy) for c in candidates if device in c.ms]
    return panels


def _student(name: str) -> list[Candidate]:
    bundle, evaluation = _made(name)
    arrays = read_arrays(evaluation)
    inputs = {n: a for n, a in arrays.items() if n != "labels"}
    found = []
    for graph in bundle.manifest.graphs:
        if graph.role != "full" or graph.variant:
            continue
        with er.open(bundle.root, graph=graph.id, threads=1) as session:
            answers = [
                session.run({n: a[at : at + TOGETHER] for n, a in inputs.items()})["output"].argmax(-1)
                for at in range(0, len(arrays["labels"]), TOGETHER)
            ]
        right = np.concatenate(answers) == arrays["labels"]
        peak = edgekit.profile(bundle.root, graph=graph.id, duration_s=1.0)[0].memory.peak_rss_bytes
        ms = _predicted(bundle, graph.id)
        found.append(Candidate(name, graph.id, bundle.root, right, graph.bytes, peak, ms))
        print(found[-1].student, found[-1].graph, f"{found[-1].accuracy:.3f}", file=sys.stderr, flush=True)
    return found


def _made(name: str) -> tuple[Bundle, Path]:
    """The bundle of a trained student and the sentences it is judged on.

    Trained and converted once: another run of the page measures the same graphs.
    """
    material, made = MATRIX / f"{name}.material", MATRIX / f"{name}.edge"
    if not (material / "eval.npz").is_file():
        material, made = FOLDER / f"{name}.material", FOLDER / f"{name}.edge"
        if not (material / "eval.npz").is_file():
            train(name, material, progress=lambda line: print(f"{name}: {line}", file=sys.stderr, flush=True))
    elif not _of_trained_weights(name):
        made = FOLDER / f"{name}.edge"
    # A bundle older than the weights is of others.
    if not made.is_dir() or made.stat().st_mtime < (material / "weights.safetensors").stat().st_mtime:
        student = registry.get(name)
        edgekit.convert(
            student.source,
            out=made,
            weights=material / "weights.safetensors",
            calibration=material / "calib.npz",
            eval=material / "eval.npz",
            dynamic=student.dynamic(),
            name=name,
            force=True,
            progress=lambda line: print(f"{name}: {line}", file=sys.stderr, flush=True),
        )
    return er.open_bundle(made), material / "eval.npz"


def _of_trained_weights(name: str) -> bool:
    """Whether the matrix' bundle is of trained weights: `--seeded` makes others."""
    note = MATRIX / f"{name}.convert.json"
    return note.is_file() and bool(msgspec.json.decode(note.read_bytes()).get("trained"))


def _predicted(bundle: Bundle, graph: str) -> dict[str, float]:
    found = {}
    for device in DEVICES:
        try:
            row = edgekit.profile(bundle.root, device, graph=graph, length=(WORDS,))[0]
        except EdgekitError as error:
            print(f"{graph} on {device}: {error.message}", file=sys.stderr)
            continue
        if row.latency_ms.p50 is not None:
            found[device] = row.latency_ms.p50
    return found


def _here(candidates: Sequence[Candidate], seconds: float) -> dict[tuple[str, str], float]:
    ids = np.random.default_rng(0).integers(1, 10_000, (1, WORDS))
    with contextlib.ExitStack() as stack:
        calls = {}
        for one in candidates:
            session = stack.enter_context(er.open(one.root, graph=one.graph, threads=1))
            inputs = {t.name: np.ones_like(ids) if t.name == "mask" else ids for t in session.inputs}
            calls[f"{one.student} {one.graph}"] = lambda s=session, x=inputs: s.run(x)
        seen = alternate(calls, seconds)
    return {(one.student, one.graph): seen[f"{one.student} {one.graph}"].median_ms for one in candidates}


def _told(right: np.ndarray) -> str:
    low, high = np.quantile(_resampled(right.astype(np.float64)), [0.025, 0.975])
    return f"{100 * right.mean():.1f} [{100 * low:.1f}, {100 * high:.1f}]"


def _resampled(values: np.ndarray) -> np.ndarray:
    """Means of 2,000 bootstrap resamples, seeded: the same resamples for every student."""
    n = len(values)
    return np.random.default_rng(0).multinomial(n, np.full(n, 1 / n), size=2000) @ values / n


def _recommended(candidates: Sequence[Candidate], ms: float | None, size: int | None) -> tuple[str, ...]:
    words = [f"≤ {ms:g} ms" if ms is not None else "", f"≤ {size / 1e6:g} MB" if size is not None else ""]
    return (" and ".join(filter(None, words)) or "none", *(_told_best(candidates, d, ms, size) for d in DEVICES))


def _told_best(candidates: Sequence[Candidate], device: str, ms: float | None, size: int | None) -> str:
    one = recommend(candidates, device, ms, size)
    if one is None:
        return "none fits"
    return f"{one.student}, {one.graph}: {100 * one.accuracy:.1f} %, {one.ms[device]:.2g} ms"


def recommend(candidates: Sequence[Candidate], device: str, ms: float | None, size: int | None) -> Candidate | None:
    """The candidate for a budget; None where none fits. Pure.

    Args:
        candidates: All graphs of all students.
        device: Whose latencies count.
        ms: Largest latency; None: any.
        size: Largest file in bytes; None: any.
    """
    fitting = [
        one
        for one in candidates
        if device in one.ms and (ms is None or one.ms[device] <= ms) and (size is None or one.bytes <= size)
    ]
    if not fitting:
        return None
    best = max(fitting, key=lambda one: (one.accuracy, -one.ms[device]))
    as_good = [one for one in fitting if not _worse(one, best)]
    return min(as_good, key=lambda one: (one.ms[device], one.bytes))


def _worse(one: Candidate, best: Candidate) -> bool:
    """Whether a candidate is right less often than the best on the same sentences, beyond doubt."""
    difference = best.right.astype(np.float64) - one.right.astype(np.float64)
    return bool(np.quantile(_resampled(difference), 0.025) > 0)
