"""Early exits and cascades: mean time per request at a certified risk, and whether the certificate keeps its word."""

from __future__ import annotations

import dataclasses
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

import edgekit
import edgekit_runtime as er
from benchmarks import exits_material as material
from benchmarks.page import table, target
from edgekit.students.train import LONGEST_SENTENCE, train
from edgekit_converters.exits.certify import Samples, certify, common_path, outcome
from edgekit_converters.exits.losses import samples_of
from edgekit_runtime.bundle import read_arrays
from edgekit_runtime.chain import Chain
from edgekit_runtime.exits import Cascade

RISK, CONFIDENCE = 0.01, 0.95
FOLDS, REDRAWS = 5, 500
TIMED, ROUNDS = 200, 5
Arrays = dict[str, np.ndarray]
Request = Callable[[int], object]


@dataclasses.dataclass(frozen=True)
class Row:
    """One student: how much of the full int8 model's time a request takes, and what the certificate was worth."""

    name: str
    chain: str
    wanted: float
    ratio: float
    full_us: float
    early_us: float
    disagreement: float
    fractions: tuple[float, ...]
    exceeded: float
    n: int

    def cells(self) -> tuple[object, ...]:
        left = " ".join(f"{share:.0%}" for share in self.fractions)
        slack = 0.05 + 3 * (0.05 * 0.95 / REDRAWS) ** 0.5
        return (
            self.name,
            self.chain,
            self.n,
            f"{self.full_us:.0f}",
            f"{self.early_us:.0f}",
            f"{self.ratio:.2f}x",
            *target(f"≤ {self.wanted:.1f}x", self.ratio <= self.wanted),
            f"{self.disagreement:.4f}",
            left,
            f"{self.exceeded:.1%}",
            *target(f"≤ {slack:.1%}", self.exceeded <= slack),
        )


HEADER = (
    "student",
    "graphs",
    "samples",
    "full, µs",
    "early, µs",
    "ratio",
    "target",
    "",
    "disagreement",
    "left at each exit",
    "risk exceeded",
    "allowed",
    "",
)


def run() -> str:
    rows = []
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        rows += _chain("CNN with 3 exits, MNIST", material.mnist(), 0.5, folder / "mnist.edge")
        rows += _chain("ResNet44, frozen body, CIFAR-10", material.resnet44(), 0.8, folder / "resnet44.edge")
        small = material.bert_small()
        rows += _chain("BERT-small, SST-2", small, 0.8, folder / "bert.edge")
        rows.append(_cascade(small, folder))
    return "\n\n".join(
        [
            f"The loss is disagreement with the full int8 model, risk {RISK}, confidence {CONFIDENCE}. Thresholds are "
            f"certified on {FOLDS - 1} of {FOLDS} parts of the held-back samples and used on the other one; times are "
            "means over requests of one sample, one thread, full model and exits in alternation, the least of "
            f"{ROUNDS} rounds for each request. Risk exceeded: share of {REDRAWS} re-draws of as many calibration "
            "samples (with replacement) whose certified thresholds have more than the risk on all held-back samples; "
            "allowed is 5 % and three standard errors.",
            table(HEADER, [row.cells() for row in rows]),
        ]
    )


def _chain(name: str, given: material.Material, wanted: float, out: Path) -> list[Row]:
    bundle = edgekit.convert(
        given.module,
        out=out,
        calibration={key: value[:200] for key, value in given.fit.items()},
        eval={**given.held, "labels": given.held_labels},
        exits=given.exits,
        dynamic=given.dynamic,
        split_points=("none",),
    )
    rows = []
    for graph in ("onnx.int8", "tflite.int8"):
        if graph not in {found.id for found in bundle.manifest.graphs}:
            continue
        with Chain(bundle, graph) as chain, er.open(bundle.root, graph=graph, threads=1) as full:
            rows.append(_whole_and_early(name, wanted, chain, full, given.held))
            print(rows[-1], flush=True)
    return rows


def _whole_and_early(name: str, wanted: float, chain: Chain, full: er.Session, held: Arrays) -> Row:
    logits = _logits(chain, held)
    requests = [_one(held, number) for number in range(len(logits[0]))]
    return _measured(
        (name, full.graph.id),
        wanted,
        samples_of(logits, "max_softmax"),
        lambda number: full.run(requests[number]),
        lambda thresholds, number: chain.infer(requests[number], thresholds),
    )


def _logits(chain: Chain, held: Arrays) -> list[np.ndarray]:
    count = len(next(iter(held.values())))
    parts = [chain.scores(_one(held, number)) for number in range(count)]
    return [np.concatenate(rows) for rows in zip(*parts, strict=True)]


