"""Energy of a run, by the meter this machine has; without one, unavailable with the reason."""

from __future__ import annotations

import time
from pathlib import Path

from edgekit import energy
from edgekit.energy.document import IDLE_S
from edgekit.profiler.targets import Job
from edgekit.profiler.trial import FEWEST_RUNS, WARM_LIMIT_S, opened
from edgekit_runtime.measurement import Energy

_BUSY_S = 1.5  # many steps of a RAPL counter, and tens of readings of a sampled sensor


def measure_energy(job: Job, folder: Path, meter: energy.Meter | None) -> Energy:
    """Energy of one run in a fresh process: first the idle machine, then a tight loop, by one meter.

    Args:
        job: What to run.
        folder: Work folder.
        meter: None: this machine has none, and the document says what was looked for.
    """
    if meter is None:
        card = "no NVML to read the card's energy with (pip install nvidia-ml-py)"
        return energy.unavailable(card if job.on_card else energy.why_none())
    with opened(job, folder) as graph:
        graph.worker.ask("warm", limit_s=WARM_LIMIT_S)

        def work() -> int:
            sampled = graph.worker.ask("sample", duration_s=_BUSY_S, min_runs=FEWEST_RUNS, max_runs=10_000_000, every=1)
            return int(sampled["runs"])

        return energy.metered(meter, work, rest=lambda: time.sleep(IDLE_S))
