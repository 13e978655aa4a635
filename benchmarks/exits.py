"""Early exits and cascades: mean time per request at a certified risk, and whether the certificate keeps its word.

python -m benchmarks exits                  all studies; those that were measured by this code are read again
python -m benchmarks exits resnet44 mnist   these
--train     only what measuring needs: weights and bundles, kept under build/exits
--untimed   shares, thresholds and risks only: what a busy machine cannot change; a later run adds the times
--fresh     measure again

A study that cannot run says why, and the others go on.
"""

from __future__ import annotations

import argparse
import dataclasses
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path

import msgspec
import numpy as np
from torch import nn

import edgekit
import edgekit_runtime as er
from benchmarks import exits_material as material
from benchmarks.exits_first import NAME as FIRST
from benchmarks.exits_first import first_cnn
from benchmarks.exits_rows import CONFIDENCE, HEADER, REDRAWS, RISK, ROUNDS, Row, measured, smallest_risk
from benchmarks.fingerprint import of_code
from benchmarks.page import table
from edgekit.students import word_pieces
from edgekit_converters.exits.losses import samples_of
from edgekit_runtime.chain import Chain
from edgekit_runtime.errors import EdgekitError
from edgekit_runtime.exits import Cascade
from edgekit_runtime.paths import sha256

Arrays = dict[str, np.ndarray]
ROOT = Path(__file__).parent.parent
FOLDER, MATRIX = ROOT / "build" / "exits", ROOT / "build" / "matrix"
BUNDLES = (
    "converters", "runtime", "edgekit/converting.py", "edgekit/training", "edgekit/students",
    "benchmarks/exits_material.py", "benchmarks/exits_first.py",
)  # fmt: skip
ROWS = (*BUNDLES, "benchmarks/exits.py", "benchmarks/exits_rows.py")
# ResNet44: the smallest risk that its samples can certify, that of all others, and one that bears a few losses.
LOOSE = 0.02

TEXT = (
    f"The loss is disagreement with the full int8 model, confidence {CONFIDENCE}. Thresholds are certified on all but "
    "one of the parts of the held-back samples and used on that one; times are means over requests of one sample, one "
    "thread, full model and exits in alternation, the least of "
    f"{ROUNDS} rounds for each request. The full model is run without its exit heads, as one graph or as its chain, "
    "whichever is faster. There are 5 parts, or where 5 would leave too few samples for a certificate that bears one "
    f"loss, 20. Risk exceeded: share of {REDRAWS} re-draws of as many calibration "
    "samples (with replacement) whose certified thresholds have more than the risk on all held-back samples; "
    "allowed is 5 % and three standard errors. ResNet44 has three risks: the smallest that 475 of its 500 samples can "
    "certify (not one of them may disagree), that of the other students, and a larger one."
)


class Kept(msgspec.Struct):
    """What a study found, the code and weights that found it, and why it found nothing."""

    mark: str
    timed: bool
    rows: list[Row]
    trouble: str = ""


def run(words: Sequence[str] = ()) -> str:
    parser = argparse.ArgumentParser(prog="python -m benchmarks exits")
    parser.add_argument("studies", nargs="*", choices=[[], *STUDIES], metavar="STUDY", help=", ".join(STUDIES))
    parser.add_argument("--train", action="store_true", help="only train and convert what is missing")
    parser.add_argument("--untimed", action="store_true", help="no times: shares, thresholds and risks only")
    parser.add_argument("--fresh", action="store_true", help="measure again; weights stay")
    asked = parser.parse_args(words)
    FOLDER.mkdir(parents=True, exist_ok=True)
    for name in asked.studies or STUDIES:
        known = read(name)
        enough = known is not None and known.mark == _mark(name) and not known.trouble
        if enough and (known.timed or asked.untimed) and not asked.fresh and not asked.train:
            continue
        study = Study(name, FOLDER, asked.train, not asked.untimed)
        try:
            rows, trouble = STUDIES[name](study), ""
        except EdgekitError as error:
            rows, trouble = [], error.told
        if not asked.train:  # the mark is of the weights that are there now
            left = Kept(_mark(name), study.timed, rows, trouble)
            (FOLDER / f"{name}.rows.json").write_bytes(msgspec.json.encode(left))
        print(f"{name}: {trouble or ('ready' if asked.train else f'{len(rows)} rows')}", flush=True)
    return page({name: found for name in STUDIES if (found := read(name)) is not None})


