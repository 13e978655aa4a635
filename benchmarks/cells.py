"""What the matrix knows of one student in one format, and whether that counts as working. Pure."""

from __future__ import annotations

from typing import Literal

import msgspec

FORMATS = ("onnx", "tflite")

# students.md, "Works": the limits of a working row.
FP32_ERROR = 1e-4
DROP = 0.01
AGREEMENT = 0.99
COSINE = 0.995
SQNR_DB = 35.0
INT8_WEIGHTS = 0.95
INVARIANCE = 0.9999
# Metrics whose size says nothing by itself.
UNBOUNDED = ("perplexity", "mse")
# Two sessions of one graph differ by this much in a short alternation on a shared machine.
NOT_SLOWER = 0.97


class Quality(msgspec.Struct, frozen=True):
    """What int8 lost: the task's metric, and distance from the student."""

    metric: str
    reference: float
    value: float
    drop: float
    interval_95: tuple[float, float]
    n: int
    labels: bool
    agreement: float | None
    cosine: float
    sqnr_db: float | None


class Slice(msgspec.Struct, frozen=True):
    """What the gate saw of int8 on one group of the held-back samples; `reference` is the student's own value."""

    name: str
    reference: float
    value: float
    drop: float
    interval_95: tuple[float, float]
    n: int
    gate: str


class Held(msgspec.Struct, frozen=True):
    """How good a trained student itself is on held-back data: the metric with its interval over samples."""

    metric: str
    value: float
    interval_95: tuple[float, float]
    n: int


class Cell(msgspec.Struct, frozen=True):
    """One student in one format.

    Attributes:
        refused: Why there is no graph at all; empty when there is one.
        int8_refused: Why there is no int8 graph beside fp32; empty when there is one.
        fp32_error: Largest error of the fp32 graph relative to the output's range, over data and sizes.
        quality: Of the int8 graph; None where there is none.
        slices: Of the int8 graph, where the held-back samples have groups.
        weights: Share of the weight bytes that are int8 in the file.
        macs: Share of the multiply-accumulates that the engine runs in int8.
        size: Bytes of the int8 graph over those of fp32.
        batch: Worst cosine of an answer alone to the same answer in a batch; None without a batch axis.
        padding: Worst cosine of an answer to itself padded; None without a length axis.
        sizes: Sizes of each dynamic axis that ran right.
        failures: What did not run at some size, a line each.
        back_for_quality: Operators given back to float because int8 failed the gate.
        back_for_speed: Operators given back because their int8 form was not faster.
        back_for_speed_bytes: Share of the weight bytes that these hold in floating point.
        cuts: Places that the shipped graph is cut at; head and tail were proven to answer bit by bit as the whole.
        why: What the bundle says of the int8 graph (else of fp32).
    """

    refused: str = ""
    int8_refused: str = ""
    fp32_error: float = 0.0
    quality: Quality | None = None
    slices: list[Slice] = []
    weights: float = 0.0
    macs: float = 0.0
    size: float = 0.0
    batch: float | None = None
    padding: float | None = None
    sizes: dict[str, list[int]] = {}
    failures: list[str] = []
    back_for_quality: int = 0
    back_for_speed: int = 0
    back_for_speed_bytes: float = 0.0
    cuts: list[str] = []
    why: str = ""


class Speed(msgspec.Struct, frozen=True):
    """Medians in ms of everything timed in one alternation, and int8 against fp32 of each format with an interval."""

    median_ms: dict[str, float]
    gain: dict[str, tuple[float, float, float]]


class Twin(msgspec.Struct, frozen=True):
    """A student that is a program of integers, against the same network in floating point.

    Attributes:
        size: Bytes of the int8 graph over those of the twin's fp32 graph, by format.
        median_ms: Of `FORMAT.int8` and of the twin's `FORMAT.fp32`, timed in one alternation.
        gain: How many times faster the integers are, by format, with an interval.
    """

    size: dict[str, float]
    median_ms: dict[str, float]
    gain: dict[str, tuple[float, float, float]]


