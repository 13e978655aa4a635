"""Both formats of one student: which converter makes them, and what happens when one says no."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path

from edgekit_converters.capture.sequence import part_samples
from edgekit_converters.captured import Captured
from edgekit_converters.data import Samples
from edgekit_converters.draft import Draft, FormatConverter, Progress
from edgekit_converters.options import Options
from edgekit_converters.verify.task import student_outputs
from edgekit_runtime.errors import Refused, UsageError
from edgekit_runtime.manifest import Refusal, Role


def make_drafts(
    student: Captured, calibration: Samples | None, options: Options, work: Path, progress: Progress
) -> tuple[list[Draft], list[Refusal]]:
    """Converts the student to every format asked for.

    Returns:
        The graphs, and what was asked for but cannot be had, with reasons.

    Raises:
        Refused: No format takes the student at all (the reasons of each), or it fails on a calibration sample.
        UsageError: A graph needs a newer engine than `--min-engine` allows.
    """
    drafts: list[Draft] = []
    refused: list[Refusal] = []
    for name in options.formats:
        reason = _other_format(student, name)
        if reason:
            refused.append(Refusal(format=name, precision="all", reason=reason))
            continue
        job = _Format(name, _converter(name, options), student, calibration, progress)
        try:
            exported = job.export(work / name)
        except Refused as error:
            refused.append(Refusal(format=name, precision="all", reason=error.told))
            continue
        drafts += exported
        if options.precision in ("auto", "int8") and calibration is not None and not student.quantized:
            for fp32 in exported:
                try:
                    drafts.append(job.quantize(fp32, work / name))
                except Refused as error:
                    refused.append(Refusal(format=name, precision="int8", reason=error.told))
    if not drafts:
        raise Refused(
            "no format takes this student:\n    " + "\n    ".join(f"{r.format}: {r.reason}" for r in refused),
            remedy="see the reasons above",
        )
    _check_engines(drafts, options)
    return drafts, refused


@dataclasses.dataclass(frozen=True)
class _Format:
    """One format of a student, each of its parts by itself."""

    name: str
    converter: FormatConverter
    student: Captured
    calibration: Samples | None
    progress: Progress

    def export(self, work: Path) -> list[Draft]:
        """The fp32 graph of each part; one that is refused refuses the format."""
        made = []
        roles: tuple[Role, ...] = tuple(self.student.parts) or ("full",)
        for role in roles:
            folder = work / role
            folder.mkdir(parents=True)
            self.progress(f"{self.name}: exporting fp32{_of(role)}")
            draft = self.converter.export(self.student.part(role), folder, self.progress)
            made.append(dataclasses.replace(draft, role=role))
        return made

    def quantize(self, fp32: Draft, work: Path) -> Draft:
        """The int8 graph of a part."""
        assert self.calibration is not None
        self.progress(f"{self.name}: quantizing to int8{_of(fp32.role)}")
        part = self.student.part(fp32.role)
        try:
            samples = part_samples(self.student, fp32.role, self.calibration.inputs)
            draft = self.converter.quantize(part, fp32, samples, work / fp32.role, self.progress)
        except Refused:
            raise
        except Exception:  # an engine that fails while it calibrates: are the data to blame?
            student_outputs(self.student, self.calibration, self.progress)
            raise
        return dataclasses.replace(draft, role=fp32.role)


def _of(role: Role) -> str:
    return "" if role == "full" else f" of the {role}"


def _other_format(student: Captured, name: str) -> str:
    if student.kind in ("onnx", "tflite") and student.kind != name:
        return f"an .{student.kind} source gives {student.kind} only; convert the torch model to have both"
    return ""


def _converter(name: str, options: Options) -> FormatConverter:
    return _MAKERS[name](options)


def _onnx(options: Options) -> FormatConverter:
    from edgekit_converters.onnx.converter import OnnxConverter

    return OnnxConverter(opset=options.opset)


def _tflite(options: Options) -> FormatConverter:
    from edgekit_converters.tflite.converter import TfliteConverter

    return TfliteConverter()


_MAKERS: dict[str, Callable[[Options], FormatConverter]] = {"onnx": _onnx, "tflite": _tflite}


def _check_engines(drafts: list[Draft], options: Options) -> None:
    """Compares what the graphs need with the oldest engines the person promised."""
    for draft in drafts:
        engine, _, needed = draft.min_engine_version.rpartition("=")
        allowed = options.min_engine.get(engine or {"onnx": "onnxruntime", "tflite": "tflite"}[draft.format])
        if allowed and _numbers(needed) > _numbers(allowed):
            raise UsageError(
                f"graph {draft.id} needs {draft.format} engine {needed}; --min-engine promises {allowed}",
                remedy="raise --min-engine, lower --opset, or leave that format or precision out",
            )


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in version.split(".") if part.isdigit())
