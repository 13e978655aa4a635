"""Back-tests of prediction: this machine from its own calibration, boards against published figures, order of energy.

Bundles of the reference students are those of the matrix, where it has made them; the others are kept in
build/prediction/ and taken again while they are there. A page that was interrupted goes on where it was: calibration
and measured graphs lie in build/prediction/run/ until the page is written; delete the folder to begin anew.
"""

from __future__ import annotations

import dataclasses
import itertools
import json
import math
import shutil
import sys
import time
import zlib
from collections.abc import Sequence
from pathlib import Path

import msgspec
import numpy as np

import edgekit
from benchmarks import boards, student_times
from benchmarks.calm import LIMIT, Calm, reference_us
from benchmarks.page import table, target
from edgekit import devices, energy
from edgekit.devices import calibration, of_job
from edgekit.devices.prediction import estimate
from edgekit.devices.profile import DeviceProfile
from edgekit.profiler import targets
from edgekit.students import registry
from edgekit_runtime.errors import EdgekitError

BUNDLES = Path("build") / "prediction"
MATRIX = Path("build") / "matrix"
RUN = BUNDLES / "run"
_Z80 = 1.2816
# The students that were looked at while the calibration's kernels and sizes were chosen or mistakes in sizing found;
# nothing was chosen on the others.
SEEN = frozenset(
    (
        "text_cnn", "bilstm_classifier", "bilstm_tagger", "bert_tiny", "bert_mini", "bert_small", "minilm", "resnet20",
        "resnet32", "resnet44", "multi_exit", "cmow", "ds_cnn", "cdil", "gated_cnn", "ngram", "lrcn", "plain4",
        "plain8", "truecaser", "resnet8", "mobilenet_v1", "gcn", "integer_rnn", "gated_cnn_step", "lrcn_step",
        "large_vocabulary", "autoencoder",
    )
)  # fmt: skip


@dataclasses.dataclass(frozen=True)
class Seen:
    """One graph of a student, measured and predicted on this machine, in ms."""

    student: str
    graph: str
    measured: float
    wall: float
    predicted: float
    covered: bool
    uncovered: float
    proxy: float

    @property
    def error(self) -> float:
        return self.predicted / self.measured - 1


def run(names: Sequence[str] = ()) -> str:
    """The page; of this machine for some students only where they are named."""
    students = [registry.get(name) for name in names] or list(registry.TABLE)
    page = "\n\n".join((*this_machine(students), *published(), *energy_order()))
    shutil.rmtree(RUN, ignore_errors=True)
    return page


def this_machine(students: Sequence[registry.Student]) -> list[str]:
    profile, seconds, calm = _calibrated()
    found, refused = [], []
    for student in students:
        try:
            found += _kept(profile, student, calm)
        except EdgekitError as error:
            refused.append(f"{student.name}: {error.message}")
    rows = [
        (
            r.student + ("" if r.student in SEEN else " *"),
            r.graph,
            f"{r.measured:.3f}",
            f"{r.wall:.3f}",
            f"{r.predicted:.3f}",
            f"{r.error:+.1%}",
            "yes" if r.covered else "no",
            f"{r.uncovered:.0%}",
        )
        for r in found
    ]
    header = ("student", "graph", "measured ms", "wall ms", "predicted ms", "error", "in 80 %", "MACs not covered")
    new = [row for row in found if row.student not in SEEN]
    goals = [target(f"calibration in under five minutes: {seconds:.0f} s", seconds < 300), *_goals(found, "all")]
    goals += _goals(new, "those marked *")
    return [
        "## This machine from its own calibration",
        "Full size, one thread. Measured is the processor time of the thread (10th percentile of batches), which on a "
        "quiet machine is what passes; wall is the median that passed meanwhile. Kernels and sizes of the calibration "
        "were chosen, and mistakes in sizing operators found, on the students without a mark. Of those marked * no "
        "time of an operator was looked at and no number chosen. More were marked before: each page showed errors, and "
        "those of eight students (int32 loops, a graph network, steps of a sequence, small pictures) were followed to "
        "single operators and lost their mark. What is left marked counts as little more than unseen.",
        f"A pass over a student's graphs counts where a reference (`benchmarks/calm.py`) took at most {LIMIT - 1:.0%} "
        f"longer than beside the calibration: neighbours on the host change processor times by a third. "
        f"{calm.disturbed} of {calm.passes} passes did not count.",
        table(("target", ""), goals),
        table(header, rows),
        *(["Left out:\n\n" + "\n".join(f"- {line}" for line in refused)] if refused else []),
        *_energy_here(found),
    ]


