"""The measurement document: numbers read on a device, with raw samples, environment and verdict.

A figure that the sample cannot support is withheld with its reason, never printed; an absent sensor is `unavailable`,
never 0. The same document is written by the profiler and read by the runtime (to choose a graph) and by the reports.
"""

from __future__ import annotations

from typing import Literal

from edgekit_runtime.manifest import Base

SCHEMA = "edgekit.measurement/1"


class Latency(Base, frozen=True, kw_only=True):
    """Steady-state latency of one inference. `samples` are raw, in order of time. None: withheld or not measured.

    `processes` says how many samples each fresh process gave, in order: they add up to `n`.
    The intervals are of the median; a prediction has both, a measurement that of 95 %.
    """

    p50: float | None = None
    p90: float | None = None
    p99: float | None = None
    mean: float | None = None
    n: int
    samples: tuple[float, ...] = ()
    interval_95: tuple[float, float] | None = None
    p95: float | None = None
    interval_95_p90: tuple[float, float] | None = None
    interval_95_p99: tuple[float, float] | None = None
    processes: tuple[int, ...] = ()
    interval_80: tuple[float, float] | None = None


class Memory(Base, frozen=True, kw_only=True):
    """Bytes: the file on disk, resident growth by opening and by the first run, and the peak of an isolated process.

    `arena_bytes` is what the first run adds: the activations, where the engine allocates them then (ONNX Runtime);
    LiteRT plans its arena while opening, and they are part of `open_bytes`. `card_bytes` is what the process holds on a
    graphics card.
    """

    file_bytes: int
    open_bytes: int | None = None
    peak_rss_bytes: int | None = None
    arena_bytes: int | None = None
    card_bytes: int | None = None


class Energy(Base, frozen=True, kw_only=True):
    """Energy of one inference in millijoules, with where the figure comes from.

    Attributes:
        kind: What the figure rests on; `unavailable` has no figure, and the reason.
        mj: Gross: all that the meter or the model covers, idle share included.
        net_mj: What is above idling; None where that is not known.
    """

    kind: Literal["measured", "modelled", "unavailable"]
    mj: float | None = None
    net_mj: float | None = None
    method: str = ""
    source: str = ""
    reason: str = ""


class OpCost(Base, frozen=True, kw_only=True):
    """One operator as the engine ran it. `ms`, `macs` and `bytes` are those of all its calls in one run.

    Attributes:
        name: The engine's node name.
        kind: The operator type it executed.
        bytes: What it reads and writes; of a table the rows it takes.
        int8: Whether it multiplied 8-bit integers.
        calls: Times it runs in one run of the graph (the body of a recurrence: once a step).
        inputs: Shape of each input of one call by position; an absent one is empty. Nothing: not told.
        outputs: Shape of each output of one call.
        dtype: What it computes in, where the engine tells: float32, int32, ...; of a comparison what is compared.
        delegate: Who ran it: an execution provider of ONNX Runtime, XNNPACK or LiteRT's own kernels; empty: not told.
    """

    name: str
    kind: str
    ms: float | None = None
    macs: int | None = None
    bytes: int | None = None
    int8: bool = False
    delegate: str = ""
    calls: int = 1
    inputs: tuple[tuple[int, ...], ...] = ()
    outputs: tuple[tuple[int, ...], ...] = ()
    dtype: str = ""


class Placement(Base, frozen=True, kw_only=True):
    """What one delegate or execution provider runs of a graph, so that a silent fallback shows.

    Attributes:
        delegate: Its name.
        ops: Operators it runs.
        ms_fraction: Its share of the time of all operators; None where the engine gives no times.
        macs_fraction: Its share of the multiply-accumulates that are known; None where none is.
        kinds: Operator types it runs, the most expensive first.
    """

    delegate: str
    ops: int
    ms_fraction: float | None = None
    macs_fraction: float | None = None
    kinds: tuple[str, ...] = ()


