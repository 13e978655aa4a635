"""A linear head outside the frozen graph: it is trained on a device's own few examples and replaced without converting.

    graph ──► embedding [B, D] ──► W e + b ──► scores [B, C] ──► label

In a bundle it is `assets/head.npz` (arrays `weight` [C, D], `bias` [C], and `output`, the name of the graph's output it
reads) beside `assets/labels.txt`; `session.decode` then answers with its labels.
"""

from __future__ import annotations

import dataclasses
import os
import zipfile
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from edgekit_runtime.errors import BundleInvalid, Refused, UsageError

FILE = "assets/head.npz"
_MAX_BYTES = 64 << 20


@dataclasses.dataclass(frozen=True)
class Head:
    """Scores from an embedding.

    Attributes:
        weight: float32 [classes, width].
        bias: float32 [classes].
        output: Name of the graph's output that holds the embedding.
    """

    weight: np.ndarray
    bias: np.ndarray
    output: str = "embedding"

    def __post_init__(self) -> None:
        fits = self.weight.ndim == 2 and self.bias.shape == self.weight.shape[:1]
        finite = fits and bool(np.isfinite(self.weight).all() and np.isfinite(self.bias).all())
        if not finite:
            raise UsageError(
                f"a head has finite weight [classes, width] and bias [classes], not {self.weight.shape} and "
                f"{self.bias.shape}"
            )

    def scores(self, outputs: Mapping[str, np.ndarray]) -> np.ndarray:
        """Logits float32 [B, classes] of what a graph answered.

        Raises:
            Refused: The graph has no such output, or one of another width.
        """
        found = outputs.get(self.output)
        width = self.weight.shape[1]
        if found is None or found.shape[-1] != width:
            has = {name: list(array.shape) for name, array in outputs.items()}
            raise Refused(
                f"the head reads {width} values of the output {self.output!r}; the graph gave {has}",
                remedy="fit the head on this graph's own output",
            )
        return np.asarray(found @ self.weight.T + self.bias, np.float32)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Writes the arrays as `.npz`."""
        weight, bias = (np.asarray(array, np.float32) for array in (self.weight, self.bias))
        np.savez(path, weight=weight, bias=bias, output=np.array(self.output))


def load(path: str | os.PathLike[str]) -> Head:
    """Reads what `save` wrote; never unpickles.

    Raises:
        BundleInvalid: No such file, too large, or not a head.
    """
    path = Path(path)
    try:
        if path.stat().st_size > _MAX_BYTES:
            raise ValueError("larger than 64 MiB")
        with np.load(path, allow_pickle=False) as arrays:
            return Head(arrays["weight"], arrays["bias"], str(arrays["output"]))
    except (OSError, ValueError, KeyError, zipfile.BadZipFile, UsageError) as error:
        raise BundleInvalid(
            f"{path.name} is not a head: {error}", remedy="arrays weight [classes, width], bias [classes], output"
        ) from error
