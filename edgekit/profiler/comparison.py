"""Is A faster than B? Two graphs in turns, in fresh processes, with an interval and a verdict.

    round 1                      round 2                      ...   every round: two fresh processes, both resident,
    A ▁█▁▁█ ▁█▁▁█ ▁█▁▁█          A █▁▁█▁ █▁▁█▁                      of which one runs at a time
    B ▁▁██▁ ▁▁██▁ ▁▁██▁          B ▁██▁▁ ▁██▁▁                      ABBA cancels a drift of the machine

What happens to the machine in a second touches both; what differs from process to process (where memory lies, which
kernels were chosen) is seen between rounds, and the interval is resampled by round. A clear answer ends a comparison
early at one of a few looks, each of which has its share of the 5 % (`sequential`).
"""

from __future__ import annotations

import dataclasses
import math
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import msgspec
import numpy as np

from edgekit.profiler import environment, sequential, statistics
from edgekit.profiler.process import Worker
from edgekit.profiler.sequential import FEWEST_ROUNDS, MOST_ROUNDS
from edgekit.profiler.targets import SUFFIXES, Job, plan, resolve, split_spec
from edgekit.profiler.trial import begin, finish
from edgekit_runtime import open as open_session
from edgekit_runtime.errors import GateFailed, InputMismatch, UsageError
from edgekit_runtime.manifest import Base
from edgekit_runtime.measurement import Environment

Progress = Callable[[str], None]

BUDGET_S = 22.0
MARGIN = 0.02
_ROUND_S = 0.9  # sampling in one round, at most
_BLOCK_S = 0.02
_ONE_STUDENT = "compare graphs of one student, at one batch and length"


class Round(Base, frozen=True, kw_only=True):
    """One pair of fresh processes.

    Attributes:
        a_ms: Median latency of A over its blocks.
        b_ms: Median latency of B.
        ratio: A over B in this round, from adjacent blocks.
        pairs: Number of adjacent block pairs.
        foreign_cores: CPU time of other processes meanwhile, in cores.
        a_blocks_ms: Median latency of each block of A, in pairs with those of B.
        b_blocks_ms: As `a_blocks_ms`.
    """

    a_ms: float
    b_ms: float
    ratio: float
    pairs: int
    foreign_cores: float
    a_blocks_ms: tuple[float, ...] = ()
    b_blocks_ms: tuple[float, ...] = ()


class Comparison(Base, frozen=True, kw_only=True):
    """What a comparison found.

    Attributes:
        a: What A is.
        b: What B is.
        verdict: A against B: `faster` means that A takes less time.
        ratio: Time of A over time of B; below 1 A is faster.
        interval_95: Interval of the ratio, which holds the truth in 95 % of comparisons although they may end early.
        alpha: The share of the 5 % that this interval was drawn with (`sequential`).
        margin_fraction: A difference within this margin does not count.
        a_ms: Median of A over rounds.
        b_ms: Median of B over rounds.
        runs: The rounds.
        seconds: How long the comparison took.
        reasons: The verdict in words, and what stood in its way.
        environment: The machine when it ended; None: not told.
    """

    a: str
    b: str
    verdict: statistics.CompareVerdict
    ratio: float
    interval_95: tuple[float, float]
    alpha: float
    margin_fraction: float
    a_ms: float
    b_ms: float
    runs: tuple[Round, ...]
    seconds: float
    reasons: tuple[str, ...]
    environment: Environment | None = None


@dataclasses.dataclass(frozen=True)
class Turns:
    """Block medians of one round in ms, pair by pair, and what the rest of the machine did."""

    a: list[float]
    b: list[float]
    foreign_seconds: float
    seconds: float


