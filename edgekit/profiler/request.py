"""What a person asks of `edgekit profile`, as data: the same for this machine and for an agent elsewhere."""

from __future__ import annotations

from pathlib import Path

from edgekit.profiler.measure import Plan, make_plan
from edgekit_runtime.manifest import Base


class Request(Base, frozen=True, kw_only=True):
    """The options of one profile. See `edgekit.profiler.profile`.

    Attributes:
        engine: Engine to run on; None: the first installed one for each format.
        graph: One graph of a bundle; None: all its full graphs.
        threads: Numbers of threads to try.
        batch: Batch sizes to try.
        length: Lengths of a bundle's dynamic axes to try; empty: that of its golden inputs.
        sizes: Sizes of a bare file's dynamic axes, by symbol.
        duration_s: Seconds of sampling a graph; None: all together in under half a minute.
        memory_limit_mb: Megabytes a process may take.
        duty: Also the rhythms of applications.
    """

    engine: str | None = None
    graph: str | None = None
    threads: tuple[int, ...] = (1,)
    batch: tuple[int, ...] = (1,)
    length: tuple[int, ...] = ()
    sizes: dict[str, int] = {}
    duration_s: float | None = None
    memory_limit_mb: float | None = None
    duty: bool = False

    def plan(self, path: str | Path) -> Plan:
        """What will be measured here. See `measure.make_plan`."""
        return make_plan(
            path,
            engine=self.engine,
            graph=self.graph,
            threads=self.threads,
            batch=self.batch,
            length=self.length,
            sizes=self.sizes,
            duration_s=self.duration_s,
            memory_limit_mb=self.memory_limit_mb,
            duty=self.duty,
        )
