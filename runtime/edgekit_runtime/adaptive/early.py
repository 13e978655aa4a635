"""What an answer that may be early costs on the device: from the times of each way out and how often it is taken."""

from __future__ import annotations

import math
from collections.abc import Sequence


def spent(leave_ms: Sequence[float], fractions: Sequence[float]) -> tuple[float, float]:
    """Mean and standard deviation of the time until a request leaves, ms.

    Args:
        leave_ms: Time until each way out, in order of depth.
        fractions: Share of the requests that takes it; what is missing to 1 takes the last.
    """
    shares = shares_of(fractions, len(leave_ms))
    mean = sum(share * ms for share, ms in zip(shares, leave_ms, strict=True))
    variance = sum(share * (ms - mean) ** 2 for share, ms in zip(shares, leave_ms, strict=True))
    return mean, math.sqrt(variance)


def going_on(fractions: Sequence[float], last: int) -> float:
    """Share of the requests that no exit up to number `last` answers."""
    return min(max(1.0 - sum(fractions[: last + 1]), 0.0), 1.0)


def shares_of(fractions: Sequence[float], ways: int) -> tuple[float, ...]:
    """Shares of the first `ways - 1` ways out, and of all that is left."""
    first = tuple(fractions[: ways - 1])
    return (*first, max(1.0 - sum(first), 0.0))
