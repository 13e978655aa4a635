"""What all requests of a session share, and what follows from the shapes of one."""

from __future__ import annotations

import dataclasses
import threading
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import msgspec

from edgekit_runtime.adaptive import Controller
from edgekit_runtime.manifest import Tensor
from edgekit_runtime.remote.alarms import Alarms
from edgekit_runtime.remote.answers import Expected, sizes_of
from edgekit_runtime.remote.client import Client
from edgekit_runtime.remote.offer import Offer
from edgekit_runtime.remote.watch import Watch

_MAX_SHAPES = 256


@dataclasses.dataclass
class Line:
    """What all requests of a session share.

    Attributes:
        client: The channel.
        controller: Decides and learns; used under `lock`.
        lock: Of the controller.
        workers: Threads for local runs beside a call.
        senders: Threads for calls beside a local run; an answer may come long after its request was over.
        alarms: Start local runs when answers are overdue.
        local: The net under every request.
        inputs: Of the student.
        outputs: Those that every answer has.
        batch: Symbol of the batch axis; empty: there is none.
        ours: The server understands parameters.
        watch: Checks early answers.
        closed: Nothing is learned any more.
    """

    client: Client
    controller: Controller
    lock: threading.Lock
    workers: ThreadPoolExecutor
    senders: ThreadPoolExecutor
    alarms: Alarms
    local: Offer
    inputs: tuple[Tensor, ...]
    outputs: tuple[Tensor, ...]
    batch: str
    ours: bool
    watch: Watch | None = None
    closed: bool = False
    _shapes: dict[tuple[object, ...], _Shapes] = dataclasses.field(default_factory=dict)

    def samples(self, inputs: Mapping[str, Any]) -> int:
        """How many samples a request has."""
        return self._of(inputs).samples

    def expected(self, inputs: Mapping[str, Any], sha256: str, sent_samples: int | None) -> Expected:
        """What the answer to a request must look like.

        Args:
            inputs: Of the request.
            sha256: Of the graph that is meant.
            sent_samples: Of those in it, where not all are sent.
        """
        shapes = self._of(inputs)
        if sent_samples is not None and self.batch:
            return Expected(self.outputs, sha256, {**shapes.sizes, self.batch: sent_samples})
        known = shapes.expected.get(sha256)
        if known is None:
            known = shapes.expected[sha256] = Expected(self.outputs, sha256, shapes.sizes)
        return known

    def _of(self, inputs: Mapping[str, Any]) -> _Shapes:
        """What follows from the shapes of a request, as far as its inputs fit. Remembered by them."""
        try:
            key = tuple([inputs[tensor.name].shape for tensor in self.inputs])
            known = self._shapes.get(key)
        except (KeyError, AttributeError, TypeError):  # missing, not arrays, or with shapes of their own kind
            return self._new(inputs)
        if known is None:
            if len(self._shapes) >= _MAX_SHAPES:
                self._shapes.clear()
            known = self._shapes[key] = self._new(inputs)
        return known

    def _new(self, inputs: Mapping[str, Any]) -> _Shapes:
        sizes = sizes_of(self.inputs, inputs)
        return _Shapes(sizes, max(sizes.get(self.batch, 1), 1) if self.batch else 1)


class _Shapes(msgspec.Struct, eq=False):
    """What follows from the shapes of a request.

    Attributes:
        sizes: Of the symbols in them.
        samples: In the request.
        expected: By hash of the graph that is meant: what an answer must look like.
    """

    sizes: Mapping[str, int]
    samples: int
    expected: dict[str, Expected] = {}
