"""`edgekit calibrate-exits`: a bundle with exits becomes a bundle with certified operating points.

bundle ─ every chain of graphs with exits ─► scores on the data ─ certify, each risk ─► operating points ─► new bundle
       └ every graph of a stream, `steps` ──────────▲
"""

from __future__ import annotations

import dataclasses
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path

import msgspec
import numpy as np

from edgekit_converters.captured import Arrays
from edgekit_converters.exits.certify import (
    Certified,
    Samples,
    certify,
    common_path,
    fitted_path,
    left_at,
    outcome,
    samples_needed,
)
from edgekit_converters.exits.combine import combine
from edgekit_converters.exits.losses import samples_of
from edgekit_converters.exits.temporal import answer_of, logits_of_steps, step_inputs
from edgekit_converters.staging import staging
from edgekit_runtime import engines
from edgekit_runtime.bundle import Bundle, open_bundle, read_arrays
from edgekit_runtime.chain import Chain, chain_of, exits_of
from edgekit_runtime.errors import Refused, UsageError
from edgekit_runtime.exits import spoken
from edgekit_runtime.manifest import Action, Manifest, OperatingPoint
from edgekit_runtime.temporal import LAST, MEAN, digest

_AT_ONCE = 32


@dataclasses.dataclass(frozen=True)
class Request:
    """What a person asks of `calibrate-exits`.

    Attributes:
        data: `.npz` with the inputs, samples first, and perhaps `labels`.
        risks: Each becomes an operating point.
        confidence: 1 - delta.
        fit: `.npz` of other samples on which the path of thresholds is fitted; None: one threshold for all exits.
        agreement: Certify agreement with the full model even where the data have labels.
        combine: Let exits speak together; needs `fit`.
        rule: How sure an exit is; see `edgekit_runtime.exits.SCORES`.
        steps: For a streaming student, whose data are [samples, steps, ...]: the exits are its steps, and a sequence is
            answered with the logits of the step reached (`last`) or the mean of those so far (`mean`). Empty: exits in
            depth.
        answer: For a stream: output that holds the logits; empty: the only one that is no state.
    """

    data: Path
    risks: tuple[float, ...] = (0.005, 0.01, 0.02)
    confidence: float = 0.95
    fit: Path | None = None
    agreement: bool = False
    combine: bool = False
    rule: str = ""
    steps: str = ""
    answer: str = ""

    def check(self) -> None:
        """Refuses what cannot be meant.

        Raises:
            UsageError: A risk or confidence outside (0, 1), `combine` without `fit`, or `steps` that mean nothing.
        """
        if self.steps not in ("", LAST, MEAN):
            raise UsageError(
                f"--steps {self.steps}", remedy=f"{LAST} (the step reached) or {MEAN} (of all steps so far)"
            )
        if self.steps and self.combine:
            raise UsageError(
                "--combine is for exits in depth", remedy=f"--steps {MEAN} already lets steps speak together"
            )
        wrong = [risk for risk in self.risks if not 0 < risk < 1]
        if wrong or not self.risks:
            raise UsageError(f"--risk {wrong[0] if wrong else '(empty)'}", remedy="shares between 0 and 1: 0.005,0.01")
        if not 0 < self.confidence < 1:
            raise UsageError(f"--confidence {self.confidence}", remedy="a number between 0 and 1, for example 0.95")
        if self.combine and self.fit is None:
            raise UsageError(
                "--combine searches weights, and may not search them on the data it certifies",
                remedy="give other samples with --fit FILE.npz",
            )


@dataclasses.dataclass(frozen=True)
class Found:
    """One operating point, or why there is none.

    Attributes:
        point: The operating point; its thresholds are above 1 (never exit) where nothing was certified.
        action: The way to answer that uses it; None where nothing was certified, and for a stream: a request there is
            one step, and its plan does not change.
        reason: Why nothing could be certified; empty otherwise.
        samples_needed: With how many samples this risk can be certified at best (no loss seen).
    """

    point: OperatingPoint
    action: Action | None
    reason: str
    samples_needed: int


