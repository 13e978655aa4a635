"""What the pages show, as data: gathered from bundles and measurements, without a word of HTML."""

from __future__ import annotations

import dataclasses
import math
import re
from collections.abc import Sequence

from edgekit.report.advice import Advice, int8_advice
from edgekit_runtime.bundle import Bundle
from edgekit_runtime.errors import UsageError
from edgekit_runtime.manifest import Quality
from edgekit_runtime.measurement import Measurement

ORDER = {"sound": 0, "noisy": 1, "invalid": 2}


@dataclasses.dataclass(frozen=True)
class Row:
    """One measurement, with the bundle it belongs to and its graph's quality over all samples.

    Attributes:
        reference: A row of the same student that tells what the student itself reaches: fp32 graphs stand for it.
    """

    bundle: str
    measurement: Measurement
    quality: Quality | None
    number: int
    reference: Quality | None = None

    @property
    def value(self) -> float | None:
        """The graph's metric; of an fp32 graph without a row of its own, the student's."""
        if self.quality is not None:
            return self.quality.value
        if self.reference is not None and self.measurement.precision == "fp32":
            return self.reference.reference
        return None

    @property
    def metric(self) -> str:
        """Name of the metric; empty without one."""
        known = self.quality or self.reference
        return known.metric if known else ""

    @property
    def rank(self) -> float:
        """The metric turned so that higher is better."""
        known = self.quality or self.reference
        return (self.value or 0.0) * (1 if known is None or known.higher_is_better else -1)

    @property
    def anchor(self) -> str:
        """Name of its place on the device's page."""
        return f"m{self.number}"


@dataclasses.dataclass(frozen=True)
class Student:
    """One bundle, or all bare files together (empty id)."""

    name: str
    bundle_id: str
    quality: tuple[Quality, ...]
    rows: tuple[Row, ...]

    @property
    def fastest(self) -> Row | None:
        """The lowest median of one request whose verdict is not invalid."""
        timed = [row for row in self.rows if row.measurement.verdict.kind != "invalid"]
        timed = [row for row in one_request(timed) if row.measurement.latency_ms.p50 is not None]
        return min(timed, key=lambda row: row.measurement.latency_ms.p50 or 0.0, default=None)

    @property
    def advice(self) -> list[Advice]:
        """Does int8 pay, wherever both were measured."""
        return int8_advice([row.measurement for row in self.rows], self.quality)


@dataclasses.dataclass(frozen=True)
class Page:
    """One device with what was measured there."""

    device: str
    students: tuple[Student, ...]

    @property
    def file(self) -> str:
        """File name, safe on every system."""
        return re.sub(r"[^\w.-]+", "_", self.device).strip(".") + ".html" if self.device else "device.html"

    @property
    def rows(self) -> list[Row]:
        """Every row of the page."""
        return [row for student in self.students for row in student.rows]

    @property
    def verdict(self) -> str:
        """The worst verdict among the rows."""
        return max((row.measurement.verdict.kind for row in self.rows), key=ORDER.__getitem__)

    @property
    def reasons(self) -> list[tuple[str, int]]:
        """Why figures are not sound: one example of each sort of reason, and for how many measurements it holds."""
        found: dict[str, tuple[str, int]] = {}
        for row in self.rows:
            for reason in row.measurement.verdict.reasons:
                sort = re.sub(r"[\d.,+-]+", "#", reason)
                first, count = found.get(sort, (reason, 0))
                found[sort] = (first, count + 1)
        return sorted(found.values(), key=lambda pair: -pair[1])

    @property
    def counts(self) -> dict[str, int]:
        """Number of measurements by verdict, the worst first, then of predictions."""
        kinds = ["predicted" if row.measurement.predicted else row.measurement.verdict.kind for row in self.rows]
        return {kind: kinds.count(kind) for kind in (*reversed(ORDER), "predicted") if kind in kinds}

    @property
    def engines(self) -> list[str]:
        """Engines with their versions."""
        return sorted({f"{row.measurement.engine} {row.measurement.engine_version}" for row in self.rows})

    @property
    def fastest(self) -> list[Row]:
        """The fastest row of each student, for those that have one: times of two students are not to be compared."""
        return [row for student in self.students if (row := student.fastest) is not None]


def one_request(rows: Sequence[Row]) -> list[Row]:
    """One row a graph, engine and number of threads: times of a batch and of one sample are not to be compared.

    The bundle's own inputs come before the lengths of a sweep, then the smallest.
    """
    kept: dict[tuple[str, ...], Row] = {}
    for row in rows:
        m = row.measurement
        key = (m.device, m.graph, m.engine, str(m.threads))
        if key not in kept or _rank(m) < _rank(kept[key].measurement):
            kept[key] = row
    return list(kept.values())


def _rank(measurement: Measurement) -> tuple[bool, int]:
    return measurement.length is not None, sum(math.prod(shape) for shape in measurement.inputs.values())


def gather(sources: Sequence[Bundle | Measurement]) -> tuple[Page, ...]:
    """Sorts bundles (with their measurements) and single measurements by device.

    Raises:
        UsageError: There is nothing measured in them.
    """
    students: list[tuple[str, str, tuple[Quality, ...], list[Measurement]]] = []
    loose: list[Measurement] = []
    for source in sources:
        if isinstance(source, Measurement):
            loose.append(source)
        else:
            manifest = source.manifest
            students.append((manifest.name, source.bundle_id, manifest.quality, list(source.measurements())))
    for measurement in loose:
        home = next((student for student in students if student[1] and student[1] == measurement.bundle_id), None)
        if home is None:
            home = next((student for student in students if not student[1]), None)
        if home is None:
            home = ("graph files", "", (), [])
            students.append(home)
        if measurement not in home[3]:
            home[3].append(measurement)
    devices = sorted({m.device for student in students for m in student[3]})
    if not devices:
        raise UsageError(
            "there is nothing to report: no measurement was found", remedy="run `edgekit profile BUNDLE` first"
        )
    return tuple(_page(device, students) for device in devices)


def _page(device: str, students: Sequence[tuple[str, str, tuple[Quality, ...], list[Measurement]]]) -> Page:
    made, number = [], 0
    for name, bundle_id, quality, measurements in students:
        here = [m for m in measurements if m.device == device]
        rows = []
        for m in sorted(here, key=lambda m: (m.graph, m.engine, m.threads, sorted(m.inputs.items()))):
            number += 1
            gate = next((row for row in quality if row.graph == m.graph and row.slice == "all"), None)
            rows.append(Row(name, m, gate, number, next((row for row in quality if row.slice == "all"), None)))
        if rows:
            made.append(Student(name, bundle_id, quality, tuple(rows)))
    return Page(device, tuple(made))
