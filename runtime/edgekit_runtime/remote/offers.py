"""The actions of a bundle between this device and a server, with costs measured here as far as they can be.

    local                           the whole student here
    exit:RISK                       its chain with exits here, thresholds certified for this risk
    offload[:CODEC]                 the inputs to the server; jpeg@Q and webp@Q: pictures, lossy
    split:PLACE[:CODEC]             the head here, the tail there; int8-row: lossy
    exit:RISK:split:PLACE[:CODEC]   exits up to a place here, the tail there for whoever is not sure

An action that may lose accuracy is offered where that was measured and the policy's `max_risk` allows it; why another
is not, is told (`Offered.left_out`). What the server takes is not known before it has answered: it is assumed to be a
few times quicker than this device, and the first replies correct that (`adaptive.estimators`).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, Protocol

import msgspec

from edgekit_runtime import chain, codecs
from edgekit_runtime.adaptive import ActionCost, Policy, early
from edgekit_runtime.bundle import Bundle
from edgekit_runtime.engines.base import Arrays
from edgekit_runtime.errors import EdgekitError
from edgekit_runtime.exits import NEVER
from edgekit_runtime.manifest import Action, OperatingPoint, SplitPoint
from edgekit_runtime.remote import ways
from edgekit_runtime.remote.leaving import LeavingChain, hands_over
from edgekit_runtime.remote.pieces import tail_sha256
from edgekit_runtime.remote.weigh import measured, worth

FRAMING_BYTES = 300
_SERVER_GAIN = 4.0


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
    """

    cost: ActionCost
    way: ways.Way
    model: str = ""
    codecs: Mapping[str, str] = dataclasses.field(default_factory=dict)
    sha256: str = ""


@dataclasses.dataclass(frozen=True)
class Offered:
    """What a session can do.

    Attributes:
        offers: The local one first.
        answer: Names of the outputs that every one of them gives.
        left_out: Action id to the reason why it is not among them.
        opened: Chains that the ways use.
    """

    offers: tuple[Offer, ...]
    answer: tuple[str, ...]
    left_out: Mapping[str, str]
    opened: tuple[Closes, ...]


@dataclasses.dataclass(frozen=True)
class _Cut:
    """A split point whose tail gives the whole answer, and what was seen of it here."""

    point: SplitPoint
    depth: int
    head: chain.Chain
    head_ms: float
    values: Arrays
    tail_ms: float

    @property
    def place(self) -> str:
        return self.point.place or self.point.id


def offers(
    bundle: Bundle,
    graph: str,
    run: Callable[[Mapping[str, Any]], Arrays],
    golden: Arrays,
    *,
    ours: bool,
    engine: str = "",
    threads: int = 1,
    policy: Policy | None = None,
) -> Offered:
    """All actions, the local one first.

    Args:
        bundle: Opened.
        graph: Id of the full graph that the local run uses; heads are cut from it.
        run: The local run.
        golden: Example inputs of one sample, as the engines take them.
        ours: The server is edgekit's own: codecs and hashes may be asked for.
        engine: That the local run uses; heads run on it, too. Empty: the first installed one.
        threads: Of a run.
        policy: Its `max_risk` says which lossy actions are offered.
    """
    maker = _Maker(bundle, graph, golden, ours, engine, threads, policy or Policy())
    try:
        maker.make(run)
    except BaseException:
        for piece in maker.opened:
            piece.close()
        raise
    return Offered(tuple(maker.found), maker.answer, maker.left_out, tuple(maker.opened))


def answer_of(bundle: Bundle, graph: str, outputs: Iterable[str]) -> tuple[str, ...]:
    """The outputs that are the student's answer: all but what its early exits say."""
    said_early = {item.output for item in chain.exits_of(bundle.manifest, graph)[:-1]}
    return tuple(name for name in outputs if name not in said_early)


