"""Tables of square matrices near the identity are stored in int8 as what they differ from it. Pure.

A model that multiplies the matrices of all words (CMOW, 2109.08449) starts them at I + noise. In int8 with a scale a
row the ones on the diagonal set the step, and the small differences, which carry the meaning, lose their digits; over
a product of 50 matrices that error compounds. Of M - I the step is that of the differences, and a row that is the
identity itself (padding) stays exactly that.
"""

from __future__ import annotations

import math

import numpy as np

# The step has to become this many times finer, in the middle of all rows, for an addition to pay.
GAIN = 1.5


def centre(table: np.ndarray) -> np.ndarray | None:
    """The flattened identity [D] where rows of a table [V, D] are matrices near it, None for any other table."""
    if table.ndim != 2 or table.shape[1] < 4:
        return None
    side = math.isqrt(table.shape[1])
    if side * side != table.shape[1]:
        return None
    identity = np.eye(side, dtype=table.dtype).ravel()
    plain, centred = np.abs(table).max(1), np.abs(table - identity).max(1)
    return identity if np.median(plain) > GAIN * np.median(centred) else None
