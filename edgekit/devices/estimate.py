"""A prediction, whatever it rests on."""

from __future__ import annotations

import dataclasses
import math

from edgekit.devices.families import PRODUCTS, Cell


@dataclasses.dataclass(frozen=True)
class Estimate:
    """A prediction.

    Attributes:
        us: Microseconds of each operator, all its calls.
        run_us: Of a run besides its operators.
        spread: Standard deviation of the logarithm of the whole.
        uncovered_macs_fraction: Share of the multiply-accumulates that nothing is known about.
        ground: What it rests on, in words.
    """

    us: tuple[float, ...]
    run_us: float
    spread: float
    uncovered_macs_fraction: float
    ground: str

    @property
    def ms(self) -> float:
        """The whole."""
        return (sum(self.us) + self.run_us) / 1e3

    def interval(self, z: float) -> tuple[float, float]:
        """Milliseconds from low to high at so many standard deviations."""
        return self.ms * math.exp(-z * self.spread), self.ms * math.exp(z * self.spread)


def weights_bytes(each: Cell) -> int:
    """Bytes of an operator's weights; none for a product of two activations."""
    if each.family not in PRODUCTS or each.family in ("matmul", "attention"):
        return 0
    _, inner, columns = each.sizes
    return inner * columns * (1 if each.int8 else 4)
