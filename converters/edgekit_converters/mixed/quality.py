"""Gives operators back, the noisiest first, until an int8 graph passes the gate.

    all of those that compute in int8 back: int8 weights, fp32 arithmetic ──► passes: fewer of them may do, worst first
         │ fails
         ▼
    fp32 for as many as may have it ──► passes: less fp32 arithmetic may still do, then fewer of them, worst first
         │ fails
         ▼
    nothing that may be given back mends it: said at once, after two tries

How many, is found by doubling, then between the last that failed and the first that passed by halving. A graph that
passes at once is left alone. After something was given back at most half of what is allowed may be lost, or the whole
interval must lie within it: of several tries on one set of samples one would otherwise pass by chance. Where giving
back the most is not that good, a drop that is allowed is enough. Nothing is given back beyond the point where half of
the weights would be fp32 again: such a graph is not worth shipping beside fp32.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence

from edgekit_converters.draft import Draft, Progress
from edgekit_converters.recipe.types import Given, OpDecision, Recipe, Scheme
from edgekit_runtime.manifest import Quality

GIVEN_BACK = "given back for quality"
_COMPUTES = ("static", "dynamic_row", "dynamic_tensor")
# Kinds whose weights can be stored in int8 and used in fp32; others go back altogether at once.
STORABLE = frozenset(
    {"Conv", "ConvTranspose", "Gemm", "MatMul", "LSTM", "GRU", "RNN"}
    | {"CONV_2D", "DEPTHWISE_CONV_2D", "FULLY_CONNECTED", "TRANSPOSE_CONV"}
)

Make = Callable[[Given], Draft]
Judge = Callable[[Draft], tuple[Quality, ...]]


@dataclasses.dataclass(frozen=True)
class Passed:
    """A draft and what the gate said of it."""

    draft: Draft
    quality: tuple[Quality, ...]
    given: Given

    @property
    def passes(self) -> bool:
        """The drop itself is allowed, in every group."""
        return all(q.gate == "passed" for q in self.quality)


def sure(quality: Sequence[Quality], limit: tuple[float, bool]) -> bool:
    """Whether at most half of what is allowed is lost over all samples, or the interval says so; and no group fails."""
    whole = next(q for q in quality if q.slice == "all")
    allowed = limit[0] * abs(whole.reference) if limit[1] else limit[0]
    good = whole.drop <= allowed / 2 or whole.interval_95[1] <= allowed
    return good and all(q.gate == "passed" for q in quality)


def pass_gate(
    first: Draft,
    make: Make,
    judge: Judge,
    rank: Callable[[], Mapping[str, float]],
    limit: tuple[float, bool],
    progress: Progress,
) -> Passed:
    """Finds the draft that gives back least and passes; the first draft where none does.

    Args:
        first: The int8 draft with nothing given back.
        make: Quantizes anew with decisions given.
        judge: The gate.
        rank: Noise of each operator; called only when the first draft fails.
        limit: From `gate.parse_max_drop`.
        progress: Called with a line a try.
    """
    start = Passed(first, judge(first), {})
    if start.passes or first.recipe is None:
        return start
    tries = Tries(steps(first.recipe, rank()), make, judge, progress, first.format)
    found = search(
        furthest(first.recipe, len(tries.plans)),
        lambda step: tries.at(step).passes,
        lambda step: sure(tries.at(step).quality, limit),
    )
    if found is None:
        progress(f"{first.format}: no int8 graph passes the gate, whatever is given back")
        return start
    return tries.at(found)


class Tries:
    """Drafts by how much they give back; each is made and judged once, when it is first asked for."""

    def __init__(self, plans: Sequence[Given], make: Make, judge: Judge, progress: Progress, format_: str) -> None:
        """Nothing is made yet.

        Args:
            plans: What is given back at each step, from `steps`.
            make: Quantizes anew with decisions given.
            judge: The gate.
            progress: Called with a line a try.
            format_: Of the drafts, for that line.
        """
        self.plans = plans
        self._make, self._judge, self._progress, self._format = make, judge, progress, format_
        self._seen: dict[int, Passed] = {}

    def at(self, step: int) -> Passed:
        """The draft of one step, and what the gate says of it."""
        if step not in self._seen:
            given = self.plans[step]
            many = f"{len(given)} operator{'s' * (len(given) > 1)}"
            self._progress(f"{self._format}: int8 fails the gate; {many} back for quality")
            draft = self._make(given)
            self._seen[step] = Passed(draft, self._judge(draft), given)
        return self._seen[step]


def search(far: Sequence[int], passes: Callable[[int], bool], surely: Callable[[int], bool]) -> int | None:
    """The step that gives back least and is good enough; None where giving back the most does not pass.

    Args:
        far: Steps after which nothing is left to try, from `furthest`.
        passes: Is the drop of a step allowed?
        surely: Is it, by the stricter rule for one of several tries? Where that does not hold for the furthest
            step, `passes` is enough.
    """
    most = next((step for step in far if passes(step)), None)
    if most is None:
        return None
    good = surely if surely(most) else passes
    failing = max((step for step in far if step < most), default=-1)
    if failing >= 0:
        # All arithmetic in fp32 may fail by a near-tie that less of it passes: that is tried before fp32 weights.
        fewer = fewest(good, -1, failing)
        if fewer < failing:
            return fewer
    return fewest(good, failing, most)


def furthest(recipe: Recipe, count: int) -> list[int]:
    """The steps after which nothing is left to try: all arithmetic in fp32, then all that may be fp32.

    Args:
        recipe: Of the draft that failed.
        count: Steps there are.
    """
    computing = sum(op.scheme in _COMPUTES for op in recipe.ops)
    return sorted({step for step in (computing - 1, count - 1) if 0 <= step < count})


def fewest(good: Callable[[int], bool], failing: int, most: int) -> int:
    """The smallest step above `failing` that is good, by doubling and halving; `most` where none below it is."""
    base, stride = failing, 1
    while base + stride < most:
        if good(base + stride):
            most = base + stride
            break
        failing = base + stride
        stride *= 2
    while most - failing > 1:
        middle = (failing + most) // 2
        failing, most = (failing, middle) if good(middle) else (middle, most)
    return most


def steps(recipe: Recipe, noise: Mapping[str, float]) -> list[dict[str, tuple[Scheme, str]]]:
    """What is given back at each step, every step one operator more (or one operator further) than the one before.

    Args:
        recipe: Of the draft that failed.
        noise: Noise over signal of each operator; operators that are missing come last.
    """

    def worst(ops: Sequence[OpDecision]) -> list[OpDecision]:
        return sorted(ops, key=lambda op: (-noise.get(op.op, 0.0), op.op))

    given: dict[str, tuple[Scheme, str]] = {}
    found = []
    computing = [op for op in recipe.ops if op.scheme in _COMPUTES]
    for op in worst(computing):
        scheme: Scheme = "weight_channel" if storable(op) else "float"
        given = {**given, op.op: (scheme, _reason(op, noise, "int8 weights, fp32 arithmetic"))}
        found.append(given)
    storing = [op for op in recipe.ops if op.scheme in (*_COMPUTES, "weight_row", "weight_channel")]
    left = sum(op.weight_bytes for op in storing)
    least = left / 2
    for op in worst(storing):
        left -= op.weight_bytes
        if left < least or left == 0:
            break
        if given.get(op.op, ("", ""))[0] != "float":
            given = {**given, op.op: ("float", _reason(op, noise, "fp32"))}
            found.append(given)
    return found


def storable(op: OpDecision) -> bool:
    """Whether an operator can keep its weights in int8 and compute in fp32.

    One without weights of its own has none to keep: an EmbeddingBag's sum is a product with looked-up rows.
    """
    return op.kind in STORABLE and op.weight_bytes > 0


def _reason(op: OpDecision, noise: Mapping[str, float], now: str) -> str:
    import math

    told = f" ({-10 * math.log10(max(noise[op.op], 1e-12)):.0f} dB of its own)" if op.op in noise else ""
    return f"{GIVEN_BACK}: {now}; in int8 the graph fails the gate{told}"