def compare(
    a: str | Path,
    b: str | Path,
    *,
    engine: str | None = None,
    threads: int = 1,
    margin: float = MARGIN,
    duration_s: float = BUDGET_S,
    progress: Progress = lambda label: None,
) -> Comparison:
    """Compares the latency of two graphs on this machine.

    Both get the same inputs: the golden ones of A (of B where A is a bare file), else seeded ones.

    Args:
        a: A bundle, `BUNDLE:GRAPH`, or an `.onnx` or `.tflite` file. A bundle without a graph stands for the one
            that a session takes here.
        b: The other one. A bundle without a graph stands for that of A where it has it.
        engine: Engine for both; None: the first installed one for each format.
        threads: Threads of each.
        margin: Equivalence margin as a fraction: only a difference beyond it counts.
        duration_s: Seconds after which no further round is begun.
        progress: Called with a line for each round.

    Raises:
        UsageError: Impossible numbers, unknown graphs or engines.
        Refused: One of them cannot be read or run, or they take different inputs.
    """
    if not 0 <= margin < 1 or duration_s <= 0 or threads < 1:
        raise UsageError(
            f"margin {margin:g}, duration {duration_s:g} s, {threads} threads",
            remedy="the margin lies between 0 and 1 (0.02 is 2 %), duration and threads are above 0",
        )
    start = time.monotonic()
    job_a = _job(a, engine, threads)
    job_a, job_b = _same_inputs(job_a, _job(b, engine, threads, like=job_a))
    before = environment.before()
    sampling_s = min(_ROUND_S, duration_s / MOST_ROUNDS)
    with tempfile.TemporaryDirectory(prefix="edgekit-compare-") as name:

        def measure(number: int) -> Turns:
            progress(f"round {number + 1}: two fresh processes in turns")
            return _round(job_a, job_b, Path(name), sampling_s, flip=number % 2 == 1)

        try:
            rounds, alpha = take_rounds(measure, margin, lambda: time.monotonic() - start, duration_s)
        except InputMismatch as error:  # each takes its own bundle's golden inputs, not those of the other
            raise UsageError(f"A and B take different inputs: {error.message}", remedy=_ONE_STUDENT) from error
    found = conclude(job_a.label, job_b.label, rounds, margin, time.monotonic() - start, alpha=alpha)
    return msgspec.structs.replace(found, environment=environment.read(before.throttles))


def take_rounds(
    measure: Callable[[int], Turns], margin: float, elapsed_s: Callable[[], float], duration_s: float
) -> tuple[list[Turns], float]:
    """Rounds until the answer is clear at a look, the time is over, or there are enough.

    Args:
        measure: Makes one round; gets the number of rounds before it.
        margin: As in `compare`.
        elapsed_s: Seconds since the comparison began.
        duration_s: As in `compare`.

    Returns:
        The rounds, and the error that the interval over them may make.
    """
    rounds: list[Turns] = []
    while True:
        rounds.append(measure(len(rounds)))
        last = _is_last(len(rounds), elapsed_s(), duration_s)
        alpha = sequential.share(len(rounds), last=last)
        if last or (alpha > 0 and _is_clear(rounds, margin, alpha)):
            return rounds, alpha


def conclude(
    a: str, b: str, rounds: Sequence[Turns], margin: float, seconds: float, *, alpha: float | None = None
) -> Comparison:
    """The answer from the rounds (pure).

    Args:
        a: What A is.
        b: What B is.
        rounds: At least two.
        margin: As in `compare`.
        seconds: How long they took.
        alpha: Error that the interval may make, from `take_rounds`; None: what the last look has after so many rounds.
    """
    alpha = sequential.share(len(rounds), last=True) if alpha is None else alpha
    ratio, low, high = statistics.ratio_interval([(turns.a, turns.b) for turns in rounds], alpha=alpha)
    verdict = statistics.decide((low, high), margin)
    runs = tuple(
        Round(
            a_ms=float(np.median(turns.a)),
            b_ms=float(np.median(turns.b)),
            ratio=float(np.exp(np.median(np.log(turns.a) - np.log(turns.b)))),
            pairs=len(turns.a),
            foreign_cores=turns.foreign_seconds / turns.seconds if turns.seconds else 0.0,
            a_blocks_ms=tuple(map(float, turns.a)),
            b_blocks_ms=tuple(map(float, turns.b)),
        )
        for turns in rounds
    )
    foreign = float(np.mean([run.foreign_cores for run in runs]))
    words = {
        "faster": f"A takes {ratio:.3g} times the time of B",
        "slower": f"A takes {ratio:.3g} times the time of B",
        "no_difference_shown": f"they are equal within {margin:.1%}"
        if equivalent((low, high), margin)
        else f"a difference beyond {margin:.1%} is not shown",
        "too_noisy": f"the interval is {math.sqrt(high / low) - 1:.0%} wide to either side: it hides what matters",
    }
    reasons = [words[verdict]]
    if foreign > statistics.NOISY_FOREIGN_CORES:
        reasons.append(f"other processes used {foreign:.1f} cores meanwhile")
    return Comparison(
        a=a,
        b=b,
        verdict=verdict,
        ratio=ratio,
        interval_95=(low, high),
        alpha=alpha,
        margin_fraction=margin,
        a_ms=float(np.median([run.a_ms for run in runs])),
        b_ms=float(np.median([run.b_ms for run in runs])),
        runs=runs,
        seconds=seconds,
        reasons=tuple(reasons),
    )


