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

    The intervals are of the median; a prediction has both, a measurement that of 95 %.
    """

    p50: float | None = None
    p90: float | None = None
    p99: float | None = None
    mean: float | None = None
    n: int
    samples: tuple[float, ...] = ()
    interval_95: tuple[float, float] | None = None
    interval_80: tuple[float, float] | None = None


class Memory(Base, frozen=True, kw_only=True):
    """Bytes: the file on disk, resident growth after opening, and the peak of an isolated process."""

    file_bytes: int
    open_bytes: int | None = None
    peak_rss_bytes: int | None = None


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
        int8: Whether it multiplied 8-bit integers.
        calls: Times it runs in one run of the graph (the body of a recurrence: once a step).
        inputs: Shape of each input of one call by position; an absent one is empty. Nothing: not told.
        outputs: Shape of each output of one call.
    """

    name: str
    kind: str
    ms: float | None = None
    macs: int | None = None
    bytes: int | None = None
    int8: bool = False
    calls: int = 1
    inputs: tuple[tuple[int, ...], ...] = ()
    outputs: tuple[tuple[int, ...], ...] = ()


class Environment(Base, frozen=True, kw_only=True):
    """The machine while measuring. None: this machine does not tell."""

    cpu: str
    governor: str | None = None
    clock_mhz: float | None = None
    temperature_c: float | None = None
    throttled: bool | None = None
    load: float | None = None
    swap: int | None = None


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
    uncovered_macs_fraction: float | None = None
