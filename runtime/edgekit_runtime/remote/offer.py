"""What an offer is, and what all kinds of offers are made from."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Protocol

import msgspec

from edgekit_runtime import codecs
from edgekit_runtime.adaptive import ActionCost, Policy, risk
from edgekit_runtime.adaptive.actions import Kind
from edgekit_runtime.bundle import Bundle
from edgekit_runtime.engines.base import Arrays
from edgekit_runtime.manifest import Action, OperatingPoint
from edgekit_runtime.remote import ways

if TYPE_CHECKING:
    from edgekit_runtime.cascade import FirstStudent

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
        first: The cheaper student of a cascade, opened; None: it was not named.
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
    first: FirstStudent | None = None
    left_out: dict[str, str] = dataclasses.field(default_factory=dict)
    opened: list[Closes] = dataclasses.field(default_factory=list)

    @property
    def lossless(self) -> tuple[str, ...]:
        """Codecs that the server understands and that lose nothing."""
        return codecs.available() if self.ours else ("none",)

    def why_not(self, drop: float | None, high: float | None) -> str:
        """Why an action that may lose accuracy is not offered; empty: it is."""
        return risk.why_not(drop, high, self.policy)


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


def lossy(cost: ActionCost, action: Action) -> ActionCost:
    """The cost with the loss that was measured at conversion."""
    drop = max(action.accuracy_drop or 0.0, 0.0)
    return msgspec.structs.replace(cost, accuracy_drop=drop, accuracy_drop_high=highest(action))


def certified(cost: ActionCost, point: OperatingPoint) -> ActionCost:
    """The cost with the loss that an operating point allows."""
    return msgspec.structs.replace(cost, accuracy_drop=point.empirical_risk, accuracy_drop_high=point.risk)


def highest(action: Action) -> float | None:
    """The loss to reckon with: the upper end of the interval."""
    if action.accuracy_drop is None or action.interval_95 is None:
        return None
    return max(action.interval_95[1], action.accuracy_drop, 0.0)
