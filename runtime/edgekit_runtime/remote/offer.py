"""What an offer is, and what all kinds of offers are made from."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Protocol

from edgekit_runtime import codecs
from edgekit_runtime.adaptive import ActionCost, Policy, risk
from edgekit_runtime.adaptive.actions import Kind
from edgekit_runtime.adaptive.listed import Listed, listed
from edgekit_runtime.bundle import Bundle
from edgekit_runtime.engines.base import Arrays
from edgekit_runtime.manifest import OperatingPoint
from edgekit_runtime.remote import ways

if TYPE_CHECKING:
    from edgekit_runtime.cascade import FirstStudents

FRAMING_BYTES = 300
SERVER_GAIN = 4.0  # how much quicker than this device a server is taken to be until it has answered
PLAIN_ONLY = "the server takes plain tensors only"

Run = Callable[[Mapping[str, Any]], Arrays]


class Closes(Protocol):
    """Something that holds an engine."""

    def close(self) -> None:
        """Frees it."""


@dataclasses.dataclass(frozen=True)
class Offer:
    """How an action is carried out.

    Attributes:
        cost: What it costs.
        way: The device's part.
        model: Called on the server; empty: nothing is sent.
        codecs: By tensor name; others travel as they are.
        sha256: Of the graph that is meant on the server; empty: any.
        point: Certified thresholds that it uses; None: it uses none.
    """

    cost: ActionCost
    way: ways.Way
    model: str = ""
    codecs: Mapping[str, str] = dataclasses.field(default_factory=dict)
    sha256: str = ""
    point: OperatingPoint | None = None


@dataclasses.dataclass(frozen=True)
class Local:
    """The local run, as it was measured.

    Attributes:
        run: It.
        ms: Its median.
        sd_ms: Its spread.
        answer: Names of the outputs that every action gives.
        down_bytes: Of an answer that the server sends.
    """

    run: Run
    ms: float
    sd_ms: float
    answer: tuple[str, ...]
    down_bytes: int

    @property
    def served_ms(self) -> float:
        """What the whole student is taken to cost the server."""
        return self.ms / SERVER_GAIN


@dataclasses.dataclass(frozen=True)
class Given:
    """What all kinds of offers are made from.

    Attributes:
        bundle: Opened.
        graph: Id of the full graph that the local run uses; heads are cut from it.
        golden: Example inputs of one sample, as the engines take them.
        ours: The server is edgekit's own: codecs and hashes may be asked for.
        engine: That the local run uses; heads run on it, too. Empty: the first installed one.
        threads: Of a run.
        policy: Its `max_risk` says which lossy actions are offered.
        first: The cheaper students of cascades, opened; None: none was named.
        left_out: Filled on the way: action id to the reason why it is not offered.
        opened: Filled on the way: what the session has to close.
    """

    bundle: Bundle
    graph: str
    golden: Arrays
    ours: bool
    engine: str = ""
    threads: int = 1
    policy: Policy = dataclasses.field(default_factory=Policy)
    first: FirstStudents | None = None
    left_out: dict[str, str] = dataclasses.field(default_factory=dict)
    opened: list[Closes] = dataclasses.field(default_factory=list)

    @property
    def lossless(self) -> tuple[str, ...]:
        """Codecs that the server understands and that lose nothing."""
        return codecs.available() if self.ours else ("none",)

    @functools.cached_property
    def ways(self) -> tuple[Listed, ...]:
        """What can be done and is allowed; why the rest is not, is noted in `left_out`."""
        kept = []
        for way in listed(self.bundle.manifest, self.graph, self.first.certified if self.first else ()):
            why = way.why or ("" if way.evidence is None else risk.why_not(*risk.loss(way.evidence), self.policy))
            if why := why or (PLAIN_ONLY if way.action is not None and not self.ours else ""):
                self.left_out[way.id] = why
            else:
                kept.append(way)
        return tuple(kept)


def sent(row: codecs.Measured, name: str, kind: Kind, *, head_ms: float, tail_ms: float, down: int) -> ActionCost:
    """The cost of an action that sends.

    Args:
        row: The codec, measured on what is sent.
        name: Of the action, without the codec.
        kind: Of the action.
        head_ms: On the device before anything is sent.
        tail_ms: On the server.
        down: Bytes of the answer.
    """
    return ActionCost(
        id=name if row.codec == "none" else f"{name}:{row.codec}",
        kind=kind,
        head_ms=head_ms,
        encode_ms=row.encode_ms,
        offload_fraction=1.0,
        bytes_up=row.bytes + FRAMING_BYTES,
        bytes_down=down,
        decode_ms=row.decode_ms,
        tail_ms=tail_ms,
        codec=row.codec,
        basis="assumed",
    )