class Duty(Base, frozen=True, kw_only=True):
    """Latency in the rhythm of an application, because a tight loop is not one.

    Attributes:
        name: `after_pause`, `paced_1_hz`, `paced_5_hz`, `paced_30_hz` or `burst`.
        idle_ms: Pause before each run (of the whole burst), in ms.
        n: Runs.
        p50: Median in ms; None where there are too few runs for one.
        mean: Mean in ms.
        max: Longest run in ms.
        samples: ms, in order.
        ratio: Median over that of the tight loop in the same process; None where one is missing.
    """

    name: str
    idle_ms: float
    n: int
    p50: float | None = None
    mean: float | None = None
    max: float | None = None
    samples: tuple[float, ...] = ()
    ratio: float | None = None


class Around(Base, frozen=True, kw_only=True):
    """What surrounds the engine's own work, in ms; None: not measured, and `reason` says why.

    Attributes:
        encode_ms: The bundle's own preprocessing of one made-up raw item.
        decode_ms: Labels from the outputs.
        session_ms: `session.run` above the engine's call: checks, padding, names.
        operators_ms: Sum of the operators of one run as the engine's profile tells it.
        outside_operators_ms: The median run less `operators_ms`: the engine's own bookkeeping and Python's call.
        reason: Why something is missing.
    """

    encode_ms: float | None = None
    decode_ms: float | None = None
    session_ms: float | None = None
    operators_ms: float | None = None
    outside_operators_ms: float | None = None
    reason: str = ""


class Environment(Base, frozen=True, kw_only=True):
    """The machine while measuring. None: this machine does not tell.

    `clock_mhz` is what the machine claims, `clock_measured_mhz` what a loop of known length ran at (median over fresh
    processes); `foreign_cores` is CPU time of other processes while sampling, in cores.
    """

    cpu: str
    governor: str | None = None
    clock_mhz: float | None = None
    temperature_c: float | None = None
    throttled: bool | None = None
    load: float | None = None
    swap: int | None = None
    clock_measured_mhz: float | None = None
    foreign_cores: float | None = None
    involuntary_switches_per_s: float | None = None
    memory_bytes: int | None = None
    cores: int | None = None
    kernel: str = ""
    python: str = ""


class Verdict(Base, frozen=True, kw_only=True):
    """May a person stand behind the numbers?"""

    kind: Literal["sound", "noisy", "invalid"]
    reasons: tuple[str, ...] = ()


class Measurement(Base, frozen=True, kw_only=True):
    """One graph on one engine of one device with one number of threads.

    Attributes:
        graph: Graph id within the bundle, or the file's name for a bare file.
        graph_sha256: Hash of the graph file, so that a measurement finds its graph again.
        inputs: Shape of each input as measured.
        length: Size of the length axes where one was asked for (a sweep): such a document does not decide which graph
            runs, as other graphs may have been measured at another length. None: that of the golden inputs.
        throughput_per_s: Samples a second of one caller in a tight loop (batch over time).
        placement: Share of the work by delegate or execution provider.
        duty: Latency in the rhythms of applications, where asked for.
        around: What surrounds the engine's own work.
        remarks: What could not be told, and why (no times per operator, say). They do not touch the verdict.
    """

    schema: Literal["edgekit.measurement/1"] = "edgekit.measurement/1"
    device: str
    engine: str
    engine_version: str
    threads: int
    precision: str
    graph: str
    graph_sha256: str = ""
    bundle_id: str = ""
    inputs: dict[str, tuple[int, ...]]
    latency_ms: Latency
    withheld: dict[str, str] = {}
    open_ms: float | None = None
    first_ms: float | None = None
    memory: Memory
    energy: Energy
    ops: tuple[OpCost, ...] = ()
    environment: Environment
    verdict: Verdict
    predicted: bool = False
    length: int | None = None
    throughput_per_s: float | None = None
    placement: tuple[Placement, ...] = ()
    duty: tuple[Duty, ...] = ()
    around: Around | None = None
    remarks: tuple[str, ...] = ()
    uncovered_macs_fraction: float | None = None
