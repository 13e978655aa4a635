"""Numbers as people read them: three significant digits, a unit, and a dash for what is not known."""

from __future__ import annotations

import math

MISSING = "\N{EN DASH}"
TIMES = "\N{MULTIPLICATION SIGN}"


def significant(value: float | None, digits: int = 3) -> str:
    """`0.294`, `15.3`, `1,280`: so many significant digits, never an exponent, never `-0`."""
    if value is None or not math.isfinite(value):
        return MISSING
    if value == 0:
        return "0"
    decimals = max(0, digits - 1 - math.floor(math.log10(abs(value))))
    text = f"{value:,.{decimals}f}"
    return text if float(text.replace(",", "")) else "0"


def bytes_(value: float | None) -> str:
    """Decimal kB, MB or GB."""
    if value is None:
        return MISSING
    for unit, size in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if value >= size:
            return f"{significant(value / size)} {unit}"
    return f"{value:.0f} B"


def interval(pair: tuple[float, float] | None) -> str:
    """`0.291 to 0.297`; a dash where there is none. Three digits, or as many as tell the ends apart (five at most)."""
    if pair is None:
        return MISSING
    for digits in (3, 4, 5):
        low, high = significant(pair[0], digits), significant(pair[1], digits)
        if low != high:
            break
    return f"{low} to {high}"


def times(ratio: float) -> str:
    """A factor with a multiplication sign: 0.28, 2.1."""
    return f"{significant(ratio, 2 if ratio < 10 else 3)}{TIMES}"


def count(value: int | None) -> str:
    """A count with thousands separators."""
    return MISSING if value is None else f"{value:,}"


def rhythm(name: str) -> str:
    """Name of a rhythm in words: `paced_5_hz` as `paced 5 Hz`."""
    return name.replace("_hz", " Hz").replace("_", " ")
