"""Both formats of one student: which converter makes them, and what happens when one says no."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from pathlib import Path

from edgekit_converters.capture.sequence import part_samples
from edgekit_converters.captured import Arrays, Captured
from edgekit_converters.data import Samples
from edgekit_converters.draft import Draft, FormatConverter, Progress
from edgekit_converters.mixed.costs import Costs
from edgekit_converters.mixed.quality import pass_gate
from edgekit_converters.mixed.speed import not_slower, timer
from edgekit_converters.mixed.trial import judged
from edgekit_converters.options import Options
from edgekit_converters.recipe.types import Given
from edgekit_converters.target import halved_for, no_int8, variants
from edgekit_converters.verify.metrics import METRICS
from edgekit_converters.verify.task import Task, student_outputs
from edgekit_runtime import this_machine
from edgekit_runtime.errors import Refused, UsageError
from edgekit_runtime.manifest import Refusal, Role

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
        samples = (*(calibration.inputs if calibration else ()), *judging.data.inputs)
        try:
            job = _Format(name, _converter(name, options, student, samples), student, calibration, options, progress)
            exported = job.export(work / name)
        except Refused as error:
            refused.append(Refusal(format=name, precision="all", reason=error.told))
            continue
        drafts += exported
        halves = halved_for(options.targets, exported[0].format)
        if (options.precision == "fp16" or (options.precision == "auto" and halves)) and not student.quantized:
            drafts += [job.halve(fp32, work / name, halves) for fp32 in exported]
        if options.precision in ("auto", "int8") and calibration is not None and not student.quantized:
            for fp32 in exported:
                try:
                    made, reasons = job.quantize(fp32, work / name, judging)
                except Refused as error:
                    made, reasons = [], [error.told]
                except Exception:  # an engine that fails while it calibrates: are the data to blame?
                    student_outputs(student, calibration, progress)
                    raise
                drafts += made
                refused += [Refusal(format=name, precision="int8", reason=reason) for reason in reasons]
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
    options: Options
    progress: Progress

    def export(self, work: Path) -> list[Draft]:
        """The fp32 graph of each part; one that is refused refuses the format."""
        made = []
        roles: tuple[Role, ...] = tuple(self.student.parts) or ("full",)
        for role in roles:
            folder = work / role
            folder.mkdir(parents=True)
            self.progress(f"{self.name}: exporting fp32{_of(role)}")
            draft = self.converter.export(self._part(role), folder, self.progress)
            made.append(dataclasses.replace(draft, role=role))
        return made

    def halve(self, fp32: Draft, work: Path, names: tuple[str, ...]) -> Draft:
        """The fp16 graph of a part, for the targets named; asked for by itself it is for all."""
        made = self.converter.halve(self._part(fp32.role), fp32, work / fp32.role, self.progress)
        why = "half of the bytes, within the gate" + ("; these targets have no int8 kernels" if names else "")
        return dataclasses.replace(made, role=fp32.role, targets=names, why=why)

    def quantize(self, fp32: Draft, work: Path, judging: Judging) -> tuple[list[Draft], list[str]]:
        """The int8 graphs of a part, one for each numeric form that the targets need.

        Returns:
            The graphs, and why some targets get none.

        Raises:
            Refused: Nothing can become int8, or int8 is slower in every form and was not asked for by name.
        """
        assert self.calibration is not None
        targets = self.options.targets
        made = []
        self.progress(f"{self.name}: quantizing to int8{_of(fp32.role)}")
        for variant, names in variants(targets, fp32.format).items():
            draft = self._int8(fp32, work / fp32.role, judging, variant, names)
            made.append(dataclasses.replace(draft, role=fp32.role))
        return made, [reason for target in targets if (reason := no_int8(target, fp32.format))]

    def _int8(self, fp32: Draft, work: Path, judging: Judging, variant: str, names: tuple[str, ...]) -> Draft:
        """The int8 graph of one numeric form that passes the gate and is not slower than fp32."""
        assert self.calibration is not None
        part = self._part(fp32.role)
        samples = part_samples(self.student, fp32.role, self.calibration.inputs)
        data, task = _judged_on(self.student, fp32.role, judging)

        def make(given: Given) -> Draft:
            draft = self.converter.quantize(part, fp32, samples, work, self.progress, variant, given=given)
            return dataclasses.replace(draft, targets=names)

        first = make({})
        passed = pass_gate(
            first,
            make,
            lambda draft: judged(part, draft, data, task),
            lambda: self.converter.noise(part, fp32, first, samples[:RANKED_ON]),
            task.limit,
            self.progress,
        )
        if not passed.passes:
            return passed.draft  # the seal says why it may not ship
        recipe = passed.draft.recipe
        if recipe is not None and all(op.scheme in ("float", "follow") for op in recipe.ops):
            raise Refused(
                "int8 passes the gate only where nothing of it is left",
                remedy="give more typical calibration and evaluation data, or a larger --max-drop",
            )
        here = this_machine()
        foreign = [target.name for target in self.options.targets if target.name in names and not target.like(here)]
        if foreign:
            why = f"smaller than fp32 and within the gate; its speed is told by {', '.join(foreign)}, not here"
            return dataclasses.replace(passed.draft, why=why)
        duel = timer(part, judging.costs, part.example)
        draft, why = not_slower(fp32, passed.draft, passed.given, make, duel, self.progress)
        if draft is None and self.options.precision == "auto":
            raise Refused(why, remedy="--precision int8 ships it all the same")
        return dataclasses.replace(draft or passed.draft, why=why if draft else f"asked for by name; {why}")

    def _part(self, role: Role) -> Captured:
        return dataclasses.replace(self.student.part(role), float_patterns=self.student.float_patterns)


def _judged_on(student: Captured, role: Role, judging: Judging) -> tuple[Samples, Task]:
    """Data and task of one graph: those of the student, or for a part its own answers on what it sees.

    A part has no labels. Whether the sequences are right is judged when all parts are there.
    """
    if role == "full":
        return judging.data, judging.task
    part = student.part(role)
    inputs = tuple(part_samples(student, role, judging.data.inputs))
    scores = student.decoding.scores if student.decoding and role == "decode_step" else ""
    task = dataclasses.replace(
        judging.task,
        reference=tuple(part.reference(sample) for sample in inputs),
        metric=METRICS["top1" if scores else "cosine"],
        output=scores or part.outputs[0].name,
    )
    return Samples(f"what the {role} sees of {judging.data.origin}", inputs), task


def _of(role: Role) -> str:
    return "" if role == "full" else f" of the {role}"


def other_format(student: Captured, name: str) -> str:
    """Why a graph file of one format gives no other one; empty where it does."""
    if student.kind in ("onnx", "tflite") and student.kind != name:
        return f"a source of the kind .{student.kind} gives {student.kind} only; convert the torch model to have both"
    return ""


def _converter(name: str, options: Options, student: Captured, samples: Sequence[Arrays]) -> FormatConverter:
    return _MAKERS[name](options, student, samples)


def _onnx(options: Options, student: Captured, samples: Sequence[Arrays]) -> FormatConverter:
    from edgekit_converters.onnx.converter import OnnxConverter

    return OnnxConverter(opset=options.opset)


def _tflite(options: Options, student: Captured, samples: Sequence[Arrays]) -> FormatConverter:
    from edgekit_converters.tflite.converter import TfliteConverter
    from edgekit_converters.tflite.ladder import sizes_of_data

    return TfliteConverter(sizes_of_data(student, samples))


_MAKERS: dict[str, Callable[[Options, Captured, Sequence[Arrays]], FormatConverter]] = {
    "onnx": _onnx,
    "tflite": _tflite,
}


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
