"""Profiles graphs on this machine: measurement documents with raw samples, environment and verdict.

    round 1            round 2            round 3             every box is a fresh process
    [A] [B] [C]        [A] [B] [C]        [A] [B] [C]         open, first run, warm up until steady, sample
    before round 1:    [A memory, ops] [B ...] [C ...]
    after the last:    [A energy] [B ...] [C ...]             where the machine has a meter
                       [A rhythms] [B ...] [C ...]            where asked for: pauses, paced, bursts

The jobs take turns, so that what the machine does in one minute touches all of them; what differs between processes of
one job widens its interval.
"""

from __future__ import annotations

import dataclasses
import platform
import statistics as standard
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Literal

import msgspec
import psutil

from edgekit.energy import meter_for_this_machine, unavailable, why_none
from edgekit.profiler import conditions, environment, statistics
from edgekit.profiler.power import measure_energy
from edgekit.profiler.process import OverBudget
from edgekit.profiler.targets import Job, plan, resolve
from edgekit.profiler.trial import Trial, duty, measure
from edgekit.profiler.weigh import Weighed, placements, surroundings, weigh
from edgekit_runtime.errors import EdgekitError, Refused, UsageError
from edgekit_runtime.machine import this_machine
from edgekit_runtime.measurement import Duty, Energy, Environment, Latency, Measurement, Memory, OpCost, Verdict

Progress = Callable[[str], None]

PROCESSES = 3
BUDGET_S = 24.0  # all jobs together, by default
_PROCESS_COST_S = 0.9  # starting, opening and warming up one process
_WEIGHING_S = 1.5  # memory, surroundings and operators of one job
_MANY = 4  # jobs above which two processes each must do
ENOUGH = 700  # samples a process: three of them support p99
ENOUGH_STATED = 10_000  # ... when the person names a duration

NOT_MEASURED = Energy(kind="unavailable", reason="the graph was not measured")


@dataclasses.dataclass(frozen=True)
class Plan:
    """What will be measured, and for how long.

    Attributes:
        jobs: In the order in which they take turns.
        remarks: What was left out, and why.
        duration_s: Seconds of sampling a job and process.
        processes: Fresh processes a job.
        enough: Samples a process after which it stops.
        memory_limit_bytes: Budget of resident memory; None: none.
        duty: Measure the rhythms of applications too.
        metered: This machine has an energy meter.
    """

    jobs: tuple[Job, ...]
    remarks: tuple[str, ...]
    duration_s: float
    processes: int = PROCESSES
    enough: int = ENOUGH
    memory_limit_bytes: int | None = None
    duty: bool = False
    metered: bool = False

    @property
    def steps(self) -> int:
        """Number of processes that will be started, for a progress bar."""
        return len(self.jobs) * (self.processes + 1 + self.metered + self.duty)


def make_plan(
    path: str | Path,
    *,
    engine: str | None = None,
    graph: str | None = None,
    threads: Sequence[int] = (1,),
    batch: Sequence[int] = (1,),
    length: Sequence[int] = (),
    sizes: Mapping[str, int] | None = None,
    duration_s: float | None = None,
    memory_limit_mb: float | None = None,
    duty: bool = False,
) -> Plan:
    """Decides what to measure. See `profile`."""
    if duration_s is not None and duration_s <= 0:
        raise UsageError(f"--duration takes seconds above 0, got {duration_s:g}", remedy="--duration 10")
    if memory_limit_mb is not None and memory_limit_mb <= 0:
        raise UsageError(
            f"--memory-limit takes megabytes above 0, got {memory_limit_mb:g}", remedy="--memory-limit 256"
        )
    jobs, remarks = plan(resolve(path, graph), engine=engine, threads=threads, batch=batch, length=length, sizes=sizes)
    processes = PROCESSES if len(jobs) <= _MANY else PROCESSES - 1
    each = (BUDGET_S / len(jobs) - _WEIGHING_S) / processes - _PROCESS_COST_S
    return Plan(
        jobs=tuple(jobs),
        remarks=tuple(remarks),
        duration_s=duration_s / processes if duration_s else min(1.0, max(0.25, each)),
        processes=processes,
        enough=ENOUGH_STATED // processes if duration_s else ENOUGH,
        memory_limit_bytes=int(memory_limit_mb * 1_000_000) if memory_limit_mb else None,
        duty=duty,
        metered=any(meter_for_this_machine(gpu=gpu) is not None for gpu in {job.on_card for job in jobs}),
    )


def run_plan(made: Plan, progress: Progress = lambda label: None) -> list[Measurement]:
    """Carries a plan out. See `profile`; `dispatch.keep` keeps the documents beside their bundle."""
    before = environment.before()
    with tempfile.TemporaryDirectory(prefix="edgekit-profile-") as name:
        seen = _take_turns(made, Path(name), before, progress)
    failures = [each.failure for each in seen if each.failure is not None]
    if len(failures) == len(seen):  # nothing to show; over budget is an answer, the rest is an error
        for failure in failures:
            if not isinstance(failure, OverBudget):
                raise failure
    swapped = psutil.swap_memory().sout > before.swapped_out
    documents = []
    for job, each in zip(made.jobs, seen, strict=True):
        if each.failure is not None or each.weighed is None or each.state is None:
            documents.append(unmeasured(job, each.failure))
            continue
        document = combine(job, each.trials, each.weighed, each.state, before, swapped=swapped)
        used = each.energy or unavailable(why_none())
        document = msgspec.structs.replace(document, duty=each.duty, energy=used)
        documents.append(document)
    return documents


