"""`edgekit.convert`: a student becomes a bundle.

source ─ capture ─► Captured ─ export ─► fp32 ─ resolve, apply ─► int8      (each format)
                                   └──────── verify on the staged bundle ──────┘
                                             gate · golden · coverage ─► manifest ─► publish (one rename)
"""

from __future__ import annotations

import dataclasses
import os
from pathlib import Path
from typing import Any

import numpy as np

from edgekit_converters import assets, capture
from edgekit_converters.capture.axes import parse_dynamic
from edgekit_converters.capture.states import parse_states
from edgekit_converters.captured import Arrays, Captured
from edgekit_converters.data import Samples, cast_like, check_fit, load_samples, read_npz
from edgekit_converters.draft import Progress
from edgekit_converters.formats import Judging, make_drafts
from edgekit_converters.mixed.costs import Costs, dump
from edgekit_converters.options import Options
from edgekit_converters.seal import Job, seal
from edgekit_converters.staging import Staging, staging
from edgekit_converters.verify.gate import parse_max_drop
from edgekit_converters.verify.metrics import find_metric
from edgekit_converters.verify.task import make_task
from edgekit_runtime.bundle import Bundle, open_bundle
from edgekit_runtime.errors import Refused, UsageError


def convert(source: Any, *, out: str | os.PathLike[str], progress: Progress | None = None, **options: Any) -> Bundle:
    """Converts a student to a bundle.

    Args:
        source: An nn.Module, or what `edgekit convert SOURCE` takes.
        out: Where the bundle goes; ends with `.edge`.
        progress: Called with a short line for each step.
        **options: The fields of `Options` by name: `weights`, `example`, `calibration`, `eval`, `metric`, `max_drop`,
            `formats`, `precision`, `dynamic`, `exits`, `split_points`, `states`, `keep_float`, `tokenizer`, `labels`,
            `preprocess`, `opset`, `min_engine`, `targets`, `costs`, `seed`, `name`, `version`, `force`.

    Returns:
        The bundle, opened.

    Raises:
        UsageError: Options that do not exist or do not fit together.
        Refused: The student or its data cannot be taken: what, where, what to do.
        GateFailed: `precision="int8"` was asked for and no int8 graph passes.
    """
    known = {field.name for field in dataclasses.fields(Options)}
    unknown = sorted(set(options) - known)
    if unknown:
        raise UsageError(f"convert has no option {', '.join(unknown)}", remedy=f"it has: {', '.join(sorted(known))}")
    return run(Options(source=source, out=Path(out), **options), progress or (lambda line: None))


def run(options: Options, progress: Progress) -> Bundle:
    """Converts as `options` say. See `convert`."""
    options.check()
    _check_gate(options)
    with staging(options.out, force=options.force) as stage:
        taken = capture_source(options, progress)
        student, calibration = taken.student, taken.calibration
        _check_calibration(options, student, calibration, progress)
        assets.write(taken.assets, stage)
        data = taken.evaluation or calibration or Samples("example inputs", (student.example,))
        task = make_task(student, data, options, progress)
        costs = Costs.of(options.costs)
        judging = Judging(data, task, costs)
        drafts, refused = make_drafts(student, calibration, options, stage.work, judging, progress)
        seal(Job(stage, student, options, data, calibration, task, progress), drafts, refused)
        _keep_costs(stage, costs, options.costs)
        return open_bundle(stage.publish())


@dataclasses.dataclass(frozen=True)
class Taken:
    """What the person gave, read: the student, its data cast to fit it, the files that travel."""

    student: Captured
    calibration: Samples | None
    evaluation: Samples | None
    assets: assets.Assets


def capture_source(options: Options, progress: Progress) -> Taken:
    """Reads source and data.

    Raises:
        UsageError: Options that do not fit the source.
        Refused: The student or its data cannot be taken.
    """
    spec = _source(options)
    found = assets.collect(options, spec)
    dynamic = parse_dynamic(options.dynamic)
    encode = assets.text_encoder(found, dynamic, spec)
    example = _example(options.example)
    calibration = _samples(options.calibration, "calibration", encode, example)
    evaluation = _samples(options.eval, "evaluation", encode, example)
    _seed(options.seed)
    progress("capturing the student")
    student = capture.capture(
        spec,
        name=options.name or options.out.stem,
        example=example if example is not None else _first(calibration or evaluation),
        dynamic=dynamic,
        weights=options.weights,
        keep=options.precision == "keep",
    )
    student = dataclasses.replace(
        student, float_patterns=tuple(options.keep_float), states=parse_states(options.states, student)
    )
    return Taken(student, _fitted(calibration, student), _fitted(evaluation, student), found)


def _keep_costs(stage: Staging, costs: Costs, asked: Path | None) -> None:
    """Beside the bundle's identity: timings differ from run to run, what was decided by them need not."""
    table = costs.table()
    if table.duels:
        stage.write("reports/costs.json", dump(table))
    if asked is not None and not asked.exists():
        asked.parent.mkdir(parents=True, exist_ok=True)
        asked.write_bytes(dump(table))


def _source(options: Options) -> Any:
    spec = capture.parse_source(options.source) if isinstance(options.source, str) else options.source
    if options.opset is not None and isinstance(spec, capture.SourceSpec) and spec.kind in ("onnx", "tflite"):
        raise UsageError(
            f"--opset goes with a torch source; {spec.path.name} is taken as it is",
            remedy="leave it out, or export the file again with that opset",
        )
    return spec


def _example(given: Any) -> Arrays | None:
    if given is None:
        return None
    if isinstance(given, (str, Path)):
        return read_npz(Path(given))
    return {str(name): np.asarray(getattr(array, "numpy", lambda a=array: a)()) for name, array in dict(given).items()}


def _samples(given: Any, role: str, encode: Any, example: Arrays | None) -> Samples | None:
    return None if given is None else load_samples(given, role=role, encode=encode, example=example)


def _first(samples: Samples | None) -> Arrays | None:
    return dict(samples.inputs[0]) if samples else None


def _fitted(samples: Samples | None, student: Captured) -> Samples | None:
    if samples is None:
        return None
    symbols = {axis.symbol for axis in student.axes}
    dynamic = {t.name: [i for i, size in enumerate(t.shape) if size in symbols] for t in student.inputs}
    check_fit(samples, student.example, dynamic)
    return cast_like(samples, student.example)


def _seed(seed: int) -> None:
    """Seeds everything a factory may draw from, so that the same command gives the same bundle."""
    import random

    import torch

    random.seed(seed)
    np.random.seed(seed)
    torch.manual_seed(seed)


def _check_gate(options: Options) -> None:
    """Before any work. A metric of one's own is imported later: it may need what the source brings."""
    parse_max_drop(options.max_drop)
    if options.metric and ":" not in options.metric:
        find_metric(options.metric)


def _check_calibration(options: Options, student: Captured, calibration: Samples | None, progress: Progress) -> None:
    if options.precision in ("fp16", "fp32", "keep") or student.quantized:
        return
    if calibration is None:
        raise Refused(
            "no calibration data: int8 needs to see what the activations look like",
            remedy="give --calibration with 100 to 500 typical samples, or --precision fp32",
        )
    if len(calibration) < 8:
        progress(f"warning: {len(calibration)} calibration samples are few; 100 to 500 are usual")