class _Maker:
    """Builds the offers of one bundle, kind by kind."""

    def __init__(
        self, bundle: Bundle, graph: str, golden: Arrays, ours: bool, engine: str, threads: int, policy: Policy
    ) -> None:
        self.bundle, self.graph, self.golden, self.ours = bundle, graph, golden, ours
        self.engine, self.threads, self.policy = engine, threads, policy
        self.found: list[Offer] = []
        self.left_out: dict[str, str] = {}
        self.opened: list[Closes] = []
        self.answer: tuple[str, ...] = ()
        self.lossless = codecs.available() if ours else ("none",)
        self.local_ms, self.down = 0.0, 0

    def make(self, run: Callable[[Mapping[str, Any]], Arrays]) -> None:
        self.local_ms, sd_ms, outputs = measured(lambda: run(self.golden))
        self.answer = answer_of(self.bundle, self.graph, outputs)
        self.down = sum(array.nbytes for array in outputs.values()) + FRAMING_BYTES
        cost = ActionCost(id="local", kind="local", head_ms=self.local_ms, head_sd_ms=sd_ms, basis="measured")
        self.found.append(Offer(cost, ways.Here(run, self.answer)))
        self.found += self._offloads()
        cuts = {cut.point.id: cut for cut in self._cuts()}
        for cut in cuts.values():
            self.found += self._splits(cut)
        self.found += self._early(cuts)

    # the inputs to the server

    def _offloads(self) -> Iterator[Offer]:
        rows = worth(codecs.measure(name, self.golden.values()) for name in self.lossless)
        for row in rows:
            cost = self._sent(row, "offload", "offload", 0.0, self.local_ms / _SERVER_GAIN)
            yield self._whole(cost, dict.fromkeys(self.golden, row.codec))
        listed = [row for row in self.bundle.manifest.actions if row.kind == "offload" and self.graph in row.graphs]
        for action in listed:
            offer = self._picture(action, min(row.bytes for row in rows))
            if offer is not None:
                yield offer

    def _picture(self, action: Action, least_bytes: int) -> Offer | None:
        """A lossy codec on the pictures, the other inputs as they are."""
        name = f"offload:{action.codec}"
        why = self._why_not(action.accuracy_drop, _high(action)) or ("" if self.ours else _PLAIN_ONLY)
        pictures = [key for key, array in self.golden.items() if codecs.takes(action.codec, array)]
        try:
            row = None if why else codecs.measure(action.codec, [self.golden[key] for key in pictures])
        except EdgekitError as error:  # its package is missing, or the example is no picture
            why = error.told
            row = None
        if row is None or not pictures:
            self.left_out[name] = why or f"no input is a picture that {action.codec} takes"
            return None
        others = sum(array.nbytes for key, array in self.golden.items() if key not in pictures)
        row = dataclasses.replace(row, bytes=row.bytes + others)
        if row.bytes >= least_bytes:
            self.left_out[name] = f"{row.bytes} bytes here, a lossless codec sends {least_bytes}"
            return None
        cost = self._lossy(self._sent(row, "offload", "offload", 0.0, self.local_ms / _SERVER_GAIN), action)
        return self._whole(cost, dict.fromkeys(pictures, action.codec))

    def _whole(self, cost: ActionCost, chosen: Mapping[str, str]) -> Offer:
        sha256 = self.bundle.graph(self.graph).sha256 if self.ours else ""
        manifest = self.bundle.manifest
        own = {tensor.name: tensor for tensor in self.bundle.graph(self.graph).inputs}
        # The student's shapes with the graph's dtypes: TFLite takes int32 where the student takes int64.
        inputs = [
            msgspec.structs.replace(t, dtype=own[t.name].dtype if t.name in own else t.dtype) for t in manifest.inputs
        ]
        way = ways.Send(inputs, {axis.symbol: axis for axis in manifest.axes})
        return Offer(cost, way, manifest.name, chosen, sha256)

    # the tail to the server

    def _cuts(self) -> Iterator[_Cut]:
        for depth, point in enumerate(chain.split_points(self.bundle.manifest, self.graph)):
            given = {tensor.name for name in point.after for tensor in self.bundle.graph(name).outputs}
            if not given.issuperset(self.answer):
                self.left_out[f"split:{point.place or point.id}"] = "its tail does not give the whole answer"
                continue
            head = chain.Chain(self.bundle, self.graph, stop=point.id, engine=self.engine, threads=self.threads)
            self.opened.append(head)
            head_ms, _, values = measured(lambda head=head: head.run(self.golden))  # type: ignore[misc]
            share = max(1 - head_ms / max(self.local_ms, 1e-6), 0.05)
            yield _Cut(point, depth, head, head_ms, values, share * self.local_ms / _SERVER_GAIN)

    def _splits(self, cut: _Cut) -> Iterator[Offer]:
        name = f"split:{cut.place}"
        row = self._smallest(cut)
        yield self._to_tail(cut, self._sent(row, name, "split", cut.head_ms, cut.tail_ms), ways.Head(cut.head))
        action = self._measured(cut)
        if action is None:
            return
        row = codecs.measure(action.codec, cut.values.values())
        cost = self._lossy(self._sent(row, name, "split", cut.head_ms, cut.tail_ms), action)
        yield self._to_tail(cut, cost, ways.Head(cut.head))

    def _smallest(self, cut: _Cut) -> codecs.Measured:
        rows = worth(codecs.measure(name, cut.values.values()) for name in self.lossless)
        return min(rows, key=lambda seen: seen.bytes)

    def _measured(self, cut: _Cut) -> Action | None:
        """int8 on a float wire, where conversion has measured what it costs."""
        wanted = f"split:{cut.point.id}:{codecs.INT8_ROW}"
        action = next((row for row in self.bundle.manifest.actions if row.id == wanted), None)
        floats = any(array.dtype.kind == "f" for array in cut.values.values())
        if action is None and not floats:
            return None
        why = "" if self.ours else _PLAIN_ONLY
        if action is None:
            why = why or "what it costs in accuracy was not measured at this place"
        else:
            why = why or self._why_not(action.accuracy_drop, _high(action))
        if why:
            self.left_out[f"split:{cut.place}:{codecs.INT8_ROW}"] = why
            return None
        return action

    def _to_tail(self, cut: _Cut, cost: ActionCost, way: ways.Way) -> Offer:
        cost = msgspec.structs.replace(cost, split_point=cut.place, depth=cut.depth)
        sha256 = tail_sha256(self.bundle, cut.point) if self.ours else ""
        model = f"{self.bundle.manifest.name}.tail.{cut.point.id}"
        return Offer(cost, way, model, dict.fromkeys(cut.values, cost.codec), sha256)

    # exits

    def _early(self, cuts: Mapping[str, _Cut]) -> Iterator[Offer]:
        points = []
        ids, digest = chain.chain_of(self.bundle.manifest, self.graph)
        for point in self.bundle.manifest.operating_points:
            if point.of != self.graph or point.steps:  # exits of a stream are not those of a request
                continue
            why = self._why_not(point.empirical_risk, point.risk) or _never(point)
            if point.graph_chain != ids or point.chain_sha256 not in ("", digest):
                why = "it was certified for other graphs than those of this bundle"
            if why:
                self.left_out[_early_name(point)] = why
            else:
                points.append(point)
        if not points:
            return
        opened = LeavingChain(self.bundle, self.graph, engine=self.engine, threads=self.threads)
        self.opened.append(opened)
        if self.answer != (opened.exits[-1].output,):
            said = f"the student answers {', '.join(self.answer)}, its exits {opened.exits[-1].output} only"
            self.left_out |= {_early_name(point): said for point in points}
            return
        leave_ms = _ways_out(opened, self.golden)
        for point in points:
            yield self._early_here(opened, point, leave_ms)
            yield from self._early_then(opened, point, leave_ms, cuts)

    def _early_here(self, opened: LeavingChain, point: OperatingPoint, leave_ms: list[float]) -> Offer:
        mean_ms, sd_ms = early.spent(leave_ms, point.exit_fractions)
        cost = ActionCost(
            id=_early_name(point),
            kind="exit",
            head_ms=mean_ms,
            head_sd_ms=sd_ms,
            accuracy_drop=point.empirical_risk,
            accuracy_drop_high=point.risk,
            basis="measured",
        )
        return Offer(cost, ways.EarlyHere(opened, point, leave_ms))

    def _early_then(
        self, opened: LeavingChain, point: OperatingPoint, leave_ms: list[float], cuts: Mapping[str, _Cut]
    ) -> Iterator[Offer]:
        for last, item in enumerate(opened.exits[:-1]):
            cut = cuts.get(item.after)
            going = early.going_on(point.exit_fractions, last)
            if cut is None or going in (0.0, 1.0):
                continue  # no tail there, or one of the two plain actions in disguise
            name = f"{_early_name(point)}:split:{cut.place}"
            if not hands_over(point):
                self.left_out[name] = "its exits are mixed into the full answer, which a tail alone does not give"
                continue
            mean_ms, sd_ms = early.spent(leave_ms[: last + 1], point.exit_fractions)
            cost = self._sent(self._smallest(cut), name, "exit", mean_ms, cut.tail_ms)
            cost = msgspec.structs.replace(
                cost,
                head_sd_ms=sd_ms,
                offload_fraction=going,
                accuracy_drop=point.empirical_risk,
                accuracy_drop_high=point.risk,
            )
            yield self._to_tail(cut, cost, ways.EarlyThenSend(opened, point, last, leave_ms))

    # what they share

    def _why_not(self, drop: float | None, high: float | None) -> str:
        """Why an action that may lose accuracy is not offered; empty: it is."""
        if drop is None or high is None:
            return "what it costs in accuracy was not measured"
        if self.policy.max_risk is None:
            return f"may lose {high:.4g} of accuracy, and the policy names no max_risk"
        if high > self.policy.max_risk:
            return f"may lose {high:.4g} of accuracy, {self.policy.max_risk:g} is allowed"
        return ""

    def _lossy(self, cost: ActionCost, action: Action) -> ActionCost:
        drop = max(action.accuracy_drop or 0.0, 0.0)
        return msgspec.structs.replace(cost, accuracy_drop=drop, accuracy_drop_high=_high(action))

    def _sent(self, row: codecs.Measured, name: str, kind: str, head_ms: float, tail_ms: float) -> ActionCost:
        return ActionCost(
            id=name if row.codec == "none" else f"{name}:{row.codec}",
            kind=kind,  # type: ignore[arg-type]
            head_ms=head_ms,
            encode_ms=row.encode_ms,
            offload_fraction=1.0,
            bytes_up=row.bytes + FRAMING_BYTES,
            bytes_down=self.down,
            decode_ms=row.decode_ms,
            tail_ms=tail_ms,
            codec=row.codec,
            basis="assumed",
        )


_PLAIN_ONLY = "the server takes plain tensors only"


def _ways_out(opened: LeavingChain, golden: Arrays) -> list[float]:
    """Time until each exit, the full answer last, ms: by thresholds that all or none of the scores reach."""
    count = len(opened.exits)
    found: list[float] = []
    for number in range(count):
        thresholds = [NEVER] * number + [0.0] * (count - number)
        found.append(measured(lambda given=thresholds: opened.infer(golden, given))[0])  # type: ignore[misc]
    return found


def _early_name(point: OperatingPoint) -> str:
    return f"exit:{point.risk:g}"


def _never(point: OperatingPoint) -> str:
    return "" if any(share > 0 for share in point.exit_fractions[:-1]) else "no exit is sure enough at this risk"


def _high(action: Action) -> float | None:
    """The loss to reckon with: the upper end of the interval."""
    if action.accuracy_drop is None or action.interval_95 is None:
        return None
    return max(action.interval_95[1], action.accuracy_drop, 0.0)