def _energy_here(found: Sequence[Seen]) -> list[str]:
    """Pairs of graphs of one format and precision: does the proxy order them as time times power does?"""
    kinds: dict[str, list[Seen]] = {}
    for row in found:
        kinds.setdefault(row.graph, []).append(row)
    rows, right = [], []
    for kind, members in kinds.items():
        pairs = list(itertools.combinations(members, 2))
        agree = [(a.proxy < b.proxy) == (a.measured < b.measured) for a, b in pairs]
        apart = [same for same, (a, b) in zip(agree, pairs, strict=True) if _apart(a, b)]
        if apart:
            rows.append((kind, len(pairs), f"{np.mean(agree):.0%}", len(apart), f"{np.mean(apart):.0%}"))
            right += agree
    share = float(np.mean(right)) if right else math.nan
    goal = target(
        f"proxy energy orders at least 85 % of {len(right)} pairs as time x power: {share:.0%}", share >= 0.85
    )
    header = ("graph", "pairs", "order right", "of them a factor of two apart", "order right")
    return [
        "### Order of energy here",
        "There is no energy sensor here. With one power while it works, time x power orders as the measured time does: "
        "a check of the proxy by time, and no measurement of energy. Pairs of different students, one format and "
        "precision at a time. Instructions between operators were added, and the lanes of a calibrated machine read "
        "off its rates, when 82 % were right; 1,000 instructions an operator come from calibrated overheads, not "
        "from these pairs.",
        table(("target", ""), [goal]),
        table(header, rows),
    ]


def _apart(a: Seen, b: Seen) -> bool:
    return max(a.measured, b.measured) >= 2 * min(a.measured, b.measured)


def _goals(found: Sequence[Seen], which: str) -> list[tuple[str, str]]:
    if not found:
        return []
    errors = [abs(row.error) for row in found]
    shares = {limit: sum(error <= limit for error in errors) / len(errors) for limit in (0.1, 0.25, 0.5)}
    told = ", ".join(f"within {limit:.0%}: {share:.0%}" for limit, share in shares.items())
    return [
        target(f"{which}, {len(found)} graphs, within 10 % for at least 90 %: {told}", shares[0.1] >= 0.9),
        target(f"{which}, within 25 % for all: largest {max(errors):.0%}", max(errors) <= 0.25),
        (f"{which}: 80 % intervals cover {np.mean([row.covered for row in found]):.0%}", ""),
    ]


def _calibrated() -> tuple[DeviceProfile, float, Calm]:
    """A calibration of this machine and the seconds it took, or that of an interrupted run of the same plan.

    With it comes what tells whether the machine is still as it was: the least of references before and after.
    """
    told, folder = RUN / "seconds.json", RUN / "profile"
    plan = zlib.crc32(repr([tuple(suite.plan()) for suite in calibration.SUITES.values()]).encode())
    if told.exists() and json.loads(told.read_text()).get("plan") != plan:
        shutil.rmtree(RUN)
    if not told.exists():
        references, start = [reference_us()], time.monotonic()
        path = devices.calibrate(folder)
        seconds = time.monotonic() - start
        references.append(reference_us())
        least = [min(each) for each in zip(*references, strict=True)]
        told.write_text(json.dumps({"path": str(path), "seconds": seconds, "plan": plan, "reference_us": least}))
    kept = json.loads(told.read_text())
    return devices.load(kept["path"]), kept["seconds"], Calm(tuple(kept["reference_us"]))


