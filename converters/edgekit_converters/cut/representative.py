"""A few split points that stand for all: layers that say the same of the samples are one group. Pure.

    what crosses, at each place ─ features ─► [samples, features] ─ linear CKA ─► how alike ─ k-medoids ─► medoids

Linear CKA: Kornblith et al. 2019, Similarity of Neural Network Representations Revisited, eq. 3 and 4, on Gram matrices
of samples, so that places of any width compare. K-medoids: PAM (Kaufman and Rousseeuw 1990, ch. 2), exact to the bit
from run to run.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

MAX_FEATURES = 16384  # of one sample at one place: evenly spaced numbers of a wide tensor tell as much


def features(tensors: Sequence[np.ndarray], shapes: Sequence[Sequence[int | str]]) -> np.ndarray:
    """One sample at one place as one row of numbers, as long for every sample.

    Args:
        tensors: What crosses there.
        shapes: Their shapes, with symbols on dynamic axes; over those the mean is taken.

    Returns:
        float32 [features], at most `MAX_FEATURES`.
    """
    parts = []
    for tensor, shape in zip(tensors, shapes, strict=True):
        moving = tuple(axis for axis, size in enumerate(shape) if isinstance(size, str))
        parts.append(tensor.astype(np.float32).mean(axis=moving).ravel() if moving else tensor.ravel())
    row = np.concatenate(parts).astype(np.float32)
    return row[:: -(-len(row) // MAX_FEATURES) or 1]


def gram(rows: np.ndarray) -> np.ndarray:
    """Centred Gram matrix of samples, scaled to Frobenius norm 1; zeros where all samples are alike.

    Args:
        rows: [samples, features].
    """
    centred = rows.astype(np.float64) - rows.mean(axis=0, dtype=np.float64)
    largest = np.abs(centred).max(initial=0.0)
    # What centring leaves of equal rows is rounding, not a feature.
    if largest <= 1e-12 * np.abs(rows).max(initial=0.0):
        return np.zeros((len(rows), len(rows)))
    centred /= largest
    product = centred @ centred.T
    found: np.ndarray = product / np.linalg.norm(product)
    return found


def linear_cka(first: np.ndarray, second: np.ndarray) -> float:
    """How alike two representations of the same samples are: 0 to 1, the same under rotation and scale.

    Args:
        first: [samples, features].
        second: [samples, other features].
    """
    return float(alike([first, second])[0, 1])


def alike(layers: Sequence[np.ndarray]) -> np.ndarray:
    """Linear CKA of every pair of layers: [layers, layers]; a layer that tells no sample apart is like such ones only.

    Args:
        layers: [samples, features] each, the same samples in the same order.
    """
    grams = np.stack([gram(layer).ravel() for layer in layers])
    flat = ~grams.any(axis=1)
    found: np.ndarray = np.clip(grams @ grams.T + np.outer(flat, flat), 0.0, 1.0)
    return found


def k_medoids(distances: np.ndarray, k: int) -> tuple[int, ...]:
    """The members nearest to all others: one is added at a time, then exchanged as long as the sum of distances falls.

    Args:
        distances: [members, members], symmetric, zeros on the diagonal.
        k: How many, from 1; all where there are no more members.

    Returns:
        Distinct members, rising.
    """
    members = range(len(distances))
    if k >= len(distances):
        return tuple(members)

    def cost(chosen: Sequence[int]) -> float:
        return float(distances[:, list(chosen)].min(axis=1).sum())

    found: list[int] = []
    while len(found) < k:
        found.append(min((m for m in members if m not in found), key=lambda m: cost([*found, m])))
    best = cost(found)
    while True:
        exchanged = [[*found[:at], m, *found[at + 1 :]] for at in range(k) for m in members if m not in found]
        other = min(exchanged, key=cost)
        # A fall within rounding is none: the loop would turn in a circle.
        if cost(other) >= best * (1 - 1e-12):
            return tuple(sorted(found))
        found, best = other, cost(other)


def stand_ins(layers: Sequence[np.ndarray], k: int) -> tuple[int, ...]:
    """For every layer the one that stands for it; itself where it is one of the `k` that do."""
    distances = 1.0 - alike(layers)
    np.fill_diagonal(distances, 0.0)
    medoids = k_medoids(distances, k)
    nearest = [medoids[int(np.argmin(distances[layer, list(medoids)]))] for layer in range(len(layers))]
    return tuple(layer if layer in medoids else nearest[layer] for layer in range(len(layers)))