def equivalent(interval: tuple[float, float], margin: float) -> bool:
    """Whether the whole interval of the ratio lies within the margin: equal as far as anybody asked."""
    return interval[0] * (1 + margin) > 1 and interval[1] < 1 + margin


def gate(comparison: Comparison, limit: float) -> None:
    """Says no when A is shown to be slower than B and the ratio is beyond the limit.

    Args:
        comparison: What `compare` found.
        limit: Slowdown that is still accepted, as a fraction.

    Raises:
        GateFailed: A is slower than accepted.
    """
    if comparison.verdict == "slower" and comparison.ratio > 1 + limit:
        low, high = comparison.interval_95
        raise GateFailed(
            f"{comparison.a} is {comparison.ratio - 1:.1%} slower than {comparison.b} "
            f"(interval {low - 1:+.1%} to {high - 1:+.1%}); at most {limit:.1%} is accepted",
            remedy="find the operator that got slower with `edgekit profile --report`, or raise --fail-if-slower",
        )


def _job(spec: str | Path, engine: str | None, threads: int, like: Job | None = None) -> Job:
    path, graph = split_spec(spec)
    if graph is None and (path.is_dir() or path.suffix.lower() not in SUFFIXES):
        if like is not None and any(like.target.graph == target.graph for target in resolve(path)):
            return plan(resolve(path, like.target.graph), engine=like.engine, threads=(threads,))[0][0]
        with open_session(path, engine=engine, threads=threads) as session:
            graph, engine = session.graph.id, session.engine_name
    jobs, _ = plan(resolve(path, graph)[:1], engine=engine, threads=(threads,))
    return jobs[0]


def _same_inputs(a: Job, b: Job) -> tuple[Job, Job]:
    """Both jobs with one source of inputs: the golden ones of a bundle serve a bare file, too."""
    golden_a = a.target.bundle.golden_inputs() if a.target.bundle else {}
    golden_b = b.target.bundle.golden_inputs() if b.target.bundle else {}
    shared = golden_a or golden_b
    if not shared:
        return a, b
    return dataclasses.replace(a, given=shared), dataclasses.replace(b, given=shared)


def _is_last(done: int, elapsed_s: float, budget_s: float) -> bool:
    """Whether no round follows: decided by the number of rounds and the clock alone, never by what was measured."""
    return done >= MOST_ROUNDS or (done >= FEWEST_ROUNDS and elapsed_s * (done + 1) / done > budget_s)


def _is_clear(rounds: Sequence[Turns], margin: float, alpha: float) -> bool:
    """Whether the interval at this look lies beyond the margin, or within it."""
    _, low, high = statistics.ratio_interval([(turns.a, turns.b) for turns in rounds], alpha=alpha)
    return low > 1 + margin or high * (1 + margin) < 1 or equivalent((low, high), margin)


def _round(a: Job, b: Job, folder: Path, sampling_s: float, *, flip: bool) -> Turns:
    """Two fresh processes, opened together, then block by block: ABBA, or BAAB when flipped."""
    with Worker(folder, a.label) as worker_a, Worker(folder, b.label) as worker_b:
        begin(worker_a, a)
        begin(worker_b, b)
        shapes_a, shapes_b = finish(worker_a, a, folder).inputs, finish(worker_b, b, folder).inputs
        if sorted(map(math.prod, shapes_a.values())) != sorted(map(math.prod, shapes_b.values())):
            raise UsageError(
                f"A and B take inputs of different size ({shapes_a} and {shapes_b}): their times cannot be compared",
                remedy=_ONE_STUDENT,
            )
        slowest = max(worker.ask("warm", limit_s=0.4)["run_ms"] for worker in (worker_a, worker_b))
        if flip:
            turns = _blocks(worker_b, worker_a, slowest, sampling_s)
            return dataclasses.replace(turns, a=turns.b, b=turns.a)
        return _blocks(worker_a, worker_b, slowest, sampling_s)


def _blocks(first: Worker, second: Worker, run_ms: float, sampling_s: float) -> Turns:
    skip = 1 if run_ms < _BLOCK_S * 1000 else 0
    foreign = seconds = 0.0
    ones: list[float] = []
    twos: list[float] = []
    end = time.monotonic() + sampling_s
    while not ones or time.monotonic() < end:
        medians = []
        for worker in (first, second, second, first):
            block = worker.ask("sample", duration_s=_BLOCK_S, min_runs=2, max_runs=2000, skip=skip)
            medians.append(float(np.median(block["samples_ms"])))
            foreign, seconds = foreign + block["foreign_seconds"], seconds + block["seconds"]
        ones += [medians[0], medians[3]]
        twos += [medians[1], medians[2]]
    return Turns(ones, twos, foreign, seconds)
