"""Weights with which the exits up to one speak together, found by differential evolution (Storn and Price 1997).

An ensemble of the exits seen so far is often surer and more often right than the last of them, and costs nothing: their
scores are there already.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from edgekit_converters.exits.certify import Samples, fitted_path, outcome
from edgekit_converters.exits.losses import samples_of

Mixes = tuple[tuple[float, ...], ...]


def alone(exits: int) -> Mixes:
    """Each exit speaks for itself."""
    return tuple((0.0,) * k + (1.0,) for k in range(exits))


def cheapest(samples: Samples, costs: Sequence[float], risk: float) -> tuple[float, np.ndarray]:
    """The lowest mean cost on a fitted path whose mean loss stays within the risk, and its thresholds."""
    best, chosen = float(costs[-1]), np.append(np.full(len(costs) - 1, np.inf), 0.0)
    for thresholds in fitted_path(samples, steps=60):
        losses, fractions = outcome(samples, thresholds)
        if losses.mean() > risk:
            break
        cost = float(np.dot(fractions, costs))
        if cost < best:
            best, chosen = cost, thresholds
    return best, chosen


def combine(
    logits: Sequence[np.ndarray],
    rule: str,
    costs: Sequence[float],
    risk: float,
    *,
    labels: np.ndarray | None = None,
    seed: int = 0,
    generations: int = 12,
) -> Mixes:
    """Weights that make the mean cost lowest within a risk, on data that nothing is certified on.

    Args:
        logits: [samples, ..., classes] of each exit, the full answer last.
        rule: Score rule.
        costs: Cost of leaving at each exit, in any unit.
        risk: Mean loss that may not be exceeded.
        labels: True classes, see `losses.samples_of`.
        seed: Of the search.
        generations: Most generations of the search.

    Returns:
        For each exit the weights of all exits up to it, adding up to 1. The full answer stays alone.
    """
    from scipy.optimize import differential_evolution

    exits = len(logits)
    places = [(k, j) for k in range(1, exits - 1) for j in range(k)]
    if not places:
        return alone(exits)

    def mixes(weights: np.ndarray) -> Mixes:
        found = [list(row) for row in alone(exits)]
        for (k, j), weight in zip(places, weights, strict=True):
            found[k][j] = float(weight)
        return tuple(tuple(weight / sum(row) for weight in row) for row in found)

    def cost(weights: np.ndarray) -> float:
        return cheapest(samples_of(logits, rule, labels, mixes(weights)), costs, risk)[0]

    found = differential_evolution(
        cost, [(0.0, 2.0)] * len(places), maxiter=generations, popsize=6, seed=seed, polish=False, tol=1e-6
    )
    return mixes(found.x) if found.fun < cost(np.zeros(len(places))) else alone(exits)
