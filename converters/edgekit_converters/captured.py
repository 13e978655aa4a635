"""The captured student: what every source becomes before any format is made of it.

One object flows: `capture` makes it, the two format converters read it, `verify` compares against its reference. It
holds a program (torch sources) or a model file (`.onnx`, `.tflite` sources), never both.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np

from edgekit_runtime.manifest import Axis, Decoding, Role, State, Tensor

if TYPE_CHECKING:
    import torch

Arrays = dict[str, np.ndarray]
SourceKind = Literal["module", "pt2", "huggingface", "onnx", "tflite"]


@dataclasses.dataclass(frozen=True)
class Captured:
    """A student, ready for the format converters.

    Attributes:
        name: Name for the bundle.
        kind: What kind of source it was.
        inputs: Named inputs in the order of `forward`; symbols in shapes are those of `axes`.
        outputs: Named outputs in the order the program returns them (exits in order of depth).
        axes: Dynamic axes with the role that was measured for each.
        example: One example batch, arrays named as `inputs`.
        reference: Runs the student itself (torch, or the fp32 source file on its own engine) on named arrays.
        program: torch sources: an exported program whose inputs are passed as keyword arguments named as `inputs` and
            whose flat outputs are in the order of `outputs`. Dynamic axes are `torch.export.Dim`s.
        path: `.onnx` and `.tflite` sources: the file.
        exporter: How it was captured, for the report (`torch.export`, `torch.jit.trace`, `onnx`, `tflite`).
        quantized: The source is int8 already and is kept as it is.
        float_patterns: `--keep-float`: fnmatch patterns of operator or module names left in floating point.
        states: Outputs that are inputs of the next step, for streaming students.
        notes: What a person should know about the capture.
        parts: A student of several graphs: what each is, in the order they run. Itself it then has no program.
        decoding: How the graphs `encoder` and `decode_step` make a sequence.
    """

    name: str
    kind: SourceKind
    inputs: tuple[Tensor, ...]
    outputs: tuple[Tensor, ...]
    axes: tuple[Axis, ...]
    example: Arrays
    reference: Callable[[Mapping[str, np.ndarray]], Arrays]
    program: torch.export.ExportedProgram | None = None
    path: Path | None = None
    exporter: str = "torch.export"
    quantized: bool = False
    float_patterns: tuple[str, ...] = ()
    states: tuple[State, ...] = ()
    notes: tuple[str, ...] = ()
    parts: Mapping[Role, Captured] = dataclasses.field(default_factory=dict)
    decoding: Decoding | None = None

    def part(self, role: Role) -> Captured:
        """The student behind a graph of that role: itself, or one of its parts."""
        return self.parts.get(role, self)

    def axis(self, symbol: str) -> Axis:
        """The dynamic axis with this symbol."""
        return next(axis for axis in self.axes if axis.symbol == symbol)
