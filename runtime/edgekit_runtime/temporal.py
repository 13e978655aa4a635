"""Exits in time: a stream that ends after the step at which it is sure.

    step 1 ──► logits ──► score ≥ threshold 1? ──yes──► answered, no further step
                              │ no (these sequences only)
    step 2 ──► logits ──► …                              the last step's answer is the full one

An exit is a step here, not a depth; thresholds, scores and certificates are those of `exits`.
"""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Mapping, Sequence
from typing import Protocol

import numpy as np

from edgekit_runtime.errors import InputMismatch, UsageError
from edgekit_runtime.exits import score
from edgekit_runtime.manifest import Graph, Manifest, OperatingPoint, Tensor

Arrays = dict[str, np.ndarray]
# What a sequence is answered with after a step.
LAST, MEAN = "last", "mean"


class Steps(Protocol):
    """What is ended early: a `stream.Stream`."""

    states: Arrays
    steps: int

    def step(self, inputs: Mapping[str, object]) -> Arrays:
        """Runs one step."""
        ...

    def reset(self) -> None:
        """Begins a new sequence."""
        ...


@dataclasses.dataclass(frozen=True)
class Ending:
    """When a stream may end.

    Attributes:
        thresholds: One a step; the last is not looked at: there the sequence is over.
        steps: `last` or `mean`, see `OperatingPoint.steps`.
        output: Name of the output that holds the logits.
        rule: Key of `edgekit_runtime.exits.SCORES`.
    """

    thresholds: Sequence[float]
    steps: str
    output: str
    rule: str = "max_softmax"

    def __post_init__(self) -> None:
        if self.steps not in (LAST, MEAN) or not self.thresholds:
            raise UsageError(
                f"an ending with steps {self.steps!r} and {len(self.thresholds)} thresholds",
                remedy=f"steps is {LAST} or {MEAN}, and each step has a threshold",
            )


def digest(graph: Graph) -> str:
    """What a certificate of a stream holds for: the file of its graph."""
    return hashlib.sha256(f"{graph.id} {graph.sha256}\n".encode()).hexdigest()


def said(logits: Sequence[np.ndarray], steps: str) -> list[np.ndarray]:
    """What a sequence is answered with after each step.

    Args:
        logits: [sequences, ..., classes] of each step.
        steps: `last` or `mean`.
    """
    if steps == LAST:
        return list(logits)
    total = np.cumsum(np.stack(logits).astype(np.float64), axis=0)
    counts = np.arange(1, len(logits) + 1).reshape(-1, *(1 for _ in logits[0].shape))
    return list((total / counts).astype(np.float32))


def ending_of(manifest: Manifest, graph: Graph, point: OperatingPoint | str) -> Ending:
    """The ending that an operating point of a bundle certifies for a graph.

    Raises:
        UsageError: There is no such point, it is none of a stream, or it was certified for another file.
    """
    if isinstance(point, str):
        named = {one.id: one for one in manifest.operating_points if one.steps}
        if point not in named:
            there = ", ".join(named) or "none: edgekit calibrate-exits BUNDLE --steps last --data FILE.npz -o NEW.edge"
            raise UsageError(f"there is no operating point {point!r} of a stream", remedy=f"there are: {there}")
        point = named[point]
    if not point.steps:
        raise UsageError(
            f"{point.id} is an operating point of exits in depth", remedy="Chain.infer answers with it, not stream()"
        )
    if point.of != graph.id or point.chain_sha256 != digest(graph):
        raise UsageError(
            f"operating point {point.id} was certified for another graph than this {graph.id}",
            remedy=f"open(..., graph={point.of!r}), or certify this bundle: edgekit calibrate-exits",
        )
    return Ending(point.thresholds, point.steps, point.output, point.score_rule)


class EarlyStream:
    """A batch of sequences in progress, each of which ends at the step at which it is sure.

    Args:
        stream: The stream below.
        inputs: What its graph takes, states among it: their shapes tell which axis is the batch.
        batch: Symbol of the batch axis; empty: one sequence at a time.
        ending: When it may end.

    Attributes:
        active: Numbers of the sequences that go on, in the order of the first step's batch; None before it.
        answers: Logits [sequences, ..., classes] of those that have ended; rows of the others are not yet meant.
        exits: [sequences] step each ended at, from 0; -1 while it goes on.
    """

    def __init__(self, stream: Steps, inputs: Sequence[Tensor], batch: str, ending: Ending) -> None:
        self._stream, self._ending = stream, ending
        self._axis = {t.name: list(t.shape).index(batch) for t in inputs if batch and batch in t.shape}
        self.reset()

    @property
    def done(self) -> bool:
        """Whether every sequence has its answer."""
        return self.active is not None and not len(self.active)

    def reset(self) -> None:
        """Begins a new batch of sequences."""
        self._stream.reset()
        self.active: np.ndarray | None = None
        self.answers: np.ndarray | None = None
        self.exits = np.empty(0, np.int64)
        self._sum: np.ndarray | None = None

    def step(self, inputs: Mapping[str, object]) -> Arrays:
        """Runs one step of the sequences that go on.

        Args:
            inputs: Of all sequences of the batch, in the order of the first step; rows of ended ones are not read.

        Returns:
            The outputs of the sequences that were active before this step.

        Raises:
            UsageError: All sequences have ended, or the graph has no such output.
            InputMismatch: As `Stream.step`, or another number of sequences than in the first step.
        """
        if self.done:
            raise UsageError("every sequence of this stream has its answer", remedy="reset() begins new ones")
        outputs = self._stream.step({name: self._rows(name, np.asarray(value)) for name, value in inputs.items()})
        if self._ending.output not in outputs:
            raise UsageError(
                f"the stream has no output {self._ending.output!r}", remedy=f"it has: {', '.join(outputs)}"
            )
        self._take(outputs[self._ending.output])
        return outputs

    def _rows(self, name: str, array: np.ndarray) -> np.ndarray:
        axis = self._axis.get(name)
        if axis is None or self.active is None or axis >= array.ndim:
            return array
        if array.shape[axis] != len(self.exits):
            raise InputMismatch(
                f"{name} holds {array.shape[axis]} sequences, the first step had {len(self.exits)}",
                remedy="give those of all sequences; ended ones are not read",
            )
        return array if len(self.active) == len(self.exits) else np.take(array, self.active, axis)

    def _take(self, logits: np.ndarray) -> None:
        """Takes in what one step gave: who is sure leaves, with its state."""
        if self.active is None:
            self.active, self.exits = np.arange(len(logits)), np.full(len(logits), -1, np.int64)
            self.answers = np.zeros(logits.shape, np.float32)
        number = self._stream.steps - 1
        self._sum = logits.astype(np.float64) if self._sum is None else self._sum + logits
        answer = logits if self._ending.steps == LAST else (self._sum / (number + 1)).astype(np.float32)
        last = number >= len(self._ending.thresholds) - 1
        sure = (
            np.ones(len(answer), bool) if last else score(self._ending.rule, answer) >= self._ending.thresholds[number]
        )
        if not sure.any():
            return
        assert self.answers is not None
        left, stay = self.active[sure], np.flatnonzero(~sure)
        self.answers[left], self.exits[left] = answer[sure], number
        self.active, self._sum = self.active[stay], self._sum[stay]
        self._stream.states = {
            name: np.take(state, stay, self._axis[name]) if name in self._axis else state
            for name, state in self._stream.states.items()
        }