def _kept(profile: DeviceProfile, student: registry.Student, calm: Calm) -> list[Seen]:
    path = RUN / f"{student.name}.json"
    if path.exists():
        return msgspec.json.decode(path.read_bytes(), type=list[Seen])
    print(f"{student.name}", file=sys.stderr, flush=True)
    rows = _student(profile, student, calm)
    path.write_bytes(msgspec.json.encode(rows))
    return rows


def _student(profile: DeviceProfile, student: registry.Student, calm: Calm) -> list[Seen]:
    rows = []
    jobs, _ = targets.plan(targets.resolve(_bundle(student)))
    times = student_times.measured(jobs, calm)
    for job, (measured, wall) in zip(jobs, times, strict=True):
        work = of_job(job)
        inputs = [math.prod(shape) for shape in work.inputs.values()]
        made = estimate(profile, work.ops, engine=job.engine, precision="fp32", inputs=inputs, outputs=work.outputs)
        low, high = made.interval(_Z80)
        rows.append(
            Seen(
                student.name,
                job.target.graph,
                measured,
                wall,
                made.ms,
                bool(low <= measured <= high),
                made.uncovered_macs_fraction,
                energy.proxy(work.ops, profile).relative,
            )
        )
    return rows


def _bundle(student: registry.Student) -> Path:
    path = BUNDLES / f"{student.name}.edge"
    made = MATRIX / path.name
    if made.is_dir():
        return made
    if path.is_dir():
        return path
    BUNDLES.mkdir(parents=True, exist_ok=True)
    length = min([64, *(axis.max for axis in student.axes if axis.role == "length")])
    dynamic = student.dynamic({axis.symbol: 4 if axis.role == "batch" else 128 for axis in student.axes})
    try:
        edgekit.convert(
            student.build("full"), out=path, dynamic=dynamic, max_drop=1.0,
            split_points=("none",), example=student.example(1, length),
            calibration=student.example(16, length, seed=1), eval=student.example(16, length, seed=2),
        )  # fmt: skip
    except BaseException:
        shutil.rmtree(path, ignore_errors=True)
        raise
    return path


def published() -> list[str]:
    everything = boards.rows()
    held: list[tuple[float, bool, float]] = []
    lines = []
    for row in everything:
        made = row.predicted()
        told, (low, high) = row.published.latency_ms.value, made.interval(_Z80)
        error, inside = made.ms / told - 1, low <= told <= high
        if row.published.use == "held_out":
            held.append((abs(error), inside, (high - low) / 2 / made.ms))
        p = row.published
        lines.append(
            (row.profile.name, p.engine, p.precision, p.threads or "not told", p.model, p.use.replace("_", " "),
             f"{told:.4g}", f"{made.ms:.4g}", f"{low:.3g} to {high:.3g}", f"{error:+.0%}", "yes" if inside else "no",
             made.ground)
        )  # fmt: skip
    shares = {limit: np.mean([error <= limit for error, _, _ in held]) for limit in (0.1, 0.25, 0.35, 0.5)}
    cover, width = np.mean([inside for _, inside, _ in held]), np.median([width for _, _, width in held])
    told = ", ".join(f"within {limit:.0%}: {share:.0%}" for limit, share in shares.items())
    goals = [
        target(f"held out, {len(held)} of {len(lines)}, within 35 % for at least 60 %: {told}", shares[0.35] >= 0.6),
        target(f"80 % intervals cover 70 to 90 %: {cover:.0%}", 0.7 <= cover <= 0.9),
        target(f"median half-width of those at most 40 %: {width:.0%}", width <= 0.4),
        target(f"at least half kept out of fitting: {len(held)} of {len(lines)}", 2 * len(held) >= len(lines)),
        target(f"the profiles hold the rates that the fit gives: largest difference {_drift():.1%}", _drift() < 0.02),
    ]
    header = (
        "device", "engine", "precision", "threads", "network", "use", "published ms", "predicted ms", "80 %", "error",
        "inside", "from",
    )  # fmt: skip
    return [
        "## Boards against published figures",
        "Sources stand at each figure of the profiles (`edgekit devices NAME`). Rows marked fit gave the rates of "
        "their device, engine, precision and threads (`python -m benchmarks.boards`), and the fractions, sizes and "
        "spreads in `edgekit/devices/efficiency.py`; held-out rows gave no number. The form of the model is not "
        "innocent of them: it was changed twice (the share that small layers keep of a rate; that microcontrollers "
        "keep all of it) by somebody who had seen both halves. MLPerf Tiny rows need ../shared/data and are absent "
        "without it.",
        table(("target", ""), goals),
        table(header, lines),
    ]