@dataclasses.dataclass
class _Seen:
    """What is known of one job so far. Its first failure ends it; the other jobs go on."""

    weighed: Weighed | None = None
    trials: list[Trial] = dataclasses.field(default_factory=list)
    state: Environment | None = None
    energy: Energy | None = None
    duty: tuple[Duty, ...] = ()
    failure: Refused | None = None


def _take_turns(made: Plan, folder: Path, before: environment.Before, progress: Progress) -> list[_Seen]:
    seen = [_Seen() for _ in made.jobs]
    meters = {gpu: meter_for_this_machine(gpu=gpu) for gpu in (False, True)} if made.metered else {}
    turns = ["memory", *(f"{number}/{made.processes}" for number in range(1, made.processes + 1))]
    turns += ["energy"] * made.metered + ["rhythms"] * made.duty
    for turn in turns:
        for job, each in zip(made.jobs, seen, strict=True):
            if each.failure is not None:
                continue
            progress(f"{turn}: {job.short}")
            try:
                if turn == "memory":
                    each.weighed = weigh(job, folder, memory_limit_bytes=made.memory_limit_bytes)
                elif turn == "energy":
                    each.energy = measure_energy(job, folder, meters[job.on_card])
                elif turn == "rhythms":
                    each.duty = duty(job, folder)
                else:
                    each.trials.append(measure(job, folder, duration_s=made.duration_s, enough=made.enough))
                    each.state = environment.read(before.throttles)
            except Refused as error:
                each.failure = error
    return seen


def combine(
    job: Job,
    trials: Sequence[Trial],
    weighed: Weighed,
    state: Environment,
    before: environment.Before,
    *,
    swapped: bool = False,
) -> Measurement:
    """The document of one job from what its processes saw (pure but for the machine's name)."""
    runs = [trial.samples_ms for trial in trials]
    seconds = sum(trial.seconds for trial in trials)
    state = observed(state, trials)
    latency = statistics.summarise(runs)
    verdict = statistics.assess(
        runs,
        threads=job.threads,
        cores=psutil.cpu_count() or 1,
        foreign_cores=state.foreign_cores,
        became_steady=all(trial.steady for trial in trials),
        remarks=conditions.reasons(
            conditions.Seen(
                clocks_mhz=[clock for trial in trials for clock in trial.clocks_mhz],
                claimed_mhz=state.clock_mhz,
                governor=state.governor or "",
                throttled=state.throttled,
                temperature_c=state.temperature_c,
                load_before=before.load,
                cores=psutil.cpu_count() or 1,
                switches_per_s=state.involuntary_switches_per_s or 0.0,
                page_ins_per_s=sum(trial.page_ins for trial in trials) / seconds if seconds else 0.0,
                swapped=swapped,
            )
        ),
    )
    return Measurement(
        device=this_machine().id,
        engine=job.engine,
        engine_version=trials[0].engine_version,
        threads=job.threads,
        precision=job.target.precision or precision_of(weighed.ops),
        graph=job.target.graph,
        graph_sha256=job.target.sha256,
        bundle_id=job.target.bundle.bundle_id if job.target.bundle else "",
        inputs=trials[0].inputs,
        latency_ms=latency,
        withheld=statistics.withheld(latency.n),
        open_ms=standard.median(trial.open_ms for trial in trials),
        first_ms=standard.median(trial.first_ms for trial in trials),
        length=job.length,
        throughput_per_s=job.batch * sum(trial.runs for trial in trials) / seconds if seconds else None,
        memory=weighed.memory,
        energy=NOT_MEASURED,
        ops=weighed.ops,
        placement=placements(weighed.ops),
        around=surroundings(weighed.around, weighed.ops, latency.p50),
        environment=state,
        verdict=verdict,
        remarks=weighed.remarks,
    )


def observed(state: Environment, trials: Sequence[Trial]) -> Environment:
    """The environment with what the processes themselves observed (pure but for the system's names)."""
    seconds = sum(trial.seconds for trial in trials)
    clocks = [clock for trial in trials for clock in trial.clocks_mhz]
    return msgspec.structs.replace(
        state,
        clock_measured_mhz=standard.median(clocks) if clocks else None,
        foreign_cores=sum(trial.foreign_seconds for trial in trials) / seconds if seconds else None,
        involuntary_switches_per_s=sum(trial.involuntary_switches for trial in trials) / seconds if seconds else None,
        memory_bytes=this_machine().memory_bytes,
        cores=psutil.cpu_count() or 1,
        kernel=f"{platform.system()} {platform.release()}",
        python=platform.python_version(),
    )


def unmeasured(job: Job, error: EdgekitError | None) -> Measurement:
    """The document of a job that could not be measured: no figures, and the reason."""
    return Measurement(
        device=this_machine().id,
        engine=job.engine,
        engine_version="",
        threads=job.threads,
        precision=job.target.precision or "unknown",
        graph=job.target.graph,
        graph_sha256=job.target.sha256,
        bundle_id=job.target.bundle.bundle_id if job.target.bundle else "",
        inputs={},
        latency_ms=Latency(n=0),
        withheld=statistics.withheld(0),
        memory=Memory(file_bytes=job.target.file_bytes),
        energy=NOT_MEASURED,
        environment=environment.read(),
        verdict=Verdict(kind="invalid", reasons=(error.message if error else "it was not measured",)),
    )


def precision_of(ops: Sequence[OpCost]) -> Literal["int8", "fp32", "unknown"]:
    """What a bare file is, told by the kernels that ran: int8 when most multiplications were."""
    if not ops:
        return "unknown"
    counted = [(op.macs or 0, op.int8) for op in ops]
    total = sum(macs for macs, _ in counted)
    if total == 0:
        return "int8" if any(int8 for _, int8 in counted) else "fp32"
    return "int8" if 2 * sum(macs for macs, int8 in counted if int8) > total else "fp32"
