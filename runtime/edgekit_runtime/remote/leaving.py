"""A chain with exits that stops at one of them: who is sure leaves there, what the others need is handed over.

    image ─► seg0 ─► exit 0 sure? ──yes──► answered
                       │ no
             seg1 ─► exit 1 sure? ──yes──► answered          `until(inputs, point, last=1)`
                       │ no
                       └─► the tensors of exit 1's split point: the tail goes on with them, here or elsewhere

Who leaves at exit k leaves there in the whole chain, too, and who goes on gets the full answer. So the requests that
get a wrong answer because of an exit are some of those that the whole chain gives one, and its certified risk holds.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

import numpy as np

from edgekit_runtime import exits
from edgekit_runtime.adaptive.listed import hands_over
from edgekit_runtime.bundle import Bundle
from edgekit_runtime.chain import Chain, split_points
from edgekit_runtime.engines.base import Arrays
from edgekit_runtime.errors import UsageError
from edgekit_runtime.manifest import OperatingPoint


@dataclasses.dataclass(frozen=True)
class Left:
    """What was answered before the split point, and what is left to do.

    Attributes:
        answers: Scores [samples, ..., classes]; rows of `rest` hold what the last exit said, which was not enough.
        exits: [samples] number of the exit each left at; one beyond the last: it goes on.
        rest: Numbers of the samples that go on, rising.
        tensors: What the tail takes, for these samples only; empty where none goes on.
    """

    answers: np.ndarray
    exits: np.ndarray
    rest: np.ndarray
    tensors: Arrays


class LeavingChain(Chain):
    """A whole student with exits, which can also be left halfway. Arguments as `Chain` has them."""

    def __init__(self, bundle: Bundle, graph: str, *, engine: str = "", threads: int = 1) -> None:
        super().__init__(bundle, graph, engine=engine, threads=threads)
        places = {point.id: point for point in split_points(bundle.manifest, graph)}
        self._places = [places[item.after] for item in self.exits[:-1]]

    def until(self, tensors: Mapping[str, object], point: OperatingPoint, last: int) -> Left:
        """Runs up to an exit.

        Args:
            tensors: As `run` takes them.
            point: Certified for this chain.
            last: Number of the exit at whose split point the rest is handed over; not the full answer's.

        Raises:
            UsageError: `last` is no early exit, or the operating point belongs to another chain or mixes exits into
                the full answer.
        """
        thresholds, mixes, rule = self._thresholds(point)
        if not 0 <= last < len(self.exits) - 1:
            raise UsageError(f"exit {last} is no early exit", remedy=f"0 to {len(self.exits) - 2}")
        if not hands_over(point):
            raise UsageError(
                f"operating point {point.id} mixes exits into the full answer, which a tail alone does not give",
                remedy="certify without --combine",
            )
        arrays, chosen = self._prepare(tensors)
        if chosen is not None and not chosen.exact:
            # The file's sizes are not the request's: slices and padding do not go over the wire. Answered here.
            whole = self.infer(tensors, point)
            answers = whole.outputs[self.exits[-1].output]
            return Left(answers, whole.exits, np.zeros(0, np.int64), {})
        values = dict(arrays)
        steps = self._steps(values, 0 if chosen is None else self._number(chosen.rung), None)[: last + 1]
        unsure = self.exits[last].output

        def hand_over(keep: np.ndarray | None) -> np.ndarray:
            if keep is not None:
                for name in list(values):
                    values[name] = self._rows(name, values[name], keep)
            return values[unsure]

        alone = (*(0.0 for _ in steps), 1.0)
        early = exits.answer_early(
            [*steps, hand_over],
            (*thresholds[: last + 1], 0.0),
            rule=rule,
            mixes=(*mixes[: last + 1], alone) if mixes else (),
        )
        rest = np.flatnonzero(early.exits == last + 1)
        wire = self._wire(self._places[last]) if len(rest) else ()
        return Left(early.answers, early.exits, rest, {tensor.name: values[tensor.name] for tensor in wire})
