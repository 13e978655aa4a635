"""What an engine is: the one seam between edgekit and the libraries that run graphs.

An engine loads a file and gives back a `LoadedGraph`. Inputs and outputs are named as in the file; the session above
has already checked names, dtypes and shapes, so the engine's own call is all that happens here.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Protocol

import numpy as np

from edgekit_runtime.manifest import Tensor
from edgekit_runtime.measurement import OpCost

Arrays = dict[str, np.ndarray]


class LoadedGraph(Protocol):
    """A graph ready to run. `run` may be called from several threads."""

    inputs: tuple[Tensor, ...]
    outputs: tuple[Tensor, ...]

    def run(self, inputs: Mapping[str, np.ndarray]) -> Arrays:
        """Runs once. Keys and values are as the file declares them."""
        ...

    def close(self) -> None:
        """Frees the engine's memory. Running afterwards is an error."""
        ...


class Engine(Protocol):
    """A library that runs graphs of one or more formats."""

    name: str
    version: str
    formats: tuple[str, ...]

    def load(self, path: Path, *, threads: int = 1, signature: str = "") -> LoadedGraph:
        """Opens a file.

        Args:
            path: The graph file.
            threads: Threads inside one operator (intra-op).
            signature: Ladder rung to run (TFLite); empty: the only or default one.

        Raises:
            Refused: The engine cannot take the file (what, where, what to do).
        """
        ...

    def trace(
        self, path: Path, inputs: Mapping[str, np.ndarray], *, threads: int = 1, runs: int = 1
    ) -> Sequence[OpCost]:
        """Runs the file under the engine's own profiler and returns what was executed, operator by operator.

        The operators are those of the engine's optimised graph, not of the file: `kind` and `int8` tell what really
        ran. `ms` is the mean over the middle half of `runs`, None where the engine does not tell.
        """
        ...


def middle_mean(values: Sequence[float]) -> float:
    """Mean of the middle half: a few interrupted runs do not count, and whole microseconds still average out."""
    ordered = np.sort(np.asarray(values, dtype=float))
    cut = len(ordered) // 4
    return float(ordered[cut : len(ordered) - cut].mean())