def read(name: str) -> Kept | None:
    """What a study left; None where it left nothing that this code can read."""
    path = FOLDER / f"{name}.rows.json"
    try:
        return msgspec.json.decode(path.read_bytes(), type=Kept) if path.is_file() else None
    except msgspec.ValidationError:
        return None


def page(found: dict[str, Kept]) -> str:
    """The page of what the studies left."""
    rows = [row.cells() for kept in found.values() for row in kept.rows]
    missing = [f"- not measured: {name}: {found[name].trouble}" for name in found if found[name].trouble]
    missing += [f"- not measured: {name}" for name in STUDIES if name not in found]
    return "\n\n".join([TEXT, table(HEADER, rows), *(["\n".join(missing)] if missing else [])])


def _mark(name: str) -> str:
    """Digest of the code, and of the weights that a study reads."""
    read = [path for path in WEIGHTS[name] if path.is_file()]
    return of_code(ROWS, *(f"{path.name} {sha256(path)}" for path in read))


@dataclasses.dataclass(frozen=True)
class Study:
    """One run of one study.

    Attributes:
        name: Of the study.
        folder: Where weights, bundles and rows are kept.
        only_train: Stop when everything is there that measuring needs.
        timed: Take times, too.
    """

    name: str
    folder: Path
    only_train: bool
    timed: bool

    def bundle(self, name: str, convert: Callable[[Path], er.Bundle], weights: Sequence[Path] = ()) -> er.Bundle:
        """The bundle of that name; converted where it is missing, made by other code or of other weights."""
        out, stamp = self.folder / f"{name}.edge", self.folder / f"{name}.stamp"
        wanted = of_code(BUNDLES, *(sha256(path) for path in weights))
        if not (out.is_dir() and stamp.is_file() and stamp.read_text() == wanted):
            stamp.unlink(missing_ok=True)
            shutil.rmtree(out, ignore_errors=True)
            convert(out)
            stamp.write_text(wanted)
        return er.open_bundle(out)


def _mnist(study: Study) -> list[Row]:
    given = material.mnist(study.folder)
    return _chain(study, "CNN with 3 exits, MNIST", given, 0.5)


def _resnet44(study: Study) -> list[Row]:
    given = material.resnet44(study.folder)
    risks = (smallest_risk(len(given.held_labels)), RISK, LOOSE)
    return _chain(study, "ResNet44, frozen body, CIFAR-10", given, 0.8, risks)


def _bert(study: Study) -> list[Row]:
    return _chain(study, "BERT-small, SST-2", material.bert("bert_small", study.folder, BERT), 0.8)


def _chain(
    study: Study, name: str, given: material.Material, wanted: float, risks: Sequence[float] = (RISK,)
) -> list[Row]:
    bundle = study.bundle(study.name, lambda out: _convert(given, out), [study.folder / f"{study.name}.safetensors"])
    rows = []
    for graph in ("onnx.int8", "tflite.int8"):
        if study.only_train or graph not in {found.id for found in bundle.manifest.graphs}:
            continue
        with Chain(bundle, graph) as chain, er.open(bundle.root, graph=graph, threads=1) as full:
            rows += _whole_and_early((name, graph), wanted, chain, full, given.held, risks, study.timed)
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


