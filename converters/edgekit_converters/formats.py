"""Both formats of one student: which converter makes them, and what happens when one says no."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path

from edgekit_converters.captured import Captured
from edgekit_converters.data import Samples
from edgekit_converters.draft import Draft, FormatConverter, Progress
from edgekit_converters.mixed.costs import Costs
from edgekit_converters.mixed.quality import pass_gate
from edgekit_converters.mixed.speed import not_slower, timer
from edgekit_converters.mixed.trial import judged
from edgekit_converters.options import Options
from edgekit_converters.recipe.types import Given
from edgekit_converters.verify.task import Task, student_outputs
from edgekit_runtime.errors import Refused, UsageError
from edgekit_runtime.manifest import Refusal

RANKED_ON = 32  # calibration samples that tell an operator's noise well enough to rank it


@dataclasses.dataclass(frozen=True)
class Judging:
    """What int8 graphs are judged on: the gate's data and task, and what things cost."""

    data: Samples
    task: Task
    costs: Costs


def make_drafts(
    student: Captured,
    calibration: Samples | None,
    options: Options,
    work: Path,
    judging: Judging,
    progress: Progress,
) -> tuple[list[Draft], list[Refusal]]:
    """Converts the student to every format asked for.

    Args:
        student: The captured student.
        calibration: Samples for int8; None: fp32 only.
        options: What the person asked for.
        work: Folder for files.
        judging: Decides what is given back so that int8 passes the gate and pays.
        progress: Called with a line a step.

    Returns:
        The graphs, and what was asked for but cannot be had, with reasons.

    Raises:
        Refused: No format takes the student at all (the reasons of each), or it fails on a calibration sample.
        UsageError: A graph needs a newer engine than `--min-engine` allows.
    """
    drafts: list[Draft] = []
    refused: list[Refusal] = []
    for name in options.formats:
        reason = other_format(student, name)
        if reason:
            refused.append(Refusal(format=name, precision="all", reason=reason))
            continue
        converter = _converter(name, options)
        folder = work / name
        folder.mkdir()
        try:
            progress(f"{name}: exporting fp32")
            fp32 = converter.export(student, folder, progress)
        except Refused as error:
            refused.append(Refusal(format=name, precision="all", reason=error.told))
            continue
        drafts.append(fp32)
        if options.precision in ("auto", "int8") and calibration is not None and not student.quantized:
            try:
                progress(f"{name}: quantizing to int8")
                drafts.append(_int8(student, converter, fp32, calibration, folder, options, judging, progress))
            except Refused as error:
                refused.append(Refusal(format=name, precision="int8", reason=error.told))
            except Exception:  # an engine that fails while it calibrates: are the data to blame?
                student_outputs(student, calibration, progress)
                raise
    if not drafts:
        raise Refused(
            "no format takes this student:\n    " + "\n    ".join(f"{r.format}: {r.reason}" for r in refused),
            remedy="see the reasons above",
        )
    _check_engines(drafts, options)
    return drafts, refused


def _int8(
    student: Captured,
    converter: FormatConverter,
    fp32: Draft,
    calibration: Samples,
    folder: Path,
    options: Options,
    judging: Judging,
    progress: Progress,
) -> Draft:
    """The int8 graph that passes the gate and is not slower than fp32.

    Raises:
        Refused: Nothing can become int8, or int8 is slower in every form and was not asked for by name.
    """
    samples = calibration.inputs

    def make(given: Given) -> Draft:
        return converter.quantize(student, fp32, samples, folder, progress, given)

    first = make({})
    few = samples[:RANKED_ON]
    passed = pass_gate(
        first,
        make,
        lambda draft: judged(student, draft, judging.data, judging.task),
        lambda: converter.noise(student, fp32, first, few),
        judging.task.limit,
        progress,
    )
    if not passed.passes:
        return passed.draft  # the seal says why it may not ship
    duel = timer(student, judging.costs, student.example)
    draft, why = not_slower(fp32, passed.draft, passed.given, make, duel, progress)
    if draft is None and options.precision == "auto":
        raise Refused(why, remedy="--precision int8 ships it all the same")
    return dataclasses.replace(draft or passed.draft, why=why if draft else f"asked for by name; {why}")


def other_format(student: Captured, name: str) -> str:
    """Why a graph file of one format gives no other one; empty where it does."""
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
