"""Certificates at work: a sampled share of early answers is checked against the full student, beside the requests.

    early answer ─ sampled? ──yes──► the full student, in a thread of its own ─ differs? ─► drift alarm
                                                                        more often than certified: closed

What an alarm closes, it closes for the rest of the session, with every action of the same operating point: the policy
then leaves them out (`Policy.without`). A certificate on labels is not watched: which early answers are wrong shows
only beside labels, and they may differ from the full answer more often than its risk. `edgekit inspect` says which is
watched.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from edgekit_runtime.errors import EdgekitError
from edgekit_runtime.exits import DriftAlarm
from edgekit_runtime.manifest import Axis, Tensor
from edgekit_runtime.remote.offer import Offer, Run
from edgekit_runtime.remote.ways import Begun
from edgekit_runtime.tensors import Arrays, batch_place, check

Submit = Callable[..., object]
# Told the actions that are closed, and why.
Close = Callable[[Sequence[str], str], None]


class Watch:
    """Of one session. Safe from several threads."""

    def __init__(
        self,
        offers: Sequence[Offer],
        inputs: Sequence[Tensor],
        axes: Sequence[Axis],
        *,
        fraction: float,
        full: Run,
        submit: Submit,
        close: Close,
    ) -> None:
        """Sets one alarm for each action that can answer early.

        Args:
            offers: Of the session.
            inputs: Of the full student.
            axes: Its dynamic axes.
            fraction: Share of early answers that are checked; 0: none.
            full: Runs the full student on the device.
            submit: Starts a call beside the requests.
            close: Called when an alarm has gone off.
        """
        self._inputs, self._axes = tuple(inputs), {axis.symbol: axis for axis in axes}
        self._places = {tensor.name: batch_place(tensor, axes) for tensor in inputs}
        self._full, self._submit, self._close = full, submit, close
        self._lock = threading.Lock()
        watched = {offer.cost.id: offer for offer in offers if fraction and offer.point and not offer.point.unwatched}
        self._points = {name: offer.point.id for name, offer in watched.items() if offer.point}
        self.alarms = {
            name: DriftAlarm(offer.point.risk, _early_fraction(offer), sampled=fraction)
            for name, offer in watched.items()
            if offer.point
        }

    def saw(self, offer: Offer, inputs: Mapping[str, Any], begun: Begun) -> None:
        """Takes note of a device's part; some of what it has answered early is checked later."""
        alarm = self.alarms.get(offer.cost.id)
        if alarm is None or begun.early is None or not len(begun.early):
            return
        with self._lock:
            rows = np.array([row for row in begun.early if alarm.wants()], np.int64)
        if len(rows):
            ((output, said),) = begun.outputs.items()
            with contextlib.suppress(RuntimeError):  # the session is being closed: nothing is to be learned any more
                self._submit(self._check, offer.cost.id, self._rows(inputs, rows), output, said[rows].argmax(-1))

    def _rows(self, inputs: Mapping[str, Any], rows: np.ndarray) -> Arrays:
        """Copies of some samples: the caller may do with the arrays what they like once they are answered."""
        arrays, _ = check(self._inputs, self._axes, inputs)
        return {
            name: array.copy() if (place := self._places[name]) is None else np.take(array, rows, axis=place)
            for name, array in arrays.items()
        }

    def _check(self, action: str, inputs: Arrays, output: str, said: np.ndarray) -> None:
        try:
            full = self._full(inputs)[output].argmax(-1)
        except EdgekitError:
            return  # a full run that fails tells nothing of early answers; a request will say what is wrong
        alarm = self.alarms[action]
        with self._lock:
            already = alarm.closed
            for agreed in (full == said).reshape(len(said), -1).mean(1):
                alarm.tell(float(agreed))
            if already or not alarm.closed:
                return
            point = self._points[action]
            ids = [name for name, other in self._points.items() if other == point]
            for name in ids:
                self.alarms[name].closed = True
            why = f"{alarm.disagreed:g} of {alarm.checked} checked early answers differ from the full one, more than "
        self._close(ids, f"closed: {why}certified")


def _early_fraction(offer: Offer) -> float:
    """Share of the requests that were answered early by this action when it was certified."""
    assert offer.point is not None
    going_on = offer.cost.offload_fraction if offer.cost.leaves else offer.point.exit_fractions[-1]
    return min(max(1.0 - going_on, 1e-6), 1.0)
