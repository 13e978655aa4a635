"""What is asked of `calibrate-exits`, what it finds, and what exits and cascades have in common there."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np

from edgekit_converters.captured import Arrays
from edgekit_converters.exits.certify import Certified, Samples, left_at, outcome
from edgekit_converters.exits.losses import samples_of
from edgekit_runtime.bundle import read_arrays
from edgekit_runtime.errors import Refused, UsageError
from edgekit_runtime.exits import spoken
from edgekit_runtime.manifest import Action, OperatingPoint
from edgekit_runtime.temporal import LAST, MEAN


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
        answer: For a stream or a cascade: output that holds the logits; empty: the only one that is no state.
        first: Bundle of a cheaper student that is asked first: a cascade of the two. None: exits.
        first_graph: For a cascade: id of its full graph; empty: the one most like the full student's.
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
    first: Path | None = None
    first_graph: str = ""

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
        if self.first is not None and (self.steps or self.combine):
            raise UsageError(
                f"--first goes without {'--steps' if self.steps else '--combine'}",
                remedy="a cascade has two students and one threshold",
            )
        if self.first_graph and self.first is None:
            raise UsageError(f"--first-graph {self.first_graph} without --first", remedy="--first SMALL.edge")
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


def read(path: Path, names: Sequence[str]) -> tuple[Arrays, np.ndarray | None]:
    """The arrays of these names and the labels of an `.npz`, samples first.

    Raises:
        Refused: One is missing, or they hold different numbers of samples.
    """
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


def operating_point(
    name: str, samples: Samples, certified: Certified, risk: float, confidence: float, **told: Any
) -> OperatingPoint:
    """An operating point from what was certified.

    Args:
        name: Its id.
        samples: On which it was certified.
        certified: Thresholds with their risk.
        risk: That was asked for.
        confidence: 1 - delta.
        told: What is its own: graphs, rule, labels and the like, as `OperatingPoint` names them.
    """
    return OperatingPoint(
        id=name,
        thresholds=certified.thresholds,
        risk=risk,
        confidence_level=confidence,
        n=samples.n,
        empirical_risk=certified.empirical_risk,
        exit_fractions=certified.exit_fractions,
        **told,
    )


def action_of(
    point: OperatingPoint, logits: Sequence[np.ndarray], labels: np.ndarray | None, certified: Certified
) -> Action:
    """The way to answer at this operating point, with what it loses on the data and an interval."""
    kind: Literal["exit", "cascade"] = "exit" if point.first is None else "cascade"
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
        id=point.id if point.first is not None else f"{point.of}.exit.risk{point.risk:g}",
        kind=kind,
        graphs=point.graph_chain,
        operating_point=point.id,
        accuracy_drop=mean,
        interval_95=(mean - half, mean + half),
        n=n,
    )