def _whole_and_early(
    name: tuple[str, str],
    wanted: float,
    chain: Chain,
    full: er.Session,
    held: Arrays,
    risks: Sequence[float],
    timed: bool,
) -> list[Row]:
    requests = [_one(held, number) for number in range(len(next(iter(held.values()))))]
    logits = [np.concatenate(rows) for rows in zip(*(chain.scores(request) for request in requests), strict=True)]
    whole = (lambda number: full.run(requests[number]), lambda number: chain.run(requests[number]))
    calls = (whole, lambda thresholds, number: chain.infer(requests[number], thresholds)) if timed else None
    return [measured(name, wanted, samples_of(logits, "max_softmax"), calls, risk) for risk in risks]


def _one(held: Arrays, number: int) -> Arrays:
    """One request; a text without its padding."""
    found = {name: array[number : number + 1] for name, array in held.items()}
    if "mask" in found:
        length = max(int(found["mask"].sum()), 1)
        return {name: np.ascontiguousarray(array[:, :length]) for name, array in found.items()}
    return found


def _cascade(study: Study) -> list[Row]:
    """Text CNN first, BERT-small for what it is unsure of; BERT-small's own graph is the one with exits, run whole."""
    small = material.bert("bert_small", study.folder, BERT)
    weights = study.folder / "bert_small.safetensors"
    bert = study.bundle("bert_small", lambda out: _convert(small, out), [weights])
    student = first_cnn(study.folder, bert, weights)
    cheap = study.bundle(FIRST, lambda out: _first(student, small, out), [study.folder / f"{FIRST}.safetensors"])
    if study.only_train:
        return []
    return cascade_rows("text CNN, then BERT-small, SST-2", cheap, bert, small.held, study.timed)


def cascade_rows(name: str, cheap_bundle: er.Bundle, bert: er.Bundle, held: Arrays, timed: bool) -> list[Row]:
    """A cascade of two bundles on the development sentences of SST-2.

    Args:
        name: For the row.
        cheap_bundle: Of the text CNN.
        bert: What answers those that the text CNN is unsure of.
        held: The sentences as word pieces, which both read.
        timed: Take times, too.
    """
    with er.open(cheap_bundle.root, graph="onnx.int8", threads=1) as cheap, Chain(bert, "onnx.int8") as full:
        last = full.exits[-1].output
        requests = [_one(held, number) for number in range(len(held["ids"]))]
        pairs = [({"ids": request["ids"]}, request) for request in requests]
        logits = [
            np.concatenate([cheap.run(mine)["output"] for mine, _ in pairs]),
            np.concatenate([full.run(request)[last] for request in requests]),
        ]

        made: dict[tuple[float, ...], Cascade] = {}  # as a session has them: once

        def early(thresholds: Sequence[float], number: int) -> object:
            key = tuple(thresholds)
            if key not in made:
                made[key] = Cascade([cheap, full], ["output", last], thresholds)
            return made[key].run(pairs[number])

        calls = ((lambda number: full.run(requests[number]),), early) if timed else None
        return [measured((name, "onnx.int8"), 0.5, samples_of(logits, "max_softmax"), calls)]


def _first(student: nn.Module, small: material.Material, out: Path) -> er.Bundle:
    return edgekit.convert(
        student,
        out=out,
        calibration={"ids": small.fit["ids"][:200]},
        eval={"ids": small.held["ids"], "labels": small.held_labels},
        dynamic=("ids:0=B:1-64", f"ids:1=T:1-{word_pieces.LONGEST}"),
        formats=("onnx",),
        split_points=("none",),
    )


BERT = MATRIX / "bert_small.material" / "weights.safetensors"
STUDIES: dict[str, Callable[[Study], list[Row]]] = {
    "mnist": _mnist,
    "resnet44": _resnet44,
    "bert_small": _bert,
    "cascade": _cascade,
}
# What the rows of each study hang on beside code.
WEIGHTS = {
    "mnist": (FOLDER / "mnist.safetensors",),
    "resnet44": (FOLDER / "resnet44.safetensors",),
    "bert_small": (BERT, FOLDER / "bert_small.safetensors"),
    "cascade": (BERT, FOLDER / "bert_small.safetensors", FOLDER / f"{FIRST}.safetensors"),
}
