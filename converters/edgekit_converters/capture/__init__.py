"""Capture: any source becomes one captured student.

module, file.py:name   factory -> weights -> torch.export ─┐   (encode and decode_step: two programs, `sequence`)
.pt2                   torch.export.load ──────────────────┤
Hugging Face folder    transformers -> torch.export ───────┼─► Captured
.onnx, .tflite         the file itself ────────────────────┘
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from edgekit_converters.capture.axes import DynamicAxis
from edgekit_converters.capture.source import SourceSpec, parse_source
from edgekit_converters.captured import Arrays, Captured
from edgekit_runtime.errors import Refused, UsageError

if TYPE_CHECKING:
    import torch

__all__ = ["SourceSpec", "capture", "parse_source"]


def capture(
    source: SourceSpec | torch.nn.Module,
    *,
    name: str,
    example: Arrays | None,
    dynamic: Sequence[DynamicAxis] = (),
    weights: Path | None = None,
    keep: bool = False,
) -> Captured:
    """Makes one captured student of any source.

    Args:
        source: What `parse_source` found, or an nn.Module.
        name: Name for the bundle.
        example: One batch of inputs, arrays named as the arguments of `forward`; graph files can do without.
        dynamic: Axes the person declared.
        weights: File for `--weights`.
        keep: The source may be quantized already.

    Raises:
        Refused: The student cannot be taken: what, where, what to do.
        UsageError: Options that do not fit the source.
    """
    kind = source.kind if isinstance(source, SourceSpec) else "module"
    if weights is not None and kind != "module":
        raise UsageError(
            "--weights goes with a Python source", remedy="leave it out: this source brings its own weights"
        )
    if dynamic and kind == "pt2":
        raise UsageError("--dynamic does not go with a .pt2 source", remedy="its axes are those it was exported with")
    if isinstance(source, SourceSpec) and kind in ("onnx", "tflite"):
        from edgekit_converters.capture.graph_file import capture_file

        return capture_file(source.path, name=name, example=example, dynamic=dynamic, keep=keep)
    from edgekit_converters.capture.torch_student import capture_module, capture_pt2

    if isinstance(source, SourceSpec) and kind == "pt2":
        return capture_pt2(source.path, name=name, example=example, keep=keep)
    module, notes = _module(source, weights)
    if example is None:
        raise Refused(
            "no example inputs", remedy="give --example FILE.npz, or --calibration data whose first sample serves"
        )
    from edgekit_converters.capture.sequence import capture_sequence, is_sequence

    if is_sequence(module):
        captured = capture_sequence(module, name=name, example=example, dynamic=dynamic, notes=notes)
        return dataclasses.replace(captured, kind=kind)
    captured = capture_module(module, name=name, example=example, dynamic=dynamic, notes=notes)
    return dataclasses.replace(captured, kind=kind)


def _module(source: SourceSpec | torch.nn.Module, weights: Path | None) -> tuple[torch.nn.Module, tuple[str, ...]]:
    from edgekit_converters.capture.weights import apply_weights, load_weights

    notes: tuple[str, ...] = ()
    if not isinstance(source, SourceSpec):
        module = source.eval().cpu()
    elif source.kind == "huggingface":
        from edgekit_converters.capture.huggingface import load_folder

        return load_folder(source.path)
    else:
        from edgekit_converters.capture.factory import load_module

        module = load_module(source)
    if weights is not None:
        apply_weights(module, load_weights(Path(weights)), str(weights))
    elif isinstance(source, SourceSpec):
        notes = ("no --weights given: the module's own parameters are used",)
    return module, notes
