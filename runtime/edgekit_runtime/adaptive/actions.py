"""What each way to answer a request costs, as plain data, compiled once for quick choices.

The time of every action is linear in the state of link and load, so a set of n actions is a matrix:

    predicted_ms [n] = terms [n, 7] @ state [7]
    state = device slow-down, device wait ms, round trip ms, uplink ms/kbit, queue ms, server slow-down,
            downlink ms/kbit

An action that stops on the device for some requests and sends the others has its remote terms scaled by the fraction
that is sent.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Sequence
from typing import Literal

import msgspec
import numpy as np

from edgekit_runtime.adaptive.state import Policy, Share, mean_and_variance
from edgekit_runtime.errors import UsageError
from edgekit_runtime.manifest import Base

Kind = Literal["local", "exit", "split", "offload", "cascade", "variant"]

TERMS = ("device", "device_wait", "round_trip", "uplink", "queue", "server", "downlink")
DEVICE, DEVICE_WAIT, ROUND_TRIP, UPLINK, QUEUE, SERVER, DOWNLINK = range(7)


class ActionCost(Base, frozen=True, kw_only=True):
    """The cost of one action on an idle device with an idle server, before anything is known of the link.

    Attributes:
        id: The action's id in the manifest.
        kind: local, exit, split, offload, cascade or variant.
        head_ms: Time on the device until the answer stands or the tensor is ready to send; expected over exits.
        head_sd_ms: Its standard deviation from request to request.
        encode_ms: Serialising and encoding on the device.
        answer_ms: Decoding the answer on the device.
        offload_fraction: Share of requests that need the server: 0 never, 1 always, between for an exit chain that
            sends the rest.
        bytes_up: Bytes sent when the server is needed, framing included.
        bytes_down: Bytes of its answer.
        decode_ms: Decoding on the server.
        tail_ms: Time of the tail on the idle server.
        tail_sd_ms: Its standard deviation.
        server_macs: Multiply-accumulates asked of the server when it is needed.
        device_mj: Energy of the device's own computing; None: computed from `Power`.
        accuracy_drop: Loss against the reference; None where it was not measured.
        accuracy_drop_high: Upper end of its 95 % interval; None: the drop itself.
        split_point: Id of the split point whose tensor is sent; empty for the input itself or nothing.
        depth: Place of that split point in order of depth, from 0; -1: the input itself is sent.
        codec: Name of the codec on the wire.
        basis: Where the times come from.
    """

    id: str
    kind: Kind
    head_ms: float = 0.0
    head_sd_ms: float = 0.0
    encode_ms: float = 0.0
    answer_ms: float = 0.0
    offload_fraction: float = 0.0
    bytes_up: int = 0
    bytes_down: int = 0
    decode_ms: float = 0.0
    tail_ms: float = 0.0
    tail_sd_ms: float = 0.0
    server_macs: int = 0
    device_mj: float | None = None
    accuracy_drop: float | None = 0.0
    accuracy_drop_high: float | None = None
    split_point: str = ""
    depth: int = -1
    codec: str = "none"
    basis: Literal["measured", "predicted", "assumed"] = "predicted"

    @property
    def leaves(self) -> bool:
        """Can anything of a request leave the device?"""
        return self.offload_fraction > 0.0

    @property
    def device_ms(self) -> float:
        """All time on the device, idle."""
        return self.head_ms + self.offload_fraction * (self.encode_ms + self.answer_ms)

    @property
    def server_ms(self) -> float:
        """Time on the idle server when it is needed."""
        return self.decode_ms + self.tail_ms

    @property
    def highest_drop(self) -> float | None:
        """The loss of accuracy to reckon with."""
        return self.accuracy_drop if self.accuracy_drop_high is None else self.accuracy_drop_high


class Power(Base, frozen=True, kw_only=True):
    """What the device's parts draw. The radio's defaults: LTE, marginal (published phone measurements).

    Attributes:
        active_w: While a graph runs.
        idle_w: While it waits for the server.
        uplink_nj_bit: Radio, sending.
        downlink_nj_bit: Radio, receiving.
    """

    active_w: float = 4.0
    idle_w: float = 2.0
    uplink_nj_bit: float = 76.7
    downlink_nj_bit: float = 15.0


class ActionSet:
    """Actions compiled for `choose`. Immutable.

    Attributes:
        actions: In the order given.
        terms: float64 [n, 7], multiplied by the state gives each term in ms.
        squares: float64 [n, 9], ms²: `terms` squared, to be multiplied by the state's variances; then the action's own
            variance of head and tail, to be multiplied by the squared slow-downs.
        rows: `terms` as plain numbers.
        square_rows: `squares` as plain numbers.
        least_local_ms: Shortest device term of those that never leave the device.
        fallback: Index of the quickest action with the smallest `highest_drop` that never leaves the device.
        shares: What messages take of the bytes that were declared (`sending`); () where that is what was declared.
        share_rows: Place to the variances of the kbit up and down that these shares cause; () of all others.
    """

    def __init__(self, actions: Sequence[ActionCost], power: Power | None = None) -> None:
        """Compiles actions.

        Raises:
            UsageError: An id twice, a negative or infinite cost, or no action that stays on the device.
        """
        self.actions = tuple(actions)
        self.power = power or Power()
        _check(self.actions)
        self.index = {action.id: place for place, action in enumerate(self.actions)}
        self.offload = np.array([action.offload_fraction for action in self.actions])
        self.terms = np.array([_terms(action) for action in self.actions])
        own = [[a.head_sd_ms**2, a.offload_fraction * a.tail_sd_ms**2] for a in self.actions]
        self.squares = np.hstack((self.terms**2, np.array(own)))
        self.terms.setflags(write=False)
        self.squares.setflags(write=False)
        # The same as plain numbers: for one request of a few actions numpy costs several times what it saves.
        self.rows: tuple[tuple[float, ...], ...] = tuple(map(tuple, self.terms.tolist()))
        self.square_rows: tuple[tuple[float, ...], ...] = tuple(map(tuple, self.squares.tolist()))
        self.mixed = bool(np.any((self.offload > 0) & (self.offload < 1)))
        self.energy = np.array([_energy(action, self.power) for action in self.actions])
        self.server_cost = np.array([a.offload_fraction * (a.server_macs or a.server_ms) for a in self.actions])
        self.drop = np.array([math.inf if a.accuracy_drop is None else a.accuracy_drop for a in self.actions])
        self.depths = {a.split_point: a.depth for a in self.actions if a.split_point}
        local = [place for place, action in enumerate(self.actions) if not action.leaves]
        # By the upper end: an exit chain that showed no loss on its samples is still not the full answer.
        highest = [math.inf if a.highest_drop is None else a.highest_drop for a in self.actions]
        self.fallback = min(local, key=lambda place: (highest[place], self.terms[place, DEVICE]))
        self.local = np.array(local)
        self.remote = np.array([place for place, action in enumerate(self.actions) if action.leaves], np.intp)
        self.least_local_ms = min(float(self.terms[place, DEVICE]) for place in local)
        # By policy and samples: 0 where the policy allows an action, else infinity.
        self.admitted: dict[tuple[Policy, int], np.ndarray] = {}
        self.open_to: dict[tuple[Policy, int], tuple[int, ...]] = {}  # the same as the places of those that it allows
        # By policy and place: what may be a probe beside that action.
        self.larger: dict[tuple[Policy, int], tuple[int, ...]] = {}
        self.shares: tuple[Share, ...] = ()
        self.share_rows: dict[int, tuple[float, float]] = {}
        self.declared: ActionSet = self
        self._sending: ActionSet | None = None

    def sending(self, shares: tuple[Share, ...]) -> ActionSet:
        """The same actions with the bytes that their messages are expected to take, the others as declared.

        Args:
            shares: What was learned; the set made for the last ones is kept.

        Raises:
            UsageError: A share of an action that is not there.
        """
        declared = self.declared
        if not shares:
            return declared
        known = declared._sending
        if known is None or known.shares != shares:
            known = declared._sending = _with_shares(declared, shares)
        return known

    def __len__(self) -> int:
        return len(self.actions)

    def __getitem__(self, action_id: str) -> ActionCost:
        return self.actions[self.place(action_id)]

    def place(self, action_id: str) -> int:
        """The index of an action.

        Raises:
            UsageError: There is none of that id.
        """
        if action_id not in self.index:
            raise UsageError(f"there is no action {action_id!r}", remedy=f"there are: {', '.join(self.index)}")
        return self.index[action_id]


def compiled(actions: Sequence[ActionCost] | ActionSet) -> ActionSet:
    """The set itself, or a sequence compiled."""
    return actions if isinstance(actions, ActionSet) else ActionSet(actions)


def _with_shares(declared: ActionSet, shares: tuple[Share, ...]) -> ActionSet:
    made, last = copy.copy(declared), declared._sending or declared
    actions, rows, square_rows = list(declared.actions), list(declared.rows), list(declared.square_rows)
    made.terms, made.squares, made.energy = declared.terms.copy(), declared.squares.copy(), declared.energy.copy()
    made.shares, made.share_rows, made.larger = shares, {}, {}
    for share in shares:
        place = declared.place(share.action)
        action, row = declared.actions[place], declared.rows[place]
        up, up_variance = mean_and_variance(share.up, share.up_spread)
        down, down_variance = mean_and_variance(share.down, share.down_spread)
        made.share_rows[place] = (row[UPLINK] ** 2 * up_variance, row[DOWNLINK] ** 2 * down_variance)
        sizes = _whole(action.bytes_up, up), _whole(action.bytes_down, down)
        actions[place] = action = msgspec.structs.replace(action, bytes_up=sizes[0], bytes_down=sizes[1])
        made.terms[place] = rows[place] = row = _terms(action)
        made.squares[place] = square_rows[place] = (*(term * term for term in row), *square_rows[place][len(TERMS) :])
        made.energy[place] = _energy(action, declared.power)
    made.actions, made.rows, made.square_rows = tuple(actions), tuple(rows), tuple(square_rows)
    # What a policy allows depends on the bytes only where it limits them.
    made.admitted = {key: value for key, value in last.admitted.items() if key[0].max_bytes is None}
    made.open_to = {key: value for key, value in last.open_to.items() if key[0].max_bytes is None}
    return made


def _whole(declared: int, share: float) -> int:
    """A message of one byte at least: one of none would be an empty request."""
    return max(round(declared * share), min(declared, 1))


def _terms(action: ActionCost) -> tuple[float, ...]:
    sent = action.offload_fraction
    up_kbit, down_kbit = action.bytes_up * 8e-3, action.bytes_down * 8e-3
    uses_device = 1.0 if action.device_ms > 0 else 0.0
    return (action.device_ms, uses_device, sent, sent * up_kbit, sent, sent * action.server_ms, sent * down_kbit)


def _energy(action: ActionCost, power: Power) -> tuple[float, ...]:
    """Millijoules by term of the state: W times ms is mJ. The radio's part stands last and does not depend on it."""
    computing, *waiting = _terms(action)
    own = action.device_mj if action.device_mj is not None else computing * power.active_w
    radio_nj = 8 * (action.bytes_up * power.uplink_nj_bit + action.bytes_down * power.downlink_nj_bit)
    return (own, *(ms * power.idle_w for ms in waiting), action.offload_fraction * radio_nj * 1e-6)


def _check(actions: Sequence[ActionCost]) -> None:
    seen: set[str] = set()
    for action in actions:
        if action.id in seen:
            raise UsageError(f"action {action.id!r} is there twice", remedy="give each action an id of its own")
        seen.add(action.id)
        numbers = {
            name: value
            for name, value in msgspec.structs.asdict(action).items()
            if isinstance(value, (int, float)) and name not in ("depth", "accuracy_drop", "accuracy_drop_high")
        }
        for name, value in numbers.items():
            if not (math.isfinite(value) and value >= 0):
                raise UsageError(f"action {action.id!r}: {name} is {value}", remedy="give a finite number, 0 or more")
        if action.offload_fraction > 1:
            raise UsageError(f"action {action.id!r}: offload_fraction is {action.offload_fraction}", remedy="0 to 1")
    if not any(not action.leaves for action in actions):
        raise UsageError(
            "no action stays on the device", remedy="add a local action: without one a request could be lost"
        )