def calibrate_exits(
    path: Path, out: Path, request: Request, progress: Callable[[str], None], *, force: bool = False
) -> tuple[Bundle, tuple[Found, ...]]:
    """Certifies thresholds for every chain of a bundle and writes a new bundle with them.

    Raises:
        UsageError: A risk or confidence that is none, or a target that exists.
        Refused: The bundle has no exits, or the data do not fit.
    """
    request.check()
    with open_bundle(path) as bundle:
        bundle.check_files()
        found: list[Found] = []
        for graph in _chains(bundle, request.steps):
            progress(f"certifying {graph}")
            found += (certify_stream if request.steps else certify_chain)(bundle, graph, request)
        with staging(out, force=force) as stage:
            for name in bundle.manifest.files:
                target = stage.root / name
                target.parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(bundle.root / name, target)
            stage.write_manifest(_with(bundle.manifest, found, out.stem if out.stem else bundle.manifest.name))
            return open_bundle(stage.publish()), tuple(found)


def _chains(bundle: Bundle, steps: str) -> list[str]:
    """The full graphs that an engine here runs and that have exits: in depth, or with `steps` in time."""
    manifest = bundle.manifest
    runs = [g.id for g in manifest.graphs if g.role == "full" and engines.for_format(g.format)]
    if steps:
        if not manifest.states:
            raise Refused(
                f"{bundle.root.name} is no streaming student: it tells no states",
                remedy="leave --steps out, or convert the single-step form with --state INPUT=OUTPUT",
            )
        return runs
    chains = [name for name in runs if len(exits_of(manifest, name)) > 1]
    if not chains:
        stream = "; or --steps last: this is a streaming student" if manifest.states else ""
        raise Refused(
            f"{bundle.root.name} has no exits that were cut",
            remedy=f"convert with --exits A,B,C: outputs in order of depth, the full answer last{stream}",
        )
    return chains


def _with(manifest: Manifest, found: Sequence[Found], name: str) -> Manifest:
    """The manifest with new operating points; those of the same chains go."""
    chains = {(item.point.of, bool(item.point.steps)) for item in found}
    old = {point.id for point in manifest.operating_points if (point.of, bool(point.steps)) in chains}
    certified = [item for item in found if not item.reason]
    return msgspec.structs.replace(
        manifest,
        operating_points=(
            *(point for point in manifest.operating_points if point.id not in old),
            *(item.point for item in certified),
        ),
        actions=(
            *(action for action in manifest.actions if action.operating_point not in old or not action.operating_point),
            *(item.action for item in certified if item.action is not None),
        ),
    )


def certify_chain(bundle: Bundle, graph: str, request: Request) -> list[Found]:
    """The operating points of one chain of graphs, in the order of the risks."""
    names = [tensor.name for tensor in bundle.manifest.inputs]
    arrays, labels = _read(request.data, names)
    labels = None if request.agreement else labels
    exits = exits_of(bundle.manifest, graph)
    rule = request.rule or exits[0].score_rule
    with Chain(bundle, graph, engine=bundle.graph(graph).engine) as chain:
        logits = _scores(chain, arrays)
        fit = _read(request.fit, names) if request.fit else None
        fit_logits = _scores(chain, fit[0]) if fit else None
    fit_labels = fit[1] if fit and labels is not None else None
    ids, digest = chain_of(bundle.manifest, graph)
    costs = _costs(bundle.manifest, graph)
    found = []
    for risk in request.risks:
        mixes: tuple[tuple[float, ...], ...] = ()
        if request.combine and fit_logits is not None:
            mixes = combine(fit_logits, rule, costs, risk, labels=fit_labels)
        samples = samples_of(logits, rule, labels, mixes)
        path = common_path(len(exits))
        if fit_logits is not None:
            path = fitted_path(samples_of(fit_logits, rule, fit_labels, mixes))
        certified = certify(samples, path, risk, request.confidence)
        point = OperatingPoint(
            id=f"{graph}.risk{risk:g}",
            graph_chain=ids,
            thresholds=certified.thresholds,
            risk=risk,
            confidence_level=request.confidence,
            n=samples.n,
            empirical_risk=certified.empirical_risk,
            exit_fractions=certified.exit_fractions,
            labels=labels is not None,
            of=graph,
            mixes=mixes,
            chain_sha256=digest,
            score_rule=rule,
        )
        action = None if certified.reason else _action(point, logits, labels, certified)
        found.append(Found(point, action, certified.reason, samples_needed(risk, request.confidence)))
    return found


