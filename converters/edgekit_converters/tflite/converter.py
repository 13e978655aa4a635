"""The door of the TFLite converter: `export` writes the fp32 file, `quantize` the int8 file."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path

import msgspec
import numpy as np

from edgekit_converters.capture.program import integer_only
from edgekit_converters.captured import Arrays, Captured
from edgekit_converters.draft import Draft, Progress
from edgekit_converters.quiet import quiet_native
from edgekit_converters.recipe.types import Given, Recipe
from edgekit_converters.tflite import apply, flatbuffer, ladder, sensitivity, smooth, source
from edgekit_converters.tflite.calibrate import Range, Rows, activation_ranges, activation_rows
from edgekit_converters.tflite.lower import GENERAL_REMEDY, lower
from edgekit_converters.tflite.passes.centre_table import centre_tables
from edgekit_converters.tflite.passes.compact import compact
from edgekit_converters.tflite.passes.every_nth import every_nth
from edgekit_converters.tflite.passes.metadata import stamp
from edgekit_converters.tflite.passes.names import rename, shorten
from edgekit_converters.tflite.passes.one_number import one_number
from edgekit_converters.tflite.passes.scatter_rows import scatter_rows
from edgekit_converters.tflite.passes.step_recurrent import step_recurrent
from edgekit_converters.tflite.passes.steps_by_four import steps_by_four
from edgekit_converters.tflite.resolve import resolve
from edgekit_runtime.errors import Refused
from edgekit_runtime.manifest import Signature, Tensor

ENGINE = "litert"


class TfliteConverter:
    """Implements `edgekit_converters.draft.FormatConverter` for TFLite.

    Args:
        ladder: Sizes by symbol for dynamic axes, where the defaults do not fit: `{"T": (32, 128)}`.
    """

    def __init__(self, ladder: Mapping[str, Sequence[int]] | None = None) -> None:
        self._ladder = dict(ladder or {})
        self._ranges: dict[str, Range] = {}
        self._rows: dict[str, Rows] = {}
        self._made = 0

    def export(self, student: Captured, work: Path, progress: Progress) -> Draft:
        """Writes `tflite.fp32.tflite` in `work`.

        Raises:
            Refused: An operator cannot be lowered or run; names the operator, the place and the way out.
            UsageError: Sizes asked for an axis that the student does not have or does not allow.
        """
        if student.kind == "onnx":
            raise Refused(
                "an .onnx source gives ONNX only: there is no faithful way from ONNX to TFLite",
                remedy="convert from the torch source to get TFLite, or ask for --format onnx",
            )
        if student.quantized and student.program is not None and not integer_only(student.program):
            # Seen with litert-torch 0.10: folded int8 weights do not lower, unfolded ones come out in floating point.
            raise Refused(
                "litert-torch does not keep the int8 of a quantized program",
                remedy="--format onnx keeps it; or convert the float program and let edgekit quantize it",
            )
        path = work / "tflite.fp32.tflite"
        if student.kind == "tflite":
            return self._take(student, path, progress)
        signatures = ladder.plan(student, self._ladder)
        model = lower(student, signatures, progress)
        rename(model, [tensor.name for tensor in student.inputs], [tensor.name for tensor in student.outputs])
        scatter_rows(model)
        every_nth(model)
        step_recurrent(model)
        one_number(model)
        steps_by_four(model)
        version = write(model, path)
        draft = _draft(student, model, path, version, signatures if student.axes else ())
        progress("TFLite: trying every signature")
        try_signatures(draft)
        return dataclasses.replace(draft, precision="int8") if student.quantized else draft

    def _take(self, student: Captured, path: Path, progress: Progress) -> Draft:
        progress("TFLite: taking the file as it is")
        model, version = source.take(student, path)
        draft = _draft(student, model, path, version, ())
        return dataclasses.replace(draft, precision="int8") if student.quantized else draft

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
        """Writes the int8 file in `work`. See `draft.FormatConverter.quantize`.

        Raises:
            Refused: Nothing in this graph can become int8.
        """
        if variant:
            raise ValueError(f"TFLite has one int8 form, not {variant!r}")
        if student.quantized:
            raise Refused("the source is quantized already and is kept as it is", remedy="--precision keep")
        model = flatbuffer.read(fp32.path)
        centre_tables(model)
        progress("TFLite: resolving the recipe")
        recipe = resolve(model, student.float_patterns, calibrated=bool(calibration), given=given)
        if all(decision.scheme in ("float", "follow") for decision in recipe.ops):
            raise Refused(
                "nothing in the TFLite graph can become int8: " + _reasons(recipe),
                remedy="ship the fp32 graph, or convert to ONNX as well (--format onnx,tflite)",
            )
        if any(decision.scheme == "static" for decision in recipe.ops) and not self._ranges:
            progress(f"TFLite: calibrating on {len(calibration)} samples")
            self._ranges = activation_ranges(fp32.path, fp32.inputs, fp32.signatures, calibration)
        recipe = self._even_out(model, recipe, fp32, calibration, progress)
        progress("TFLite: quantizing")
        quantized = apply.quantize(model, recipe, self._ranges)
        self._made += 1
        path = work / f"tflite.int8.{self._made}.tflite"
        version = write(quantized, path)
        return dataclasses.replace(
            fp32, precision="int8", path=path, recipe=recipe, min_engine_version=f"tflite={version}"
        )

    def halve(self, student: Captured, fp32: Draft, work: Path, progress: Progress) -> Draft:
        """Writes the fp16 file. See `draft.FormatConverter.halve`."""
        progress("TFLite: writing fp16")
        path = work / "tflite.fp16.tflite"
        version = write(apply.halve(flatbuffer.read(fp32.path)), path)
        return dataclasses.replace(fp32, precision="fp16", path=path, min_engine_version=f"tflite={version}")

    def noise(self, student: Captured, fp32: Draft, int8: Draft, calibration: Sequence[Arrays]) -> dict[str, float]:
        """See `draft.FormatConverter.noise`."""
        return sensitivity.noise(fp32, int8, calibration)

    def _even_out(
        self, model: flatbuffer.Model, recipe: Recipe, fp32: Draft, calibration: Sequence[Arrays], progress: Progress
    ) -> Recipe:
        wanted = list(smooth.readers(model, recipe))
        if not wanted or not calibration:
            return recipe
        missing = [name for name in wanted if name not in self._rows]
        if missing:
            progress("TFLite: looking for outliers in the rows")
            self._rows |= activation_rows(fp32.path, fp32.inputs, fp32.signatures, calibration, missing)
        factors = smooth.plan(model, recipe, self._rows)
        if not factors:
            return recipe
        smooth.apply(model, recipe, factors)
        note = f"columns evened out in front of row-wise int8 products: {', '.join(factors)}"
        return msgspec.structs.replace(recipe, notes=(*recipe.notes, note))


def _reasons(recipe: Recipe) -> str:
    reasons = sorted({decision.reason for decision in recipe.ops})
    return "; ".join(reasons) or "it has no operator with weights"


def _draft(
    student: Captured, model: flatbuffer.Model, path: Path, version: str, signatures: tuple[Signature, ...]
) -> Draft:
    return Draft(
        format="tflite",
        precision="fp32",
        path=path,
        inputs=file_tensors(model, student.inputs, "inputs"),
        outputs=file_tensors(model, student.outputs, "outputs"),
        engine=ENGINE,
        min_engine_version=f"tflite={version}",
        signatures=signatures,
    )


def try_signatures(draft: Draft) -> None:
    """Runs every signature once on zeros: what lowers does not always run.

    Raises:
        Refused: LiteRT does not take the file, with its reason.
    """
    for signature in draft.signatures or (Signature(name=ladder.ONLY, sizes={}),):
        inputs = {
            tensor.name: np.zeros(ladder.shape_at(tensor.shape, signature.sizes), tensor.dtype)
            for tensor in draft.inputs
        }
        try:
            with quiet_native():
                from ai_edge_litert.interpreter import Interpreter

                Interpreter(str(draft.path)).get_signature_runner(signature.name)(**inputs)
        except (RuntimeError, ValueError) as error:
            raise Refused(
                f"the student lowers to TFLite but does not run there: {str(error).strip()}", remedy=GENERAL_REMEDY
            ) from error


def write(model: flatbuffer.Model, path: Path) -> str:
    """Stamps, compacts and writes a model; returns the minimum runtime (`2.14`)."""
    version = stamp(model)
    shorten(model)
    compact(model)
    path.write_bytes(flatbuffer.serialize(model))
    return version


def file_tensors(model: flatbuffer.Model, tensors: Sequence[Tensor], side: str) -> tuple[Tensor, ...]:
    """The student's inputs or outputs with the dtype the file has; symbols stay in the shapes."""
    subgraph = flatbuffer.main_subgraphs(model)[0]
    found = []
    for tensor, index in zip(tensors, getattr(subgraph, side), strict=True):
        in_file = subgraph.tensors[int(index)]
        found.append(
            Tensor(
                name=tensor.name, dtype=flatbuffer.dtype_of(in_file), shape=tensor.shape, min=tensor.min, max=tensor.max
            )
        )
    return tuple(found)
