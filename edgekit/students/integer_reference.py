"""The integer-only RNN once more, in numpy with 64-bit integers, one sentence and one number after the other.

Written from the description in `integer_rnn`, without its code: what every engine's answer is held against, bit by bit.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

Weights = Mapping[str, np.ndarray]


def logits(weights: Weights, ids: np.ndarray) -> np.ndarray:
    """Ids [B, T] to logits [B, 2] int64, 13 bits behind the point."""
    w = {name: value.astype(np.int64) for name, value in weights.items()}
    return np.stack([_sentence(w, sentence) for sentence in ids])


def _sentence(w: Weights, ids: np.ndarray) -> np.ndarray:
    units = len(w["state"])
    hidden, cell = np.zeros(units, np.int64), np.zeros(units, np.int64)
    states = []
    for word in ids:
        total = (w["table"][word] @ w["input"] + hidden @ w["state"]) >> 6
        gates = np.clip((_normalised(total) * w["gain"] >> 6) + w["bias"], -512, 511)
        into, forget, candidate, out = gates.reshape(4, units)
        cell = np.clip((sigmoid(forget) * cell + sigmoid(into) * tanh(candidate)) >> 7, -1024, 1023)
        hidden = np.clip((sigmoid(out) * tanh(cell >> 1)) >> 7, -127, 127)
        states.append(hidden)
    scores = []
    for word, state in zip(ids, states, strict=True):
        seen = np.clip(tanh(state @ w["attend"] >> 7), -127, 127)
        scores.append(int((seen @ w["score"] >> 7)[0]) if word else -8192)
    mixed, total = np.zeros(units, np.int64), 0
    for word, state, score in zip(ids, states, scores, strict=True):
        below = score - max(scores)
        weight = max(below + 128, (below >> 2) + 48, 0) if word else 0
        mixed, total = mixed + weight * state, total + weight
    total = max(total, 1)
    context = np.clip(_towards_zero(mixed + 128 * total, total) - 128, -127, 127)
    return context @ w["head"] + w["head_bias"]


def _normalised(x: np.ndarray) -> np.ndarray:
    size = len(x)
    distance = x - x.sum() // size
    deviation = max(int(np.abs(distance).sum()) // size, 1)
    return np.clip(_towards_zero(64 * distance + 32 * size * deviation, deviation) - 32 * size, -511, 511)


def _towards_zero(x: np.ndarray, y: int) -> np.ndarray:
    return np.sign(x) * (np.abs(x) // y)


def sigmoid(x: np.ndarray) -> np.ndarray:
    """6 bits behind the point to 7: slope 1/4 up to 1, 1/8 up to 3, then flat."""
    return np.clip(np.minimum(np.maximum(x >> 1, (x >> 2) - 16), (x >> 2) + 16), -64, 64) + 64


def tanh(x: np.ndarray) -> np.ndarray:
    """6 bits behind the point to 7: slope 1 up to 0.625, 1/4 up to 2.1, then flat."""
    return np.clip(np.minimum(np.maximum(2 * x, (x >> 1) - 60), (x >> 1) + 60), -128, 128)
