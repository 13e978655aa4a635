"""`edgekit calibrate-exits`: a bundle with exits becomes a bundle with certified operating points.

bundle ─ every chain of graphs with exits ─► scores on the data ─ certify, each risk ─► operating points ─► new bundle
       ├ every graph of a stream, `steps` ──────────▲
       └ every full graph behind a cheaper student ─┘   (`cascade`)
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence
from pathlib import Path

import msgspec
import numpy as np

from edgekit_converters.captured import Arrays
from edgekit_converters.exits.cascade import certify_cascades
from edgekit_converters.exits.certify import Samples, certify, common_path, fitted_path, samples_needed
from edgekit_converters.exits.combine import combine
from edgekit_converters.exits.losses import samples_of
from edgekit_converters.exits.request import Found, Request, action_of, operating_point, read
from edgekit_converters.exits.temporal import answer_of, logits_of_steps, step_inputs
from edgekit_converters.staging import check_target, staging
from edgekit_runtime import engines
from edgekit_runtime.bundle import Bundle, open_bundle, read_arrays
from edgekit_runtime.chain import Chain, chain_of, exits_of
from edgekit_runtime.errors import GateFailed, Refused, UsageError
from edgekit_runtime.manifest import Manifest, OperatingPoint
from edgekit_runtime.temporal import digest

__all__ = ["Found", "Request", "calibrate_exits"]

_AT_ONCE = 32


class NothingCertified(GateFailed):
    """No risk could be certified for any chain: a bundle with the same content would only look like one with exits.

    Attributes:
        found: What was tried, with the reasons and the samples needed.
    """

    def __init__(self, found: Sequence[Found]) -> None:
        self.found = tuple(found)
        most = max(item.samples_needed for item in found)
        short = {f"risk {item.point.risk:g}: {item.reason}" for item in found}
        super().__init__(
            f"nothing could be certified, and no bundle was written: {'; '.join(sorted(short))}",
            remedy=f"certify on more samples (at least {most} samples), for a larger --risk, or train better exits",
        )


def calibrate_exits(
    path: Path, out: Path, request: Request, progress: Callable[[str], None], *, force: bool = False
) -> tuple[Bundle, tuple[Found, ...]]:
    """Certifies thresholds for every chain of a bundle, or for a cascade, and writes a new bundle with them.

    Raises:
        UsageError: A risk or confidence that is none, or a target that exists; both before anything is run.
        Refused: The bundle has no exits, or the small bundle or the data do not fit.
        NothingCertified: Not one risk of one chain could be certified; nothing is written.
    """
    request.check()
    check_target(out, force=force)
    for data in (request.data, request.fit):
        if data is not None and not data.is_file():
            raise UsageError(
                f"there is no file {data}", remedy="an .npz with samples; see edgekit calibrate-exits --help"
            )
    with open_bundle(path) as bundle:
        bundle.check_files()
        found: list[Found] = []
        if request.first is not None:
            found += certify_cascades(bundle, request, progress)
        else:
            for graph in _chains(bundle, request.steps):
                progress(f"certifying {graph}")
                found += (certify_stream if request.steps else certify_chain)(bundle, graph, request)
        if found and all(item.reason for item in found):
            raise NothingCertified(found)
        with staging(out, force=force) as stage:
            for name in bundle.manifest.files:
                target = stage.root / name
                target.parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(bundle.root / name, target)
            stage.write_manifest(_with(bundle.manifest, found))
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


def _with(manifest: Manifest, found: Sequence[Found]) -> Manifest:
    """The manifest with new operating points; those of the same chains go."""
    chains = {_kind(item.point) for item in found}
    old = {point.id for point in manifest.operating_points if _kind(point) in chains}
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


def _kind(point: OperatingPoint) -> tuple[str, bool, str | None]:
    """New operating points take the place of those of the same graph and kind, and with the same first student."""
    return point.of, bool(point.steps), None if point.first is None else point.first.name


def certify_chain(bundle: Bundle, graph: str, request: Request) -> list[Found]:
    """The operating points of one chain of graphs, in the order of the risks."""
    names = [tensor.name for tensor in bundle.manifest.inputs]
    arrays, labels = read(request.data, names)
    labels = None if request.agreement else labels
    exits = exits_of(bundle.manifest, graph)
    rule = request.rule or exits[0].score_rule
    with Chain(bundle, graph, engine=bundle.graph(graph).engine) as chain:
        logits = _scores(chain, arrays)
        fit = read(request.fit, names) if request.fit else None
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
        point = operating_point(
            f"{graph}.risk{risk:g}",
            samples,
            certified,
            risk,
            request.confidence,
            graph_chain=ids,
            labels=labels is not None,
            of=graph,
            mixes=mixes,
            chain_sha256=digest,
            score_rule=rule,
        )
        action = None if certified.reason else action_of(point, logits, labels, certified)
        found.append(Found(point, action, certified.reason, samples_needed(risk, request.confidence)))
    return found


def certify_stream(bundle: Bundle, graph: str, request: Request) -> list[Found]:
    """The operating points of one graph of a streaming student, in the order of the risks."""
    manifest, own = bundle.manifest, bundle.graph(graph)
    names = [tensor.name for tensor in step_inputs(manifest)]
    answer, rule = answer_of(manifest, request.answer), request.rule or "max_softmax"

    def seen(path: Path) -> Samples:
        arrays, labels = read(path, names)
        logits = logits_of_steps(bundle, graph, arrays, request.steps, answer)
        return samples_of(logits, rule, None if request.agreement else labels)

    samples = seen(request.data)
    labelled = not request.agreement and "labels" in read_arrays(request.data)
    path = fitted_path(seen(request.fit)) if request.fit else common_path(len(samples.scores))
    found = []
    for risk in request.risks:
        certified = certify(samples, path, risk, request.confidence)
        point = operating_point(
            f"{graph}.steps.risk{risk:g}",
            samples,
            certified,
            risk,
            request.confidence,
            graph_chain=(graph,),
            labels=labelled,
            of=graph,
            chain_sha256=digest(own),
            score_rule=rule,
            steps=request.steps,  # type: ignore[arg-type]
            output=answer,
        )
        found.append(Found(point, None, certified.reason, samples_needed(risk, request.confidence)))
    return found


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
