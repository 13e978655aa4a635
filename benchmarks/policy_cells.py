"""The cells of the policy table: four students, six devices, three servers, recorded links.

The costs are those of real bundles, written by `python -m benchmarks.policy_costs`: bytes counted, times predicted for
each device and server, operator by operator. Lossy actions (JPEG, int8 wires, exits at a certified risk) take part for
every policy alike, as the cells name a risk: `POLICY`.

Traces are split by their place in the sorted list before anything is looked at: even ones for development, odd ones for
the page.
"""

from __future__ import annotations

import dataclasses
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path

from benchmarks import policy_costs
from edgekit.simulate.traces import LoadTrace, Trace, read_traces
from edgekit_runtime.adaptive import ActionCost, Policy
from edgekit_runtime.adaptive.risk import offered

DATA = Path(__file__).parents[2] / "shared" / "data" / "traces"

# Every lossy action of the four bundles: the most that one may lose is 7.5 points (ResNet44's pictures as JPEG).
POLICY = Policy(max_risk=0.08)
# Name: whose costs, and whether it is shared with others.
SERVERS = {"idle": ("x86", False), "small": ("pi5", False), "shared": ("x86", True)}


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


def traces(held_out: bool, each: int = 3) -> list[Trace]:
    """Some traces of each family, evenly over its list; the even ones, or (held out) the odd ones."""
    found = []
    for archive in ("norway_hsdpa_3g", "ghent_4g", "fcc_hd_fs", "fcc_sd_fs", "lumos5g_4g"):
        side = read_traces(DATA / f"{archive}.zip")[int(held_out) :: 2]
        found += [side[round(place * (len(side) - 1) / max(each - 1, 1))] for place in range(each)]
    name = "TMobile-LTE-short.up" if held_out else "ATT-LTE-driving-2016.up"
    return [*found, *read_traces(DATA / "mahimahi" / name)]


def load_of(shared: bool) -> LoadTrace:
    """A shared server is busy for a third of the time, and then something else burdens the device."""
    if not shared:
        return LoadTrace.constant()
    return LoadTrace.steps(((20.0, 0.0, 0.3), (15.0, 0.0, 0.9), (15.0, 0.6, 0.3), (10.0, 0.6, 0.8)))


def cells(held_out: bool, each: int = 3, students: Sequence[str] = ()) -> Iterator[Cell]:
    """Every combination; of some students only where they are named."""
    costs = policy_costs.read().actions
    for trace in traces(held_out, each):
        for student in students or costs:
            for device, by_server in costs[student].items():
                for server, (whose, shared) in SERVERS.items():
                    rows = offered(by_server[whose], POLICY)[0]
                    name = f"{student}/{device}/{server}/{trace.name}"
                    yield Cell(
                        student,
                        device,
                        server,
                        trace,
                        rows,
                        load_of(shared),
                        max(0.2, 2.5 * policy_costs.local_ms(rows) / 1e3),
                        zlib.crc32(name.encode()),
                    )