def _drift() -> float:
    """Largest relative difference between the rates of the profiles and those the fit gives now."""
    worst = 0.0
    for group in boards.groups(boards.rows()):
        held = {(r.engine, r.precision, r.threads, r.family): r.gmacs_per_s.value for r in group[0].profile.rates}
        for rate in boards.fit(group):
            stated = held.get((rate.engine, rate.precision, rate.threads, rate.family), math.inf)
            worst = max(worst, abs(stated / rate.gmacs_per_s.value - 1))
    return worst


def energy_order() -> list[str]:
    """Pairs of networks on one device: does the model order them as the published energies do?"""
    by_device: dict[str, list[boards.Row]] = {}
    for row in boards.rows():
        if row.published.energy_uj is not None:
            by_device.setdefault(row.profile.name, []).append(row)
    lines, right = [], {"modelled": [], "proxy": []}
    for name, members in by_device.items():
        for a, b in itertools.combinations(members, 2):
            truth = _energy(a) < _energy(b)
            modelled = _modelled(a) < _modelled(b)
            relative = _proxy(a) < _proxy(b)
            right["modelled"].append(modelled == truth)
            right["proxy"].append(relative == truth)
            lines.append(
                (
                    name,
                    a.published.model,
                    b.published.model,
                    *("yes" if x == truth else "no" for x in (modelled, relative)),
                )
            )
    shares = {key: float(np.mean(values)) if values else math.nan for key, values in right.items()}
    errors = [
        abs(_modelled(row) / _energy(row) * 1e3 - 1)
        for rows in by_device.values()
        for row in rows
        if row.published.use == "held_out"
    ]
    goals = [
        target(f"{key} energy orders at least 85 % of {len(lines)} pairs as measured: {share:.0%}", share >= 0.85)
        for key, share in shares.items()
    ]
    return [
        "## Order of energy",
        "Published energies of MLPerf Tiny on three boards. Modelled is the profile's power times the predicted time; "
        "the proxy weighs MACs, instructions and bytes per memory level by a table, and is relative only; the MACs' "
        "instructions were added when the order without them was wrong in a third of the pairs. The networks differ by "
        "factors of two and more in work, which makes their order easy.",
        table(("target", ""), goals),
        *([f"Modelled against measured on the held-out rows: median error {np.median(errors):.0%}."] if errors else []),
        table(("device", "network", "and", "modelled order right", "proxy order right"), lines),
    ]


def _energy(row: boards.Row) -> float:
    assert row.published.energy_uj is not None
    return row.published.energy_uj.value


def _modelled(row: boards.Row) -> float:
    made = energy.modelled(row.profile, row.predicted().ms, row.threads)
    assert made.mj is not None, made.reason
    return made.mj


def _proxy(row: boards.Row) -> float:
    return energy.proxy(row.ops, row.profile).relative
