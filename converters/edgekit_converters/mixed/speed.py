"""Gives operators back whose int8 form does not pay, and sees to it that no int8 graph ships that is slower than fp32.

    int8 against fp32 ──► 1.5 times faster or more: done, what could still be gained is small
         │ less
         ▼
    families of like operators, the cheapest first: int8 weights with fp32 arithmetic instead; kept where it is faster
         │ still slower than fp32
         ▼
    all of them with fp32 arithmetic (int8 weights) ──► not slower: ships, a quarter of the bytes
         │ slower
         ▼
    fp32 ships alone

Two graphs count as different when the interval of their ratio leaves 1 by more than `MARGIN` and their medians differ
by more than `FLOOR_MS`: below that the same decision would not come out twice, and no caller would notice.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable

import numpy as np

from edgekit_converters.captured import Arrays, Captured
from edgekit_converters.draft import Draft, Progress
from edgekit_converters.mixed.costs import Costs, Duel, name_of
from edgekit_converters.mixed.quality import Make, storable
from edgekit_converters.mixed.trial import opened
from edgekit_converters.promise import FOR_SPEED
from edgekit_converters.recipe.types import Given, Recipe, Scheme
from edgekit_runtime.selection import short_measure

ENOUGH = 1.5
MARGIN = 0.02
FLOOR_MS = 0.01
# Graphs below this are not searched family by family: what could be gained lies below the floor.
WORTH_MS = 0.1
MOST_FAMILIES = 6
_BUDGET_S = 1.5
_RESAMPLES = 500
_COMPUTES = ("static", "dynamic_row", "dynamic_tensor")


def faster(duel: Duel) -> bool:
    """Whether `after` is faster than `before`, beyond doubt and beyond the floor."""
    return duel.interval_95[0] > 1 + MARGIN and duel.before_ms - duel.after_ms > FLOOR_MS


def slower(duel: Duel) -> bool:
    """Whether `after` is slower than `before`, beyond doubt and beyond the floor."""
    return duel.interval_95[1] < 1 - MARGIN and duel.after_ms - duel.before_ms > FLOOR_MS


def time_duel(student: Captured, before: Draft, after: Draft, inputs: Arrays) -> Duel:
    """Times two drafts in alternation, one thread, on one request."""
    with opened(student, before) as old, opened(student, after) as new:

        def start(run: Callable[[Arrays], object]) -> Callable[[], Callable[[], object]]:
            for _ in range(3):  # here, not in the budget: a large student would use it up before both have run
                run(inputs)
            return lambda: lambda: run(inputs)

        seen = short_measure({("before", ""): start(old.run), ("after", ""): start(new.run)}, budget_s=_BUDGET_S)
    return duel_of(seen[("before", "")], seen[("after", "")])


def duel_of(before_ms: list[float], after_ms: list[float]) -> Duel:
    """The ratio of medians with a bootstrap interval over rounds (Efron and Tibshirani 1993, ch. 13)."""
    a, b = np.asarray(before_ms), np.asarray(after_ms)
    picks = np.random.default_rng(0).integers(0, len(a), (_RESAMPLES, len(a)))
    ratios = np.median(a[picks], axis=1) / np.median(b[picks], axis=1)
    low, high = np.quantile(ratios, [0.025, 0.975])
    old, new = float(np.median(a)), float(np.median(b))
    return Duel(before_ms=old, after_ms=new, ratio=old / new, interval_95=(float(low), float(high)))


def families(recipe: Recipe) -> list[list[str]]:
    """Operators that cost alike (kind, form, order of magnitude of their MACs), the cheapest family first."""
    groups: dict[tuple[str, str, int], list[str]] = defaultdict(list)
    for op in recipe.ops:
        if op.scheme in _COMPUTES and storable(op):
            groups[(op.kind, op.scheme, int(math.log10(op.macs + 1)))].append(op.op)
    return [groups[key] for key in sorted(groups, key=lambda key: (key[2], key[0], key[1]))][:MOST_FAMILIES]


def not_slower(
    fp32: Draft, int8: Draft, given: Given, make: Make, duel: Callable[[Draft, Draft], Duel], progress: Progress
) -> tuple[Draft | None, str]:
    """The int8 draft that is not slower than fp32, and why it ships; None and why not where there is none.

    Args:
        fp32: The float draft.
        int8: The draft that passed the gate.
        given: What was given back for quality already.
        make: Quantizes anew.
        duel: Times two drafts.
        progress: Called with a line a try.
    """
    gain = duel(fp32, int8)
    best, back = int8, dict(given)
    if gain.ratio < ENOUGH and int8.recipe is not None and gain.after_ms > WORTH_MS:
        for group in families(int8.recipe):
            trial = {**back, **_back(group)}
            progress(f"{int8.format}: is int8 faster for {len(group)} x {group[0]}?")
            draft = make(trial)
            if faster(duel(best, draft)):
                best, back = draft, trial
        gain = duel(fp32, best) if best is not int8 else gain
    if not slower(gain):
        return best, _why(best, gain)
    stored = _all_stored(int8, given, make, progress)
    if stored is not None and not slower(duel(fp32, stored)):
        return stored, "smaller than fp32 and within the gate; fp32 arithmetic: no int8 form was faster"
    return None, "int8 is slower than fp32 in every form, that of int8 weights with fp32 arithmetic too"


def _all_stored(int8: Draft, given: Given, make: Make, progress: Progress) -> Draft | None:
    if int8.recipe is None:
        return None
    progress(f"{int8.format}: int8 weights with fp32 arithmetic")
    computing = [op.op for op in int8.recipe.ops if op.scheme in _COMPUTES and storable(op)]
    return make({**given, **_back(computing)}) if computing else None


def _back(names: list[str]) -> dict[str, tuple[Scheme, str]]:
    reason = f"{FOR_SPEED}: int8 weights, fp32 arithmetic; its int8 form was not faster"
    return dict.fromkeys(names, ("weight_channel", reason))


def _why(draft: Draft, gain: Duel) -> str:
    told = "faster than fp32" if faster(gain) else "as fast as fp32"
    some = draft.recipe is not None and any(FOR_SPEED in op.reason for op in draft.recipe.ops)
    return (
        f"smaller than fp32, {told} and within the gate{'; some operators were given back for speed' if some else ''}"
    )


def timer(student: Captured, costs: Costs, inputs: Arrays) -> Callable[[Draft, Draft], Duel]:
    """A `duel` that asks the cost table first."""
    return lambda before, after: costs.duel(
        f"{name_of(before)} / {name_of(after)}", lambda: time_duel(student, before, after, inputs)
    )
