"""The calibrated predictor: measured points of each kernel, and what lies between them.

The time of a kernel is smooth in the logarithms of its sizes, so that a straight trend with a correction by distance
(a radial basis function, linear in distance) through the points serves; smoothing keeps one disturbed point from
bending its neighbours. Outside of what was measured the rate stays that of the border.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import msgspec
import numpy as np

from edgekit.devices.families import Cell
from edgekit_runtime.errors import Refused
from edgekit_runtime.manifest import Base

SMOOTHING = 0.005
# Pixels of a convolution matter less than channels: without it, a large picture with many channels took the low rate of
# large pictures with few. Chosen by leaving out one calibrated point at a time (x86-vnni): the errors of convolutions
# fell from 8.1 to 7.8 % (median) and from 41 to 38 % (90th percentile); those of other families grew, and keep 1.
CONV_ROWS_APART = 0.5
STREAM = "stream"  # kind under which the reading of weights stands, by the bytes of all of them


WIRE = "WIRE"  # that under which one more input with an output of its size stands, by its elements
CALLED = "CALLED"  # kind under which stands what an operator takes more in a subgraph that is called


class Point(Base, frozen=True, kw_only=True):
    """One measured call: where it lies (`families.Cell.grid`), microseconds, and its multiply-accumulates."""

    sizes: tuple[int, ...]
    us: float
    macs: int = 0


class Kernels(Base, frozen=True, kw_only=True):
    """What was measured of one engine: points by `Cell.key`, and the cost of a run that does nothing."""

    engine: str
    engine_version: str
    threads: int
    run_us: float
    points: dict[str, tuple[Point, ...]]


class Predictor(Base, frozen=True, kw_only=True):
    """A calibration of one machine, as JSON beside its profile."""

    schema: Literal["edgekit.predictor/2"] = "edgekit.predictor/2"
    device: str
    kernels: tuple[Kernels, ...]


def read(path: Path) -> Predictor:
    """Reads a predictor.

    Raises:
        Refused: It is absent, no JSON, or of another shape.
    """
    try:
        return msgspec.json.decode(path.read_bytes(), type=Predictor)
    except OSError as error:
        raise Refused(f"the predictor {path.name} is not there", remedy="edgekit devices --calibrate") from error
    except msgspec.DecodeError as error:  # a ValidationError is one, too
        raise Refused(f"{path.name} is not a predictor: {error}", remedy="edgekit devices --calibrate") from error


class Surface:
    """Time over sizes of one kernel, in logarithms.

    Args:
        points: At least one; all with the same number of sizes.
        rows_apart: Weight of the first size, rows, in the distance of two points.
    """

    def __init__(self, points: Sequence[Point], rows_apart: float = 1.0) -> None:
        self._apart = np.ones(len(points[0].sizes))
        self._apart[0] = rows_apart
        self._at = np.log2(np.array([point.sizes for point in points], float))
        time = np.log2(np.array([point.us for point in points], float))
        self._low, self._high = self._at.min(0), self._at.max(0)
        # Of two sizes the second is no work: a run, or what all weights have. It bends time, and ends with the points.
        self._work = np.array([1.0, 0.0]) if self._at.shape[1] == 2 else np.ones(self._at.shape[1])
        self._trend = _trend(self._at, time, self._work)
        rest = time - self._line(self._at)
        distances = np.linalg.norm((self._at[:, None] - self._at[None]) * self._apart, axis=-1)
        # A linear kernel turned positive: near points share their correction, far ones share none.
        self._reach = max(float(distances.max()), 1.0)
        kernel = np.maximum(0.0, 1.0 - distances / self._reach)
        self._weights = np.linalg.solve(kernel + SMOOTHING * np.eye(len(points)), rest)

    def us(self, sizes: Sequence[int]) -> float:
        """Microseconds of one call at some sizes."""
        wanted = np.log2(np.maximum(np.array(sizes, float), 1.0))
        inside = np.clip(wanted, self._low, self._high)
        near = np.maximum(0.0, 1.0 - np.linalg.norm((self._at - inside) * self._apart, axis=1) / self._reach)
        outside = (wanted - inside) * self._work
        beyond = float(outside.clip(0.0).sum())  # above: in proportion to the work
        below = float(outside.clip(None, 0.0).sum()) * 0.5  # below: overhead does not shrink with it
        return float(2.0 ** (self._line(inside) + near @ self._weights + beyond + below))

    def _line(self, at: np.ndarray) -> np.ndarray:
        return np.asarray(at @ self._trend[1:] + self._trend[0])


def _trend(at: np.ndarray, time: np.ndarray, work: np.ndarray) -> np.ndarray:
    """Coefficients of a straight line, drawn towards time in proportion to every size that is work.

    Few points may lie in a plane, and what they leave open is then what more work costs at the same rate.
    """
    design = np.column_stack([np.ones(len(at)), at])
    pull = np.diag([0.0, *[0.05] * at.shape[1]]) * len(at)
    rest = np.linalg.solve(design.T @ design + pull, design.T @ (time - at @ work))
    return np.asarray(rest + np.array([0.0, *work]))


@functools.lru_cache(maxsize=4096)
def surface(points: tuple[Point, ...], rows_apart: float = 1.0) -> Surface:
    """The surface through some points, made once."""
    return Surface(points, rows_apart)


def closest(kernels: Kernels, cell: Cell) -> tuple[tuple[Point, ...], bool]:
    """The points to predict a call from, and whether they are of its own kernel; () where there is nothing alike."""
    own = kernels.points.get(cell.key)
    if own is not None and len(own[0].sizes) == len(cell.grid):
        return own, True
    kind = "int8" if cell.int8 else "float"
    alike = [
        points
        for key, points in kernels.points.items()
        if key.startswith(f"{cell.family}/") and len(points[0].sizes) == len(cell.grid)
    ]
    same = [points for key, points in kernels.points.items() if points in alike and key.endswith(kind)]
    found = same or alike
    return (found[0] if found else ()), False