class Row(msgspec.Struct, frozen=True):
    """One student.

    Attributes:
        row: Of the table of reference students.
        text: Whether it reads nothing but whole numbers (words, characters).
        seconds: Of the conversion to both formats.
        natural: Places where the student is naturally cut.
        held: None without labelled data.
        twin: Of a student that is a program of integers and so has no fp32 graph.
        structure: By format, bytes of the int8 graph that are no constant, and all its bytes.
        trouble: Steps that left nothing, and why.
    """

    name: str
    row: int
    trained: bool
    text: bool
    seconds: float
    cells: dict[str, Cell]
    natural: tuple[str, ...] = ()
    held: Held | None = None
    stock: dict[str, str] = {}
    speed: Speed | None = None
    twin: Twin | None = None
    structure: dict[str, tuple[int, int]] = {}
    trouble: str = ""


State = Literal["works", "refused", "failed"]


class Verdict(msgspec.Struct, frozen=True):
    """Whether a cell works.

    Attributes:
        state: `refused` where the bundle itself says why there is no graph, or no int8 graph.
        reasons: What stands against the cell, or what makes a working one special.
    """

    state: State
    reasons: list[str]


def verdict(row: Row, kind: str) -> Verdict:
    """Judges one student in one format."""
    cell = row.cells.get(kind)
    if cell is None:
        return Verdict("failed", [row.trouble or "not run"])
    if cell.refused:
        return Verdict("refused", [cell.refused])
    wrong = [f"fp32 differs by {cell.fp32_error:.1e}"] if cell.fp32_error > FP32_ERROR else []
    wrong += cell.failures[:2]
    for name, value in (("batch", cell.batch), ("padding", cell.padding)):
        if value is not None and value < INVARIANCE:
            wrong.append(f"{name} changes answers (cosine {value:.5f})")
    if cell.quality is None:
        told = f"ships fp32: {cell.int8_refused}"
        if wrong:
            return Verdict("failed", [*wrong, told])
        # fp32 alone is a working row where int8 would be slower; int8 that loses too much is none.
        return Verdict("works" if "slower" in cell.int8_refused else "refused", [told])
    wrong += quality_trouble(cell.quality)
    if cell.weights + cell.back_for_speed_bytes < INT8_WEIGHTS:
        wrong.append(f"{cell.weights:.0%} of weight bytes are int8")
    if slower(row, kind):
        assert row.speed is not None
        gain = row.speed.gain[kind]
        wrong.append(f"int8 is slower: {gain[0]:.2f}x [{gain[1]:.2f}, {gain[2]:.2f}]")
    return Verdict("failed" if wrong else "works", wrong)


def slower(row: Row, kind: str) -> bool:
    """Whether the int8 graph was seen to be slower than fp32, beyond what one graph differs from itself."""
    gain = row.speed.gain.get(kind) if row.speed else None
    return gain is not None and gain[2] < NOT_SLOWER


def size_of(row: Row, kind: str) -> float:
    """Bytes of the int8 graph over those of fp32, which of a program of integers is its twin's."""
    return row.twin.size[kind] if row.twin and kind in row.twin.size else row.cells[kind].size


def loss(seen: Quality | Slice, metric: str) -> float:
    """What int8 lost as a share: of a metric from 0 to 1 the drop itself, of one without a scale the relative drop."""
    return seen.drop if metric.partition(" ")[0] not in UNBOUNDED else seen.drop / max(abs(seen.reference), 1e-12)


def quality_trouble(seen: Quality) -> list[str]:
    """What stands against the quality of an int8 graph."""
    if seen.labels:
        lost = loss(seen, seen.metric)
        return [f"loses {100 * lost:.2f} points of {seen.metric}"] if lost > DROP else []
    if seen.metric.startswith(("top1", "f1")):
        agreement = seen.agreement if seen.agreement is not None else 1 - seen.drop
        return [f"{agreement:.1%} agreement"] if agreement < AGREEMENT else []
    near = seen.cosine >= COSINE or (seen.sqnr_db or 99.0) >= SQNR_DB
    return [] if near else [f"cosine {seen.cosine:.4f}, {seen.sqnr_db or 99.0:.0f} dB"]
