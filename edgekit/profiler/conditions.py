"""What stood in the way of a measurement, beside the samples themselves: a pure function from observations to reasons.

    clock      the loop of known length against the claim, and against itself from process to process
    governor   named where the clock moved or stayed low under it
    heat       throttling bits, temperature
    neighbours load when measuring began, foreign CPU time, preemption
    memory     swapping, pages read back from disk

Each reason makes a result noisy. An observation that the machine does not make (None) gives no reason.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

SLOW_CLOCK = 0.85  # of the claimed one
MOVING_CLOCK = 0.05
HOT_C = 85.0
SWITCHES_PER_S = 200.0
PAGE_INS_PER_S = 10.0
_STEADY_GOVERNORS = ("performance", "")


@dataclasses.dataclass(frozen=True)
class Seen:
    """What was observed around the samples of one graph.

    Attributes:
        clocks_mhz: The measured clock before and after the samples of each process, in order.
        claimed_mhz: The clock the machine claims.
        governor: Its frequency governor; empty: not told.
        throttled: Whether it throttled meanwhile.
        temperature_c: The processor's.
        load_before: Load average of one minute when measuring began.
        cores: Logical cores.
        switches_per_s: Involuntary context switches of the process that ran the graph.
        page_ins_per_s: Pages it had to read back from disk.
        swapped: The machine swapped out meanwhile.
    """

    clocks_mhz: Sequence[float] = ()
    claimed_mhz: float | None = None
    governor: str = ""
    throttled: bool | None = None
    temperature_c: float | None = None
    load_before: float | None = None
    cores: int = 1
    switches_per_s: float = 0.0
    page_ins_per_s: float = 0.0
    swapped: bool = False


def reasons(seen: Seen) -> tuple[str, ...]:
    """Why a result is noisy, worst first; empty where nothing stood in its way."""
    found = []
    if seen.throttled:
        found.append("the processor throttled while measuring")
    found += _clock(seen)
    if seen.temperature_c is not None and seen.temperature_c >= HOT_C:
        found.append(f"the processor is at {seen.temperature_c:.0f} °C: it may throttle from {HOT_C:.0f}")
    if seen.load_before is not None and seen.load_before > seen.cores:
        found.append(f"the load was {seen.load_before:.1f} on {seen.cores} cores when measuring began")
    if seen.switches_per_s > SWITCHES_PER_S:
        found.append(f"the graph was interrupted {seen.switches_per_s:.0f} times a second")
    if seen.page_ins_per_s > PAGE_INS_PER_S:
        found.append(f"{seen.page_ins_per_s:.0f} pages a second were read back from disk")
    if seen.swapped:
        found.append("the machine swapped while measuring")
    return tuple(found)


def _clock(seen: Seen) -> list[str]:
    if not seen.clocks_mhz:
        return []
    low, high = min(seen.clocks_mhz), max(seen.clocks_mhz)
    under = f" under the governor {seen.governor}" if seen.governor not in _STEADY_GOVERNORS else ""
    if seen.claimed_mhz and high < SLOW_CLOCK * seen.claimed_mhz:
        return [f"the clock ran at {high:.0f} MHz where {seen.claimed_mhz:.0f} are claimed{under}"]
    if high > low * (1 + MOVING_CLOCK):
        return [f"the clock moved between {low:.0f} and {high:.0f} MHz{under}"]
    return []
