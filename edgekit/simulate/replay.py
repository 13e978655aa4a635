"""A log of a real session as a day to be lived again: its link, its load, its pace.

What the session believed when it decided about request i + 1 rests on what request i saw, so it stands for the time
between the two. A link that was taken for dead (no answer, a server that is left alone) carries nothing.
"""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path

import numpy as np

from edgekit.simulate.traces import LoadTrace, Series, Trace
from edgekit_runtime.adaptive import ActionCost, ActionSet, Policy, journal
from edgekit_runtime.errors import Refused

_MOST_BUSY = 0.95  # a slow-down by 20 is the most that a load stands for


@dataclasses.dataclass(frozen=True)
class Logged:
    """What a log tells of its day.

    Attributes:
        actions: Costs as the session had them, with the bytes that it had learned to expect in the end.
        link: As believed from request to request.
        load: Utilisation that would slow device and server down as believed.
        policy: Of the last request.
        requests: How many.
        interval_s: Mean time between two.
        mean_ms: What they took; None where the log does not say.
    """

    actions: tuple[ActionCost, ...]
    link: Trace
    load: LoadTrace
    policy: Policy
    requests: int
    interval_s: float
    mean_ms: float | None


def read(path: Path) -> Logged:
    """Reads a log.

    Args:
        path: Written by `er.open(..., log=FILE)` or `edgekit run --server ... --log FILE`.

    Raises:
        Refused: It is no log, a line is damaged, time runs backwards, or it has fewer than two requests.
    """
    head, found = journal.read(path)
    times = [entry.at_s for entry in found]
    if len(found) < 2 or not all(map(math.isfinite, times)) or any(np.diff(times) <= 0):
        raise Refused(
            f"{path} cannot be lived again: {len(found)} requests, and each must come after the one before",
            remedy="a log of one session with two requests or more; or give --trace, which needs its actions only",
        )
    gap = (times[-1] - times[0]) / (len(times) - 1)
    ends = [time - times[0] for time in times] + [times[-1] - times[0] + gap]
    seen = [*found[1:], found[-1]]  # what was known after each request
    links = [entry.link for entry in seen]
    rtt = Series(ends, [link.rtt_ms for link in links])
    up = Series(ends, [link.uplink_mbps if link.up else 0.0 for link in links])
    down = Series(ends, [link.downlink_mbps if link.up else 0.0 for link in links])
    device = Series(ends, [_busy(entry.load.device_slowdown) for entry in seen])
    server = Series(ends, [_busy(entry.load.server_slowdown) for entry in seen])
    took = [entry.total_ms for entry in found if entry.total_ms is not None]
    return Logged(
        actions=ActionSet(head.actions, head.power).sending(found[-1].load.shares).actions,
        link=Trace(path.name, up, down, rtt),
        load=LoadTrace(device, server),
        policy=found[-1].policy,
        requests=len(found),
        interval_s=gap,
        mean_ms=float(np.mean(took)) if took else None,
    )


def _busy(slowdown: float) -> float:
    """Utilisation by others that slows a run down so; a machine quicker than its profile is taken as idle."""
    return min(max(1 - 1 / max(slowdown, 1e-6), 0.0), _MOST_BUSY)
