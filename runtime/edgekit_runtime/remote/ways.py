"""What the device does of a request before, or instead of, sending it: one small class each way.

Here            the local run                                   answered
EarlyHere       exits with certified thresholds                 answered
Send            the inputs                                      to the full model
Head            runs up to a split point                        to its tail
EarlyThenSend   exits up to a split point                       answered, or the rest to its tail
CascadeHere     a cheaper student first, then the full one      answered
CascadeThenSend a cheaper student first                         answered, or the rest to the full model
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

import msgspec
import numpy as np

from edgekit_runtime import exits
from edgekit_runtime.cascade import FirstStudent, Paired
from edgekit_runtime.chain import Chain
from edgekit_runtime.engines.base import Arrays
from edgekit_runtime.manifest import Axis, OperatingPoint, Tensor
from edgekit_runtime.remote.leaving import LeavingChain
from edgekit_runtime.tensors import check

Run = Callable[[Mapping[str, Any]], Arrays]
_MAX_FITTING = 256


class Begun(msgspec.Struct, frozen=True, eq=False):
    """How far the device came.

    Attributes:
        outputs: What is answered already; rows of `rest` are still to be overwritten. Empty: nothing.
        tensors: To be sent; empty: the answer stands.
        rest: Numbers of the samples that are sent; None: all.
        idle_ms: What this very way is expected to take on an idle device; None: the action's own time.
        early: Numbers of the samples that an exit, or the first student of a cascade, has answered.
    """

    outputs: Arrays
    tensors: Arrays
    rest: np.ndarray | None = None
    idle_ms: float | None = None
    early: np.ndarray | None = None


class Way(Protocol):
    """The device's part of an action."""

    def begin(self, inputs: Mapping[str, Any]) -> Begun:
        """Runs it."""


@dataclasses.dataclass(frozen=True)
class Here:
    """The local run, less what it says beside the answer."""

    run: Run
    answer: Sequence[str]

    def begin(self, inputs: Mapping[str, Any]) -> Begun:
        """Answers."""
        made = self.run(inputs)
        return Begun({name: made[name] for name in self.answer}, {})


@dataclasses.dataclass(frozen=True)
class Send:
    """The inputs, checked first: what does not fit is the caller's fault, and no failure of the server."""

    inputs: Sequence[Tensor]
    axes: Mapping[str, Axis]
    _fitting: set[tuple[object, ...]] = dataclasses.field(default_factory=set, repr=False, compare=False)

    def begin(self, inputs: Mapping[str, Any]) -> Begun:
        """Leaves all to the server. Names, dtypes and shapes that were checked and need no change are remembered."""
        try:
            key = tuple([(name, value.dtype, value.shape, value.flags.c_contiguous) for name, value in inputs.items()])
            if key in self._fitting:
                return Begun({}, dict(inputs))
        except (AttributeError, TypeError):  # not arrays
            key = ()
        arrays, _ = check(self.inputs, self.axes, inputs)
        tensors = {name: np.ascontiguousarray(array) for name, array in arrays.items()}
        if key and all(tensors[name] is value for name, value in inputs.items()):
            if len(self._fitting) >= _MAX_FITTING:
                self._fitting.clear()
            self._fitting.add(key)
        return Begun({}, tensors)


@dataclasses.dataclass(frozen=True)
class Head:
    """The student up to a split point."""

    chain: Chain

    def begin(self, inputs: Mapping[str, Any]) -> Begun:
        """Runs the head."""
        return Begun({}, {name: np.ascontiguousarray(array) for name, array in self.chain.run(inputs).items()})


@dataclasses.dataclass(frozen=True)
class EarlyHere:
    """The whole chain with its exits.

    Attributes:
        leave_ms: Time until each exit on an idle device, one sample.
    """

    chain: LeavingChain
    point: OperatingPoint
    leave_ms: Sequence[float]

    def begin(self, inputs: Mapping[str, Any]) -> Begun:
        """Answers; each sample at the first exit that is sure enough."""
        answered = self.chain.infer(inputs, self.point)
        idle_ms, last = self.leave_ms[int(answered.exits.max())], len(self.leave_ms) - 1
        return Begun(answered.outputs, {}, idle_ms=idle_ms, early=np.flatnonzero(answered.exits < last))


@dataclasses.dataclass(frozen=True)
class EarlyThenSend:
    """The chain up to the split point of one exit.

    Attributes:
        last: Number of that exit.
        leave_ms: Time until each exit up to it on an idle device, one sample.
    """

    chain: LeavingChain
    point: OperatingPoint
    last: int
    leave_ms: Sequence[float]

    def begin(self, inputs: Mapping[str, Any]) -> Begun:
        """Answers what is sure, hands over the rest."""
        left = self.chain.until(inputs, self.point, self.last)
        outputs = {self.chain.exits[-1].output: left.answers}
        idle_ms = self.leave_ms[min(int(left.exits.max()), self.last)]
        early = np.flatnonzero(left.exits <= self.last)
        if not len(left.rest):
            return Begun(outputs, {}, idle_ms=idle_ms, early=early)
        tensors = {name: np.ascontiguousarray(array) for name, array in left.tensors.items()}
        return Begun(outputs, tensors, left.rest, idle_ms, early)


@dataclasses.dataclass(frozen=True)
class CascadeHere:
    """Two students here.

    Attributes:
        leave_ms: Time until each of them has answered on an idle device, one sample.
    """

    first: FirstStudent
    run: Run
    point: OperatingPoint
    leave_ms: Sequence[float]

    def begin(self, inputs: Mapping[str, Any]) -> Begun:
        """Answers; the full student only what the first is not sure of."""
        request = _paired(inputs)
        steps: tuple[exits.Step, ...] = (
            lambda _: self.first.scores(request),
            lambda rows: self.run(self.first.rest(request, rows))[self.point.output],
        )
        found = exits.answer_early(steps, self.point.thresholds, rule=self.point.score_rule)
        idle_ms = self.leave_ms[int(found.exits.max())]
        return Begun({self.point.output: found.answers}, {}, idle_ms=idle_ms, early=np.flatnonzero(found.exits == 0))


@dataclasses.dataclass(frozen=True)
class CascadeThenSend:
    """The cheaper student here.

    Attributes:
        first_ms: Its time on an idle device, one sample.
    """

    first: FirstStudent
    send: Send
    point: OperatingPoint
    first_ms: float

    def begin(self, inputs: Mapping[str, Any]) -> Begun:
        """Answers what is sure, leaves the rest to the server."""
        request = _paired(inputs)
        scores = self.first.scores(request)
        sure = exits.score(self.point.score_rule, scores) >= self.point.thresholds[0]
        rest, outputs = np.flatnonzero(~sure), {self.point.output: scores}
        if not len(rest):
            return Begun(outputs, {}, idle_ms=self.first_ms, early=np.flatnonzero(sure))
        tensors = self.send.begin(self.first.rest(request, rest)).tensors
        return Begun(outputs, tensors, rest, self.first_ms, np.flatnonzero(sure))


def _paired(inputs: Mapping[str, Any]) -> Paired:
    assert isinstance(inputs, Paired)  # a session that offers cascades takes its inputs apart first
    return inputs


def joined(begun: Begun, answer: Arrays) -> Arrays:
    """The whole answer: what the server said, at the rows that were sent."""
    if begun.rest is None or not begun.outputs:
        return answer
    whole = {name: array.copy() for name, array in begun.outputs.items()}
    for name, array in whole.items():
        array[begun.rest] = answer[name]
    return whole
