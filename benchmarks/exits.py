"""Early exits and cascades: mean time per request at a certified risk, and whether the certificate keeps its word.

python -m benchmarks exits                  all studies; those that were measured by this code are read again
python -m benchmarks exits resnet44 mnist   these
--train     only what measuring needs: weights and bundles, kept under build/exits
--fresh     measure again
"""

from __future__ import annotations

import argparse
import dataclasses
import shutil
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import msgspec
import numpy as np

import edgekit
import edgekit_runtime as er
from benchmarks import exits_material as material
from benchmarks.matrix import fingerprint
from benchmarks.page import table, target
from edgekit.students.train import LONGEST_SENTENCE, RECIPES, train
from edgekit_converters.exits.certify import Samples, certify, common_path, exact_binomial, outcome
from edgekit_converters.exits.losses import samples_of
from edgekit_runtime.bundle import read_arrays
from edgekit_runtime.chain import Chain
from edgekit_runtime.exits import Cascade
from edgekit_runtime.paths import sha256

RISK, CONFIDENCE = 0.01, 0.95
REDRAWS = 500
TIMED, ROUNDS = 200, 5
Arrays = dict[str, np.ndarray]
Request = Callable[[int], object]
ROOT = Path(__file__).parent.parent
FOLDER, MATRIX = ROOT / "build" / "exits", ROOT / "build" / "matrix"


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
    risk: float

    def cells(self) -> tuple[object, ...]:
        left = " ".join(f"{share:.0%}" for share in self.fractions)
        slack = 0.05 + 3 * (0.05 * 0.95 / REDRAWS) ** 0.5
        return (
            self.name,
            self.chain,
            self.n,
            f"{self.risk:.4f}",
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
    "risk",
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


TEXT = (
    f"The loss is disagreement with the full int8 model, confidence {CONFIDENCE}. Thresholds are certified on all but "
    "one of the parts of the held-back samples and used on that one; times are means over requests of one sample, one "
    "thread, full model and exits in alternation, the least of "
    f"{ROUNDS} rounds for each request. The full model is run without its exit heads, as one graph or as its chain, "
    "whichever is faster. There are 5 parts, or where 5 would leave too few samples for a certificate that bears one "
    f"loss, 20. Risk exceeded: share of {REDRAWS} re-draws of as many calibration "
    "samples (with replacement) whose certified thresholds have more than the risk on all held-back samples; "
    "allowed is 5 % and three standard errors. Not measured: rows whose training has not been run "
    "(`python -m benchmarks exits --train`)."
)


def run(words: Sequence[str] = ()) -> str:
    parser = argparse.ArgumentParser(prog="python -m benchmarks exits")
    parser.add_argument("studies", nargs="*", choices=[[], *STUDIES], metavar="STUDY", help=", ".join(STUDIES))
    parser.add_argument("--train", action="store_true", help="only train and convert what is missing")
    parser.add_argument("--fresh", action="store_true", help="measure again; weights stay")
    asked = parser.parse_args(words)
    FOLDER.mkdir(parents=True, exist_ok=True)
    mark = fingerprint(False)
    for name in asked.studies or STUDIES:
        kept = FOLDER / f"{name}.rows.json"
        known = msgspec.json.decode(kept.read_bytes(), type=Kept) if kept.is_file() else None
        if known is not None and known.mark == mark and not asked.fresh and not asked.train:
            continue
        rows = STUDIES[name](Study(name, FOLDER, mark, asked.train))
        if not asked.train:
            kept.write_bytes(msgspec.json.encode(Kept(mark, rows)))
        print(f"{name}: {'ready' if asked.train else rows or 'no weights'}", flush=True)
    found = [
        (name, msgspec.json.decode(path.read_bytes(), type=Kept).rows)
        for name in STUDIES
        if (path := FOLDER / f"{name}.rows.json").is_file()
    ]
    rows = [row.cells() for _, rows in found for row in rows]
    missing = [name for name, rows in found if not rows] + [n for n in STUDIES if n not in dict(found)]
    return "\n\n".join([TEXT, table(HEADER, rows), *([f"Not measured: {', '.join(missing)}."] if missing else [])])


class Kept(msgspec.Struct):
    """What a study found, and the code that found it."""

    mark: str
    rows: list[Row]


@dataclasses.dataclass(frozen=True)
class Study:
    """One run of one study.

    Attributes:
        name: Of the study.
        folder: Where weights, bundles and rows are kept.
        mark: Of the code: a bundle made by other code is made again.
        only_train: Stop when everything is there that measuring needs.
    """

    name: str
    folder: Path
    mark: str
    only_train: bool

    def bundle(self, name: str, convert: Callable[[Path], er.Bundle], weights: Sequence[Path] = ()) -> er.Bundle:
        """The bundle of that name; converted where it is missing, made by other code or of other weights."""
        out, stamp = self.folder / f"{name}.edge", self.folder / f"{name}.stamp"
        wanted = " ".join([self.mark, *(sha256(path) for path in weights)])
        if not (out.is_dir() and stamp.is_file() and stamp.read_text() == wanted):
            stamp.unlink(missing_ok=True)
            shutil.rmtree(out, ignore_errors=True)
            convert(out)
            stamp.write_text(wanted)
        return er.open_bundle(out)


def _mnist(study: Study) -> list[Row]:
    given = material.mnist(study.folder)
    return _chain(study, "CNN with 3 exits, MNIST", given, 0.5, study.folder / "mnist.safetensors")


def _resnet44(study: Study) -> list[Row]:
    given = material.resnet44(study.folder)
    n = len(given.held_labels)
    smallest = 1 - (1 - CONFIDENCE) ** (1 / (n - -(-n // folds(n))))  # certified when nothing is lost
    risks = (RISK, smallest * 1.0001)
    return _chain(study, "ResNet44, frozen body, CIFAR-10", given, 0.8, study.folder / "resnet44.safetensors", risks)


def _bert(study: Study) -> list[Row]:
    given = material.bert_small(study.folder, MATRIX / "bert_small.material" / "weights.safetensors")
    return _chain(study, "BERT-small, SST-2", given, 0.8, study.folder / "bert_small.safetensors")


def _chain(
    study: Study, name: str, given: material.Material, wanted: float, weights: Path, risks: Sequence[float] = (RISK,)
) -> list[Row]:
    bundle = study.bundle(study.name, lambda out: _convert(given, out), [weights])
    rows = []
    for graph in ("onnx.int8", "tflite.int8"):
        if study.only_train or graph not in {found.id for found in bundle.manifest.graphs}:
            continue
        with Chain(bundle, graph) as chain, er.open(bundle.root, graph=graph, threads=1) as full:
            rows += [_whole_and_early(name, wanted, chain, full, given.held, risk) for risk in risks]
    return rows


def _convert(given: material.Material, out: Path) -> er.Bundle:
    return edgekit.convert(
        given.module,
        out=out,
        calibration={key: value[:200] for key, value in given.fit.items()},
        eval={**given.held, "labels": given.held_labels},
        exits=given.exits,
        dynamic=given.dynamic,
        split_points=("none",),
    )


def _whole_and_early(name: str, wanted: float, chain: Chain, full: er.Session, held: Arrays, risk: float = RISK) -> Row:
    logits = _logits(chain, held)
    requests = [_one(held, number) for number in range(len(logits[0]))]
    return _measured(
        (name, full.graph.id),
        wanted,
        samples_of(logits, "max_softmax"),
        (lambda number: full.run(requests[number]), lambda number: chain.run(requests[number])),
        lambda thresholds, number: chain.infer(requests[number], thresholds),
        risk,
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
    whole: Sequence[Request],
    early: Callable[[Sequence[float], int], object],
    risk: float = RISK,
) -> Row:
    """Time and certificate of one student.

    Args:
        name: Of the student, and of its graph.
        wanted: Largest ratio that meets the target.
        samples: Scores and losses of all held-back samples.
        whole: Ways to run the full model on one of them; the fastest counts.
        early: Runs one of them at thresholds.
        risk: To certify.
    """
    path = common_path(len(samples.scores))
    order = np.random.default_rng(0).permutation(samples.n)
    times, losses, fractions = [], [], []
    parts = folds(samples.n)
    for fold in range(parts):
        test = order[fold::parts]
        rest = np.setdiff1d(order, test)
        certified = certify(samples.rows(rest), path, risk, CONFIDENCE)
        lost, left = outcome(samples.rows(test), certified.thresholds)
        losses.append(lost)
        fractions.append(np.asarray(left) * len(test))
        calls = (*whole, lambda i, t=certified.thresholds: early(t, i))
        times.append(_times(calls, test[: max(TIMED // parts, 1)]))
    *wholes, early_us = np.concatenate(times, axis=1).mean(1)
    full_us = min(wholes)
    return Row(
        name=name[0],
        chain=name[1],
        wanted=wanted,
        ratio=float(early_us / full_us),
        full_us=float(full_us),
        early_us=float(early_us),
        disagreement=float(np.concatenate(losses).mean()),
        fractions=tuple(np.sum(fractions, axis=0) / samples.n),
        exceeded=_exceeded(samples, path, risk),
        risk=risk,
        n=samples.n,
    )


def _times(calls: Sequence[Request], numbers: Sequence[int]) -> np.ndarray:
    """Least time of each request by each call, all in alternation, µs [calls, requests]."""
    found = np.full((len(calls), len(numbers)), np.inf)
    for _ in range(ROUNDS):
        for at, number in enumerate(numbers):
            for row, call in enumerate(calls):
                start = time.perf_counter_ns()
                call(int(number))
                found[row, at] = min(found[row, at], (time.perf_counter_ns() - start) / 1e3)
    return found


def folds(n: int) -> int:
    """Parts of n samples: 5, or 20 where only that leaves enough for a certificate that bears one loss."""
    return 5 if exact_binomial(1, n - -(-n // 5), RISK) <= 1 - CONFIDENCE else 20


def _exceeded(samples: Samples, path: np.ndarray, risk: float) -> float:
    """Share of re-drawn calibration sets whose thresholds have more than the risk on the whole population."""
    true = np.array([outcome(samples, thresholds)[0].mean() for thresholds in path])
    rng = np.random.default_rng(1)
    count = 0
    for _ in range(REDRAWS):
        step = certify(samples.rows(rng.integers(0, samples.n, samples.n)), path, risk, CONFIDENCE).step
        count += step >= 0 and true[step] > risk
    return count / REDRAWS


def _cascade(study: Study) -> list[Row]:
    """Text CNN first, BERT-small for what it is unsure of; BERT-small's own graph is the one with exits, run whole."""
    small = material.bert_small(study.folder, MATRIX / "bert_small.material" / "weights.safetensors")
    bert = study.bundle("bert_small", lambda out: _convert(small, out), [study.folder / "bert_small.safetensors"])
    place = MATRIX / "text_cnn.material"
    if not (place / "eval.npz").is_file():
        train("text_cnn", place)
    cheap_bundle = study.bundle("text_cnn", lambda out: _text_cnn(place, out), [place / "weights.safetensors"])
    if study.only_train:
        return []
    ids = read_arrays(place / "eval.npz")["ids"]
    names = {graph.id for graph in cheap_bundle.manifest.graphs}
    graph = "onnx.int8" if "onnx.int8" in names else "onnx.fp32"
    with er.open(cheap_bundle.root, graph=graph, threads=1) as cheap, Chain(bert, "onnx.int8") as full:
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
        name = ("text CNN, then BERT-small, SST-2", "onnx.int8")
        return [_measured(name, 0.5, samples, (lambda i: full.run(requests[i][1]),), early)]


def _text_cnn(place: Path, out: Path) -> er.Bundle:
    return edgekit.convert(
        RECIPES["text_cnn"].source,
        out=out,
        weights=place / "weights.safetensors",
        calibration=place / "calib.npz",
        eval=place / "eval.npz",
        dynamic=("ids:0=B:1-64", f"ids:1=T:1-{LONGEST_SENTENCE}"),
        formats=("onnx",),
        split_points=("none",),
    )


STUDIES: dict[str, Callable[[Study], list[Row]]] = {
    "mnist": _mnist,
    "resnet44": _resnet44,
    "bert_small": _bert,
    "cascade": _cascade,
}
