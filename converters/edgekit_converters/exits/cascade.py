"""Certified thresholds for two students, the cheaper one first.

data ─┬─ first.NAME (or its own tokenizer) ─► small ─► logits ─┐
      └─ NAME ─────────────────────────────► full  ─► logits ─┴─ certify, each risk ─► operating points with `first`

Each sample is run alone, as a request is. The small student is tied to the operating point by its bundle's id.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np

from edgekit_converters.captured import Arrays
from edgekit_converters.data import Encode, load_samples
from edgekit_converters.exits.certify import Samples, certify, common_path, fitted_path, samples_needed
from edgekit_converters.exits.losses import samples_of
from edgekit_converters.exits.request import Found, Request, action_of, operating_point
from edgekit_runtime import engines
from edgekit_runtime import open as open_session
from edgekit_runtime.bundle import Bundle, open_bundle
from edgekit_runtime.cascade import PREFIX, check_present, digest
from edgekit_runtime.chain import exits_of
from edgekit_runtime.errors import Refused, UsageError
from edgekit_runtime.head import FILE as HEAD
from edgekit_runtime.manifest import First, Graph
from edgekit_runtime.preprocess import Preprocessor
from edgekit_runtime.session import Session

_TEXT = (".jsonl", ".txt")


@dataclasses.dataclass(frozen=True)
class _Seen:
    """What both students say of some samples: logits [samples, ..., classes], the small one's first."""

    logits: tuple[np.ndarray, np.ndarray]
    labels: np.ndarray | None
    shared: bool


def certify_cascades(bundle: Bundle, request: Request, progress: Callable[[str], None]) -> Iterator[Found]:
    """The operating points of each full graph that an engine here runs, in the order of the risks.

    Raises:
        UsageError: An output or graph that does not exist, or one that has to be named.
        Refused: The small bundle is absent or answers another question, or the data do not fit.
    """
    assert request.first is not None
    with open_bundle(check_present(request.first)) as small:
        small.check_files()
        if small.bundle_id == bundle.bundle_id:
            raise Refused("both students of the cascade are one bundle", remedy="--first SMALL.edge, a cheaper one")
        _same_question(small, bundle)
        for graph in _full(bundle):
            progress(f"certifying {graph.id}")
            yield from _certify(small, bundle, graph, request)


def _certify(small: Bundle, full: Bundle, graph: Graph, request: Request) -> Iterator[Found]:
    cheap = _like(small, graph, request.first_graph)
    output = scores_of(full, graph, request.answer)
    with (
        open_session(small.root, graph=cheap.id, engine=cheap.engine, threads=1) as first,
        open_session(full.root, graph=graph.id, engine=graph.engine, threads=1) as last,
    ):
        named = scores_of(small, cheap, output if output in {t.name for t in first.outputs} else "")
        seen = _seen(first, last, request.data, (named, output))
        fit = _seen(first, last, request.fit, (named, output)) if request.fit else None
    rule = request.rule or "max_softmax"
    labels = None if request.agreement else seen.labels
    samples = samples_of(seen.logits, rule, labels)
    path = common_path(2) if fit is None else fitted_path(_samples(fit, rule, labels is not None))
    told = First(
        name=small.manifest.name,
        bundle_id=small.bundle_id,
        graph=cheap.id,
        sha256=cheap.sha256,
        output=named,
        shared=seen.shared,
    )
    for risk in request.risks:
        certified = certify(samples, path, risk, request.confidence)
        point = operating_point(
            f"{graph.id}.cascade.{told.name}.risk{risk:g}",
            samples,
            certified,
            risk,
            request.confidence,
            graph_chain=(graph.id,),
            labels=labels is not None,
            of=graph.id,
            score_rule=rule,
            chain_sha256=digest(told, graph.sha256),
            output=output,
            first=told,
        )
        action = None if certified.reason else action_of(point, seen.logits, labels, certified)
        yield Found(point, action, certified.reason, samples_needed(risk, request.confidence))


def _samples(seen: _Seen, rule: str, labelled: bool) -> Samples:
    return samples_of(seen.logits, rule, seen.labels if labelled else None)


def _full(bundle: Bundle) -> list[Graph]:
    """The graphs of a student that answer a whole request with scores, and that an engine here runs."""
    manifest = bundle.manifest
    why = ""
    if manifest.states:
        why = "is a streaming student: its requests are steps"
    elif manifest.decoding is not None:
        why = "makes sequences: it has no scores of classes"
    elif bundle.file(HEAD) is not None:
        why = "gives embeddings, and its classes come from a head beside the graphs"
    if why:
        raise Refused(f"{bundle.root.name} {why}", remedy="a cascade takes two classifiers")
    found = [g for g in manifest.graphs if g.role == "full" and engines.for_format(g.format)]
    if not found:
        formats: set[str] = {g.format for g in manifest.graphs if g.role == "full"}
        raise Refused(
            f"no engine is installed that runs {bundle.root.name}", remedy=engines.pip_lines(formats) or "convert again"
        )
    return found