def _one(held: Arrays, number: int) -> Arrays:
    """One request; a text without its padding."""
    found = {name: array[number : number + 1] for name, array in held.items()}
    if "mask" in found:
        length = max(int(found["mask"].sum()), 1)
        return {name: np.ascontiguousarray(array[:, :length]) for name, array in found.items()}
    return found


def _measured(
    name: tuple[str, str],
    wanted: float,
    samples: Samples,
    full: Request,
    early: Callable[[Sequence[float], int], object],
) -> Row:
    path = common_path(len(samples.scores))
    order = np.random.default_rng(0).permutation(samples.n)
    times, losses, fractions = [], [], []
    for fold in range(FOLDS):
        test = order[fold::FOLDS]
        rest = np.setdiff1d(order, test)
        certified = certify(samples.rows(rest), path, RISK, CONFIDENCE)
        lost, left = outcome(samples.rows(test), certified.thresholds)
        losses.append(lost)
        fractions.append(np.asarray(left) * len(test))
        timed = test[: TIMED // FOLDS]
        times.append(_times(full, lambda i, t=certified.thresholds: early(t, i), timed))
    full_us, early_us = (np.concatenate([pair[k] for pair in times]).mean() for k in (0, 1))
    return Row(
        name=name[0],
        chain=name[1],
        wanted=wanted,
        ratio=float(early_us / full_us),
        full_us=float(full_us),
        early_us=float(early_us),
        disagreement=float(np.concatenate(losses).mean()),
        fractions=tuple(np.sum(fractions, axis=0) / samples.n),
        exceeded=_exceeded(samples, path),
        n=samples.n,
    )


def _times(full: Request, early: Request, numbers: Sequence[int]) -> tuple[np.ndarray, np.ndarray]:
    """Least time of each request, full and early in alternation, µs."""
    found = np.full((2, len(numbers)), np.inf)
    for _ in range(ROUNDS):
        for at, number in enumerate(numbers):
            for row, call in enumerate((full, early)):
                start = time.perf_counter_ns()
                call(int(number))
                found[row, at] = min(found[row, at], (time.perf_counter_ns() - start) / 1e3)
    return found[0], found[1]


def _exceeded(samples: Samples, path: np.ndarray) -> float:
    """Share of re-drawn calibration sets whose thresholds have more than the risk on the whole population."""
    true = np.array([outcome(samples, thresholds)[0].mean() for thresholds in path])
    rng = np.random.default_rng(1)
    count = 0
    for _ in range(REDRAWS):
        step = certify(samples.rows(rng.integers(0, samples.n, samples.n)), path, RISK, CONFIDENCE).step
        count += step >= 0 and true[step] > RISK
    return count / REDRAWS


def _cascade(small: material.Material, folder: Path) -> Row:
    """Text CNN first, BERT-small for what it is unsure of; BERT-small's own graph is the one with exits, run whole."""
    trained = train("text_cnn", folder / "text_cnn")
    first = edgekit.convert(
        trained.source,
        out=folder / "text_cnn.edge",
        weights=trained.weights,
        calibration=trained.calibration,
        eval=trained.evaluation,
        dynamic=("ids:0=B:1-64", f"ids:1=T:1-{LONGEST_SENTENCE}"),
        formats=("onnx",),
        split_points=("none",),
    )
    ids = read_arrays(trained.evaluation)["ids"]
    names = {graph.id for graph in first.manifest.graphs}
    with (
        er.open(first.root, graph="onnx.int8" if "onnx.int8" in names else "onnx.fp32", threads=1) as cheap,
        Chain(er.open_bundle(folder / "bert.edge"), "onnx.int8") as full,
    ):
        last = full.exits[-1].output
        requests = []
        for number in range(len(ids)):
            length = max(int((ids[number] != 0).sum()), 5)
            requests.append(({"ids": ids[number : number + 1, :length]}, _one(small.held, number)))
        logits = [
            np.concatenate([cheap.run(pair[0])["output"] for pair in requests]),
            np.concatenate([full.run(pair[1])[last] for pair in requests]),
        ]

        def early(thresholds: Sequence[float], number: int) -> object:
            return Cascade([cheap, full], ["output", last], thresholds).run(requests[number])

        samples = samples_of(logits, "max_softmax")
        return _measured(
            ("text CNN, then BERT-small, SST-2", "onnx.int8"), 0.5, samples, lambda i: full.run(requests[i][1]), early
        )
