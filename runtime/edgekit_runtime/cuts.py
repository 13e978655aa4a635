"""The manifest's vocabulary of cuts, exits and cascades. Read it from `edgekit_runtime.manifest`."""

from __future__ import annotations

from typing import Literal

from edgekit_runtime.strict import Base


class WireTensor(Base, frozen=True, kw_only=True):
    """A tensor that crosses a split point."""

    name: str
    dtype: str
    shape: tuple[int | str, ...]
    scale: float | None = None
    zero_point: int | None = None


class SplitPoint(Base, frozen=True, kw_only=True):
    """A place between two segments.

    Attributes:
        id: `FULL_GRAPH.PLACE`: the same place in another format or precision has other tensors.
        tensors: What crosses, in the names and dtypes of the graphs.
        tail_inputs: Inputs of the student that the tail needs again.
        bytes: On the wire for one sample of the example's size: int8 where a float crosses, inputs as they are.
        before: The segments that make up the head, in the order they run.
        after: The segments that make up the tail.
        of: Id of the full graph that is cut here.
        place: Name of the place, the same in every format: the module of the student that ends here.
        macs_before: Multiply-accumulates of the head for one sample of the example's size.
        macs_after: Those of the tail.
    """

    id: str
    tensors: tuple[WireTensor, ...]
    tail_inputs: tuple[str, ...] = ()
    bytes: int
    before: tuple[str, ...]
    after: tuple[str, ...]
    of: str = ""
    place: str = ""
    macs_before: int = 0
    macs_after: int = 0


class Exit(Base, frozen=True, kw_only=True):
    """A branch that already gives an answer.

    Attributes:
        id: `FULL_GRAPH.OUTPUT`, or the output's name while the student is whole.
        output: The student's output that it gives.
        after: Split point it stands on; empty for the full answer.
        score_rule: How sure it is, from its scores: see `edgekit_runtime.exits.SCORES`.
        of: Id of the full graph.
        graph: Id of the graph that is run at the split point; empty for the full answer.
    """

    id: str
    output: str
    after: str = ""
    score_rule: str = "max_softmax"
    of: str = ""
    graph: str = ""


class First(Base, frozen=True, kw_only=True):
    """The cheaper student of a cascade, which is asked first: another bundle, by its identity.

    Attributes:
        name: Of its bundle.
        bundle_id: Of its bundle: no other is used.
        graph: Id of its full graph.
        sha256: Of that graph's file.
        output: Its output that holds the scores.
        shared: It takes the very arrays that this student takes; False: its own, `first.NAME` beside them.
    """

    name: str
    bundle_id: str
    graph: str
    sha256: str
    output: str
    shared: bool


class OperatingPoint(Base, frozen=True, kw_only=True):
    """Thresholds for a chain of graphs that together hold a certified risk.

    Attributes:
        graph_chain: Segments and exit heads in the order they run.
        thresholds: One an exit, in order of depth; an exit is taken when its score reaches it, and the last (the full
            answer) is 0. Above 1 means never.
        risk: With the confidence given, at most this share of requests gets a wrong answer because of an exit.
        confidence_level: 1 - delta.
        n: Samples it was certified on.
        empirical_risk: Share of these that got one.
        exit_fractions: Share of these that left at each exit.
        labels: True: wrong against labels where the full answer is right; False: differs from the full answer.
        of: Id of the full graph.
        mixes: For each exit the weight of the scores of every exit up to it; empty: each exit speaks for itself.
        score_rule: How sure an exit is; see `edgekit_runtime.exits.SCORES`.
        chain_sha256: Of the sha256 of the graphs of the chain, in their order: the certificate holds for these files.
        steps: Not empty: the exits are the steps of a stream, and an answer is the logits of the step reached (`last`)
            or the mean of the logits of all steps so far (`mean`); `thresholds` holds one a step.
        output: For a stream or a cascade: name of the output that holds the logits.
        first: Set: a cascade. That student answers what it is sure of, the full graph `of` the rest; the thresholds are
            one for each of the two, and `chain_sha256` is over the hashes of the two graphs.
    """

    id: str
    graph_chain: tuple[str, ...]
    thresholds: tuple[float, ...]
    risk: float
    confidence_level: float
    n: int
    empirical_risk: float
    exit_fractions: tuple[float, ...]
    labels: bool = False
    of: str = ""
    mixes: tuple[tuple[float, ...], ...] = ()
    score_rule: str = "max_softmax"
    chain_sha256: str = ""
    steps: Literal["", "last", "mean"] = ""
    output: str = ""
    first: First | None = None

    @property
    def in_depth(self) -> bool:
        """Are its exits those of one student's chain, not the steps of a stream or the students of a cascade?"""
        return not self.steps and self.first is None

    @property
    def unwatched(self) -> str:
        """Why a session's drift alarm (`remote.watch`) does not watch it; empty: it does."""
        if self.steps:
            return "a stream is one answer a step, without a full one beside it"
        if self.labels:
            return "certified on labels, which no request carries: drift stays unseen"
        return ""