def certify_stream(bundle: Bundle, graph: str, request: Request) -> list[Found]:
    """The operating points of one graph of a streaming student, in the order of the risks."""
    manifest, own = bundle.manifest, bundle.graph(graph)
    names = [tensor.name for tensor in step_inputs(manifest)]
    answer, rule = answer_of(manifest, request.answer), request.rule or "max_softmax"

    def seen(path: Path) -> Samples:
        arrays, labels = _read(path, names)
        logits = logits_of_steps(bundle, graph, arrays, request.steps, answer)
        return samples_of(logits, rule, None if request.agreement else labels)

    samples = seen(request.data)
    labelled = not request.agreement and "labels" in read_arrays(request.data)
    path = fitted_path(seen(request.fit)) if request.fit else common_path(len(samples.scores))
    found = []
    for risk in request.risks:
        certified = certify(samples, path, risk, request.confidence)
        point = OperatingPoint(
            id=f"{graph}.steps.risk{risk:g}",
            graph_chain=(graph,),
            thresholds=certified.thresholds,
            risk=risk,
            confidence_level=request.confidence,
            n=samples.n,
            empirical_risk=certified.empirical_risk,
            exit_fractions=certified.exit_fractions,
            labels=labelled,
            of=graph,
            chain_sha256=digest(own),
            score_rule=rule,
            steps=request.steps,  # type: ignore[arg-type]
            output=answer,
        )
        found.append(Found(point, None, certified.reason, samples_needed(risk, request.confidence)))
    return found


def _read(path: Path, names: Sequence[str]) -> tuple[Arrays, np.ndarray | None]:
    arrays = read_arrays(path)
    labels = arrays.pop("labels", None)
    missing = [name for name in names if name not in arrays]
    if missing:
        raise Refused(
            f"{path.name} lacks {', '.join(missing)}; it holds {', '.join(arrays) or 'nothing'}",
            remedy=f"arrays named {', '.join(names)}, samples first",
        )
    found = {name: arrays[name] for name in names}
    counts = {name: len(array) for name, array in found.items()} | (
        {"labels": len(labels)} if labels is not None else {}
    )
    if len(set(counts.values())) > 1:
        told = ", ".join(f"{name} {count}" for name, count in counts.items())
        raise Refused(
            f"{path.name} holds different numbers of samples: {told}", remedy="samples are the first axis of each"
        )
    return found, labels


def _scores(chain: Chain, arrays: Arrays) -> list[np.ndarray]:
    """Logits of every exit on every sample."""
    count = len(next(iter(arrays.values())))
    parts = []
    for start in range(0, count, _AT_ONCE):
        parts.append(chain.scores({name: array[start : start + _AT_ONCE] for name, array in arrays.items()}))
    return [np.concatenate(rows) for rows in zip(*parts, strict=True)]


def _costs(manifest: Manifest, graph: str) -> list[float]:
    """MACs spent when leaving at each exit, the heads passed on the way counted."""
    macs = {g.id: g.macs or 0 for g in manifest.graphs}
    points = {point.id: point for point in manifest.split_points}
    spent, heads = [], 0
    exits = exits_of(manifest, graph)
    for item in exits[:-1]:
        heads += macs.get(item.graph, 0)
        spent.append(float(points[item.after].macs_before + heads))
    last = points[exits[0].after]
    return [*spent, float(last.macs_before + last.macs_after + heads)]


def _action(
    point: OperatingPoint, logits: Sequence[np.ndarray], labels: np.ndarray | None, certified: Certified
) -> Action:
    """The way to answer at this operating point, with what it loses on the data and an interval."""
    samples = samples_of(logits, point.score_rule, labels, point.mixes)
    n = samples.n
    if labels is None:
        drops = outcome(samples, certified.thresholds)[0]
    else:
        said = spoken(logits, point.mixes)
        right = np.stack([(one.argmax(-1) == labels).reshape(n, -1).mean(1) for one in said])
        drops = right[-1] - right[left_at(samples, certified.thresholds), np.arange(n)]
    mean = float(drops.mean())
    half = 1.96 * float(drops.std(ddof=1)) / n**0.5 if n > 1 else 1.0
    # With no difference seen at all, the rule of three bounds what may still be there.
    half = max(half, 3.0 / n)
    return Action(
        id=f"{point.of}.exit.risk{point.risk:g}",
        kind="exit",
        graphs=point.graph_chain,
        operating_point=point.id,
        accuracy_drop=mean,
        interval_95=(mean - half, mean + half),
        n=n,
    )
