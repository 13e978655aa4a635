"""A comparison that may end early without saying more than it knows: spending the allowed error over its looks.

    rounds     4   5   6   7   8   9  10  11  12
    looks              x           x           x     the last one comes earlier where the time is over
    spent           0.0056      0.0236      0.05     O'Brien-Fleming's function of the share of rounds that is done
    this look       0.0056      0.0180    0.0264     what is left for the interval of that look

Who looks after every round and stops at the first clear answer is wrong more often than 5 %. Here each look gets a part
of the 5 % (Lan and DeMets, Discrete sequential boundaries for clinical trials, Biometrika 1983, with their first
function), and its interval is drawn with that part alone. By the union bound all intervals that could have been shown
hold the true ratio together in 95 % of comparisons (repeated confidence intervals: Jennison and Turnbull, Journal of
the Royal Statistical Society B, 1989), whatever rule ends a comparison. The bound ignores that looks share rounds:
intervals are up to a tenth wider than they need be. The last look gets all that is left; that it is the last one is
decided by the clock, before its figures are seen.
"""

from __future__ import annotations

import math
from statistics import NormalDist

ALPHA = 0.05
FEWEST_ROUNDS, MOST_ROUNDS = 4, 12
LOOKS = (6, 9)  # rounds after which a comparison may end early


def spent(rounds: int, *, alpha: float = ALPHA, most: int = MOST_ROUNDS) -> float:
    """Error spent up to a number of rounds: 2 (1 - Phi(z(alpha/2) / sqrt(rounds / most))) (Lan and DeMets, 1983)."""
    if rounds >= most:
        return alpha
    z = NormalDist().inv_cdf(1 - alpha / 2)
    return 2 * (1 - NormalDist().cdf(z / math.sqrt(rounds / most)))


def share(rounds: int, *, last: bool) -> float:
    """Error that the look after some rounds may make; 0: no look is due.

    Args:
        rounds: Rounds done.
        last: No round follows: what earlier looks left is spent.
    """
    before = max((spent(look) for look in LOOKS if look < rounds), default=0.0)
    if last:
        return ALPHA - before
    return spent(rounds) - before if rounds in LOOKS else 0.0


def t_quantile(probability: float, degrees: int) -> float:
    """Quantile of Student's t above the median, by bisection of its closed form.

    Args:
        probability: From 0.5 to below 1.
        degrees: Degrees of freedom, 1 or more.

    Raises:
        ValueError: Outside of these.
    """
    if not 0.5 <= probability < 1 or degrees < 1:
        raise ValueError(f"t has no quantile {probability} with {degrees} degrees of freedom here")
    low, high = 0.0, 1.0
    while _within(high, degrees) < 2 * probability - 1:
        low, high = high, high * 2
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if _within(middle, degrees) < 2 * probability - 1 else (low, middle)
    return high


def _within(t: float, degrees: int) -> float:
    """P(|T| <= t) (Abramowitz and Stegun, 26.7.3 and 26.7.4)."""
    angle = math.atan(t / math.sqrt(degrees))
    sine, square = math.sin(angle), math.cos(angle) ** 2
    odd = degrees % 2 == 1
    term = math.cos(angle) if odd else 1.0
    total = term if degrees > 1 else 0.0
    for number in range(2 if odd else 1, degrees - 1, 2):
        term *= square * number / (number + 1)
        total += term
    return 2 / math.pi * (angle + sine * total) if odd else sine * total