def _like(small: Bundle, graph: Graph, named: str) -> Graph:
    """The small student's graph that goes with one of the full student's: named, of the same id, format, or any."""
    found = _full(small)
    if named:
        known = [g for g in found if g.id == named]
        if not known:
            raise UsageError(
                f"--first-graph {named}: {small.root.name} has no such full graph that runs here",
                remedy=f"it has: {', '.join(g.id for g in found)}",
            )
        return known[0]
    failed = {row.graph for row in small.manifest.quality if row.gate == "failed"}
    passed = [g for g in found if g.id not in failed] or found
    return min(passed, key=lambda g: (g.id != graph.id, g.format != graph.format, g.precision != "int8"))


def scores_of(bundle: Bundle, graph: Graph, name: str) -> str:
    """The output of a classifier that holds the scores of its full answer.

    Raises:
        UsageError: There is no such output, or it has to be named.
    """
    exits = exits_of(bundle.manifest, graph.id)
    names = [tensor.name for tensor in graph.outputs]
    if not name and exits:
        return exits[-1].output
    if name in names or (not name and len(names) == 1):
        return name or names[0]
    told = f"{graph.id} of {bundle.root.name} has " + (f"no output {name!r}" if name else f"{len(names)} outputs")
    raise UsageError(told, remedy=f"name the one with the scores with --answer: {', '.join(names)}")


def _same_question(small: Bundle, full: Bundle) -> None:
    """Refuses students whose labels differ; those without labels are compared by the number of their scores."""
    files = [bundle.file("assets/labels.txt") for bundle in (small, full)]
    if not (files[0] and files[1]):
        return
    mine, theirs = (file.read_text(encoding="utf-8").splitlines() for file in files if file)
    if mine != theirs:
        place = next((i for i, pair in enumerate(zip(mine, theirs, strict=False)) if pair[0] != pair[1]), None)
        told = f"{len(mine)} and {len(theirs)}"
        if place is not None:
            told = f"label {place} is {mine[place]!r} and {theirs[place]!r}"
        raise Refused(
            f"the labels of {small.root.name} and {full.root.name} differ: {told}",
            remedy="both students must answer with the same labels in the same order",
        )


def _seen(first: Session, last: Session, path: Path, outputs: tuple[str, str]) -> _Seen:
    pairs, labels, shared = _pairs(first, last, path)
    said: tuple[list[np.ndarray], list[np.ndarray]] = ([], [])
    for mine, own in pairs:
        said[0].append(first.run(mine)[outputs[0]])
        said[1].append(last.run(own)[outputs[1]])
        shapes = said[0][-1].shape, said[1][-1].shape
        if shapes[0] != shapes[1] or len(shapes[0]) < 2:
            raise Refused(
                f"the answers do not match: {outputs[0]} of the first student is {list(shapes[0])}, "
                f"{outputs[1]} of the full one {list(shapes[1])}",
                remedy="both must give scores of the same classes, [samples, classes]",
            )
    return _Seen((np.concatenate(said[0]), np.concatenate(said[1])), labels, shared)


def _pairs(first: Session, last: Session, path: Path) -> tuple[list[tuple[Arrays, Arrays]], np.ndarray | None, bool]:
    """Inputs of both students for each sample, the labels, and whether both take the very same arrays."""
    mine, theirs = ([tensor.name for tensor in session.inputs] for session in (first, last))
    if path.suffix in _TEXT:
        samples = load_samples(path, role="certification", encode=_encoder(last))
        again = load_samples(path, role="certification", encode=_encoder(first)).inputs
        pairs = list(zip(again, samples.inputs, strict=True))
        return pairs, samples.labels, all(_within(*pair) for pair in pairs)
    samples = load_samples(path, role="certification")
    held = samples.inputs[0]
    prefixed = any(name.startswith(PREFIX) for name in held)
    wanted = [*theirs, *(f"{PREFIX}{name}" if prefixed else name for name in mine)]
    missing = [name for name in dict.fromkeys(wanted) if name not in held]
    if missing:
        raise Refused(
            f"{path.name} lacks {', '.join(missing)}; it holds {', '.join(held) or 'nothing'}",
            remedy=f"arrays of the full student ({', '.join(theirs)}) and of the first one "
            f"({', '.join(PREFIX + name for name in mine)}), samples first; or FILE.jsonl with raw texts",
        )
    before = PREFIX if prefixed else ""
    pairs = [({n: row[before + n] for n in mine}, {n: row[n] for n in theirs}) for row in samples.inputs]
    return pairs, samples.labels, not prefixed


def _encoder(session: Session) -> Encode:
    """Of raw texts, by the student's own preprocessing; what it refuses names the student: there are two."""
    assert session.bundle is not None
    name = session.bundle.manifest.name
    made = Preprocessor.of(session.bundle, session.inputs)

    def encode(text: str) -> Arrays:
        try:
            return made.encode({"text": text})
        except Refused as error:
            raise Refused(f"{name}: {error.message}", remedy=error.remedy) from error

    return encode


def _within(mine: Arrays, theirs: Arrays) -> bool:
    """Does the small student take arrays that the full one takes, too?"""
    return all(
        name in theirs and array.dtype == theirs[name].dtype and np.array_equal(array, theirs[name])
        for name, array in mine.items()
    )
