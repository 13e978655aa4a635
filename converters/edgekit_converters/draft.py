"""A graph on its way into the bundle: what a format converter gives back."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Protocol

from edgekit_converters.captured import Arrays, Captured
from edgekit_converters.recipe.types import Given, Recipe
from edgekit_runtime.manifest import Format, Precision, Role, Signature, Tensor

Progress = Callable[[str], None]


@dataclasses.dataclass(frozen=True)
class Draft:
    """One converted graph file in the work folder, not yet verified.

    Attributes:
        path: The file. External data, if any, lies beside it or in folders there and is listed in `extra_files`.
        inputs: Named as the student's inputs; dtype and shape as in the file.
        outputs: Named as the student's outputs, in the student's order.
        signatures: Ladder rungs (TFLite), smallest first; empty when the file itself takes every size.
        min_engine_version: Oldest engine that runs the file.
        recipe: How it was quantized; None for fp32.
        role: What the graph is for; `full` for the whole student.
        targets: Device profiles it was made for; empty: all.
        why: Why it ships, where that was decided already.
    """

    format: Format
    precision: Precision
    path: Path
    inputs: tuple[Tensor, ...]
    outputs: tuple[Tensor, ...]
    engine: str
    min_engine_version: str
    variant: str = ""
    signatures: tuple[Signature, ...] = ()
    recipe: Recipe | None = None
    extra_files: tuple[Path, ...] = ()
    role: Role = "full"
    targets: tuple[str, ...] = ()
    why: str = ""

    @property
    def id(self) -> str:
        """`FORMAT.PRECISION[.VARIANT]`, for a part of a student with its role at the end."""
        role = "" if self.role == "full" else self.role
        return ".".join(part for part in (self.format, self.precision, self.variant, role) if part)


class FormatConverter(Protocol):
    """What each format offers to `convert`."""

    def export(self, student: Captured, work: Path, progress: Progress) -> Draft:
        """Writes the fp32 graph. Raises Refused naming operator, Python file:line and remedy."""
        ...

    def quantize(
        self,
        student: Captured,
        fp32: Draft,
        calibration: Sequence[Arrays],
        work: Path,
        progress: Progress,
        variant: str = "",
        *,
        given: Given | None = None,
    ) -> Draft:
        """Resolves a recipe on the fp32 graph, applies it and writes the int8 graph.

        Args:
            student: The captured student.
            fp32: What `export` gave.
            calibration: Samples; each array has a leading sample axis of 1 unless the student has no batch axis.
            work: Folder for files.
            progress: Called with a short line for each step.
            variant: Numeric form, of those the format has; empty: its usual one.
            given: Decisions that go before the recipe's own. Calibration is not repeated for another set of them.

        Raises:
            Refused: Nothing in this graph can become int8 (says why).
        """
        ...

    def halve(self, student: Captured, fp32: Draft, work: Path, progress: Progress) -> Draft:
        """Writes the graph with weights in half precision; inputs and outputs stay as they are.

        Raises:
            Refused: The engine does not take the file.
        """
        ...

    def noise(self, student: Captured, fp32: Draft, int8: Draft, calibration: Sequence[Arrays]) -> dict[str, float]:
        """How much noise each operator adds by being int8, found in one pass over the samples.

        Returns:
            Noise power over signal power at the operator's own output (10^(-SQNR/10)), by operator; those whose output
            cannot be seen are missing.
        """
        ...
