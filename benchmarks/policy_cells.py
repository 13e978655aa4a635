"""The cells of the policy table: four students, six devices, three servers, recorded links.

Costs are computed from counted MACs and bytes and from published whole-model rates (ncnn ResNet-50 int8, 4.1 GMAC: Zero
2 W 498 ms, Pi 4 197, Pi 5 40.8; one core: a quarter, less what shared memory costs). They are stand-ins with the right
proportions, not measurements: the page compares policies, not devices.

Traces are split by their place in the sorted list before anything is looked at: even ones for development, odd ones for
the page.
"""

from __future__ import annotations

import dataclasses
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path

from edgekit.simulate.traces import LoadTrace, Trace, read_traces
from edgekit_runtime.adaptive import ActionCost

DATA = Path(__file__).parents[2] / "shared" / "data" / "traces"

# int8 GMAC/s.
DEVICES = {"zero2w-1core": 2.3, "zero2w": 8.2, "pi4-1core": 5.8, "pi4": 20.8, "pi5-1core": 28.0, "n100": 70.0}
SERVERS = {"idle": 400.0, "small": 60.0, "shared": 400.0}
OVERHEAD_MS = 0.3  # of one run, any size


@dataclasses.dataclass(frozen=True)
class Student:
    """MACs in all, and what may be sent: (name, share of MACs before it, bytes), exits: (share of MACs, taken by)."""

    name: str
    gmacs: float
    input_bytes: int
    splits: tuple[tuple[str, float, int], ...] = ()
    exits: tuple[tuple[float, float], ...] = ()
    encode_share: float = 0.0  # MACs that encoding the input is worth (JPEG on the device), as a share of the student's


STUDENTS = (
    Student("demo-cnn", 0.012, 2_900, (("block1", 0.3, 4_608), ("block2", 0.7, 1_152)), ((0.35, 0.5),)),
    Student(
        "resnet44", 0.097, 1_900, (("bottleneck", 0.35, 2_048), ("stage3", 0.68, 1_100)), ((0.35, 0.3), (0.7, 0.3))
    ),
    Student(
        "mobilenet224",
        0.30,
        18_000,
        (("28x28", 0.35, 25_088), ("14x14", 0.6, 12_544), ("7x7", 0.85, 7_840), ("bottleneck", 0.35, 3_136)),
        encode_share=0.05,
    ),
    Student("minilm", 1.40, 768, (("layer1", 1 / 6, 49_152), ("layer3", 0.5, 49_152))),
)


@dataclasses.dataclass(frozen=True)
class Cell:
    """One row of the table."""

    student: str
    device: str
    server: str
    trace: Trace
    actions: tuple[ActionCost, ...]
    load: LoadTrace
    interval_s: float
    seed: int

    @property
    def name(self) -> str:
        return f"{self.student} / {self.device} / {self.server} / {self.trace.name}"


def actions(student: Student, device_gmacs: float, server_gmacs: float) -> tuple[ActionCost, ...]:
    """All actions of a student between a device and a server."""
    whole, there = student.gmacs / device_gmacs * 1e3, student.gmacs / server_gmacs * 1e3
    rows = [ActionCost(id="local", kind="local", head_ms=whole + OVERHEAD_MS, head_sd_ms=0.05 * whole)]
    if student.exits:
        rows.append(_chain(student, whole))
    rows.append(
        ActionCost(
            id="offload",
            kind="offload",
            encode_ms=student.encode_share * whole,
            offload_fraction=1.0,
            bytes_up=student.input_bytes + 200,
            bytes_down=600,
            tail_ms=there + OVERHEAD_MS,
            tail_sd_ms=0.1 * there,
            server_macs=int(student.gmacs * 1e9),
        )
    )
    for depth, (name, share, size) in enumerate(student.splits):
        rows.append(
            ActionCost(
                id=f"split-{name}",
                kind="split",
                head_ms=share * whole + OVERHEAD_MS,
                head_sd_ms=0.05 * share * whole,
                offload_fraction=1.0,
                bytes_up=size + 200,
                bytes_down=600,
                tail_ms=(1 - share) * there + OVERHEAD_MS,
                split_point=name,
                depth=depth,
                server_macs=int((1 - share) * student.gmacs * 1e9),
                accuracy_drop=0.01 if name == "bottleneck" else 0.0,
            )
        )
    return tuple(rows)


def _chain(student: Student, whole: float) -> ActionCost:
    """The first exit, and the rest from there to the server."""
    share, taken = student.exits[0]
    return ActionCost(
        id="exit-then-offload",
        kind="exit",
        head_ms=share * whole + OVERHEAD_MS,
        head_sd_ms=0.05 * share * whole,
        offload_fraction=1 - taken,
        bytes_up=student.splits[0][2] + 200,
        bytes_down=600,
        tail_ms=(1 - share) * student.gmacs / 400 * 1e3 + OVERHEAD_MS,
        split_point=student.splits[0][0],
        accuracy_drop=0.005,
        server_macs=int((1 - share) * student.gmacs * 1e9),
    )


def traces(held_out: bool, each: int = 3) -> list[Trace]:
    """Some traces of each family, evenly over its list; the even ones, or (held out) the odd ones."""
    found = []
    for archive in ("norway_hsdpa_3g", "ghent_4g", "fcc_hd_fs", "fcc_sd_fs", "lumos5g_4g"):
        side = read_traces(DATA / f"{archive}.zip")[int(held_out) :: 2]
        found += [side[round(place * (len(side) - 1) / max(each - 1, 1))] for place in range(each)]
    name = "TMobile-LTE-short.up" if held_out else "ATT-LTE-driving-2016.up"
    return [*found, *read_traces(DATA / "mahimahi" / name)]


def load_of(server: str) -> LoadTrace:
    """The shared server is busy for a third of the time, and then something else burdens the device."""
    if server != "shared":
        return LoadTrace.constant()
    return LoadTrace.steps(((20.0, 0.0, 0.3), (15.0, 0.0, 0.9), (15.0, 0.6, 0.3), (10.0, 0.6, 0.8)))


def cells(held_out: bool, each: int = 3, students: Sequence[Student] = STUDENTS) -> Iterator[Cell]:
    """Every combination."""
    for trace in traces(held_out, each):
        for student in students:
            for device, rate in DEVICES.items():
                for server, server_rate in SERVERS.items():
                    rows = actions(student, rate, server_rate)
                    name = f"{student.name}/{device}/{server}/{trace.name}"
                    yield Cell(
                        student.name,
                        device,
                        server,
                        trace,
                        rows,
                        load_of(server),
                        max(0.2, 2.5 * rows[0].head_ms / 1e3),
                        zlib.crc32(name.encode()),
                    )
