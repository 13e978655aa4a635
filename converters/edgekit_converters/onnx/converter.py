"""The ONNX side of `convert`: implements `FormatConverter`."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec
import numpy as np

from edgekit_converters.captured import Arrays, Captured
from edgekit_converters.draft import Draft, Progress
from edgekit_converters.onnx import apply as applying
from edgekit_converters.onnx import centre, company, external, half, observe, pins, sensitivity
from edgekit_converters.onnx import export as exporting
from edgekit_converters.onnx.resolve import Facts, resolve
from edgekit_converters.onnx.session import open_session
from edgekit_converters.onnx.versions import min_engine_version
from edgekit_converters.recipe.types import Given, Recipe
from edgekit_runtime.errors import Refused
from edgekit_runtime.manifest import Precision, Tensor

if TYPE_CHECKING:
    import onnx_ir as ir

_INT8 = {"static", "dynamic_row", "dynamic_tensor", "weight_row", "weight_channel"}


class OnnxConverter:
    """Captured student -> fp32 and int8 `.onnx` files for onnxruntime.

    Args:
        opset: ONNX opset of exported graphs; None: the default of `versions`.
    """

    def __init__(self, opset: int | None = None) -> None:
        self.opset = opset
        self._seen = applying.Seen()
        self._made = 0
        self._least = 0

    def export(self, student: Captured, work: Path, progress: Progress) -> Draft:
        """Writes the fp32 graph. See `draft.FormatConverter.export`.

        A source that is quantized and kept is copied byte for byte, its external data too, and drafted as int8.
        """
        progress("onnx: writing the fp32 graph")
        made = exporting.export(student, self.opset)
        precision: Precision = "int8" if student.quantized else "fp32"
        path = work / f"{precision}.onnx"
        if student.quantized and student.path is not None:
            data = external.copy(student.path, path, f"onnx.{precision}.onnx")
        else:
            data = external.write(made.model, path, f"onnx.{precision}")
        _sidecar(path).write_text(
            json.dumps({"wheres": dict(made.wheres), "notes": [made.exporter, *made.notes]}, sort_keys=True)
        )
        return _draft(made.model, path, precision, data)

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
        """Writes the int8 graph. See `draft.FormatConverter.quantize`.

        Args:
            student: The captured student.
            fp32: What `export` gave.
            calibration: Samples with a leading axis of 1.
            work: Folder for files.
            progress: Called with a short line for each step.
            variant: Empty, `reduced_range` or `s8s8` (see `apply.apply`).
            given: Decisions that go before the recipe's own.
        """
        model = external.read(fp32.path)
        centre.apply(model)
        progress("onnx: deciding what becomes int8")
        recipe = decide(model, student, fp32.path, variant, given)
        if not any(op.scheme in _INT8 for op in recipe.ops):
            reasons = sorted({f"{op.kind}: {op.reason}" for op in recipe.ops}) or ["it has no weights"]
            raise Refused(
                "nothing in this graph can become int8: " + "; ".join(reasons), remedy="ship it with --precision fp32"
            )
        if not calibration and any(op.scheme == "static" for op in recipe.ops):
            raise Refused(
                "this student's convolutions need calibration samples, and there are none",
                remedy="give --calibration FILE with at least 8 samples",
            )
        progress(f"onnx: calibrating on {len(calibration)} samples and writing int8")
        samples = [_typed(sample, student.inputs) for sample in calibration]
        recipe, made = self._least_pinned(model, recipe, samples, student)
        self._made += 1
        name = ".".join(part for part in ("int8", variant) if part)
        # A folder of its own: tensors beside the graph have the bundle's name, and several graphs are compared.
        path = work / f"{name}.{self._made}" / f"{name}.onnx"
        path.parent.mkdir()
        data = external.write(made, path, f"onnx.{name}")
        draft = _draft(made, path, "int8", data)
        return Draft(**{**vars(draft), "recipe": recipe, "variant": variant})

    def _least_pinned(
        self, model: ir.Model, recipe: Recipe, samples: Sequence[Arrays], student: Captured
    ) -> tuple[Recipe, ir.Model]:
        """The int8 graph with as few constant ends as its answers need to be the same in any company, and the recipe.

        Another recipe on the same graph begins where the last one ended.
        """
        layers = [op.op for op in recipe.ops if op.scheme == "dynamic_tensor"]
        if layers and not any(axis.role in ("batch", "length") for axis in student.axes):
            return recipe, applying.apply(model, recipe, samples, self._seen, pins.LEVELS[0])  # always alone
        together = company.gather(samples, student.inputs, student.axes) if layers else None
        if together is None:
            return recipe, applying.apply(model, recipe, samples, self._seen)
        for level in pins.LEVELS[self._least :]:
            made = applying.apply(model, recipe, samples, self._seen, level)
            near = company.agreement(open_session(made), together, student.outputs, student.axes)
            if near >= pins.ENOUGH:
                break
            self._least = min(self._least + 1, len(pins.LEVELS) - 1)
        told = f"; calibrated ends in {level}: alone and in a batch the answers agree to cosine {near:.6f}"
        ops = [msgspec.structs.replace(op, reason=op.reason + told * (op.op in layers)) for op in recipe.ops]
        return msgspec.structs.replace(recipe, ops=tuple(ops)), made

    def halve(self, student: Captured, fp32: Draft, work: Path, progress: Progress) -> Draft:
        """Writes the fp16 graph. See `draft.FormatConverter.halve`."""
        progress("onnx: writing fp16")
        made = half.halve(fp32.path)
        path = work / "fp16.onnx"
        data = external.write(made, path, "onnx.fp16")
        draft = _draft(made, path, "fp16", data)
        return dataclasses.replace(draft, inputs=fp32.inputs, outputs=fp32.outputs)

    def noise(self, student: Captured, fp32: Draft, int8: Draft, calibration: Sequence[Arrays]) -> dict[str, float]:
        """See `draft.FormatConverter.noise`."""
        assert int8.recipe is not None
        model = external.read(fp32.path)
        centre.apply(model)
        samples = [_typed(sample, student.inputs) for sample in calibration]
        return sensitivity.noise(model, int8.recipe, samples)


def decide(model: ir.Model, student: Captured, path: Path, variant: str = "", given: Given | None = None) -> Recipe:
    """The recipe of a fp32 graph, with sizes taken from the student's example and places from the exporter's notes."""
    told = json.loads(_sidecar(path).read_text()) if _sidecar(path).is_file() else {"wheres": {}, "notes": []}
    facts = Facts(observe.shapes(model, student.example), told["wheres"], student.float_patterns, variant, given or {})
    recipe = resolve(model, facts)
    return msgspec.structs.replace(recipe, notes=tuple(told["notes"]))


def _sidecar(path: Path) -> Path:
    return path.with_suffix(".notes.json")


def _typed(sample: Arrays, inputs: Sequence[Tensor]) -> Arrays:
    """Calibration arrays in the dtypes the graph takes."""
    wanted = {tensor.name: np.dtype(tensor.dtype) for tensor in inputs}
    return {name: np.asarray(value, dtype=wanted.get(name)) for name, value in sample.items()}


def _draft(model: ir.Model, path: Path, precision: Precision, data: tuple[Path, ...] = ()) -> Draft:
    open_session(path)  # a file that the engine does not open must not become a draft
    return Draft(
        format="onnx",
        precision=precision,
        path=path,
        inputs=_tensors(model.graph.inputs),
        outputs=_tensors(model.graph.outputs),
        engine="onnxruntime",
        min_engine_version=min_engine_version(model),
        extra_files=data,
    )


def _tensors(values: Sequence[ir.Value]) -> tuple[Tensor, ...]:
    return tuple(
        Tensor(
            name=value.name or "",
            dtype=value.dtype.numpy().name if value.dtype is not None else "float32",
            shape=tuple(
                size if isinstance(size, int) else str(size.value or f"{value.name}_{axis}")
                for axis, size in enumerate(value.shape or ())
            ),
        )
        for value in values
    )
