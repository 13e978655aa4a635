"""What the graphs will be judged on: the student's own answers, the metric and its limit, settled before converting."""

from __future__ import annotations

import dataclasses

import numpy as np

from edgekit_converters.captured import Arrays, Captured
from edgekit_converters.data import Samples
from edgekit_converters.draft import Progress
from edgekit_converters.options import Options
from edgekit_converters.verify.gate import choose_metric, parse_max_drop
from edgekit_converters.verify.labels import check_labels
from edgekit_converters.verify.metrics import METRICS, Metric, find_metric
from edgekit_converters.verify.stream import streamed
from edgekit_runtime.errors import Refused, UsageError


@dataclasses.dataclass(frozen=True)
class Task:
    """How graphs are judged.

    Attributes:
        reference: The student's outputs, one dict of arrays a sample.
        metric: What is computed.
        limit: Largest drop of it that may ship, and whether that is relative.
        output: Name of the output that is judged.
        streamed: The student's stream over the first samples (`verify.stream`); empty where it has no states.
    """

    reference: tuple[Arrays, ...]
    metric: Metric
    limit: tuple[float, bool]
    output: str
    streamed: Arrays = dataclasses.field(default_factory=dict)


def make_task(student: Captured, data: Samples, options: Options, progress: Progress) -> Task:
    """Runs the student on the data and settles what its graphs are judged on.

    Raises:
        UsageError: An exit that is no output, an unknown metric, a limit that is no number.
        Refused: The student fails on a sample or answers NaN, or the labels do not fit its answers.
    """
    names = [tensor.name for tensor in student.outputs]
    unknown = [name for name in options.exits if name not in names]
    if unknown:
        raise UsageError(
            f"--exits names what is no output: {', '.join(unknown)}",
            remedy=f"the student's outputs are: {', '.join(names)}",
        )
    limit = parse_max_drop(options.max_drop)
    named = find_metric(options.metric) if options.metric else None
    reference = student_outputs(student, data, progress)
    # The last exit is the full answer; without exits the first output is the one people measure.
    judged = options.exits[-1] if options.exits else names[0]
    answers = [answer[judged] for answer in reference]
    metric = named or (METRICS["cer"] if student.decoding else choose_metric(answers, data.labels))
    if data.labels is not None:
        check_labels(metric, data.labels, answers, data.origin)
    stream = {}
    if student.states:
        stream = streamed(student.reference, student.inputs, student.states, data.inputs)
        if judged not in stream:
            raise UsageError(
                f"{judged} is a state, and graphs are judged by it", remedy="return the answer before the states"
            )
    return Task(reference, metric, limit, judged, stream)


def student_outputs(student: Captured, data: Samples, progress: Progress) -> tuple[Arrays, ...]:
    """The student's own answers, one sample at a time.

    Raises:
        Refused: It fails on a sample, or answers NaN.
    """
    progress(f"student on {len(data)} samples")
    answers = []
    for index, sample in enumerate(data.inputs):
        try:
            answers.append(student.reference(sample))
        except Refused as error:
            raise Refused(f"{data.origin}: sample {index}: {error.message}", remedy=error.remedy) from error
    if any(np.isnan(value).any() for answer in answers for value in answer.values() if value.dtype.kind == "f"):
        raise Refused(f"the student answers NaN on {data.origin}", remedy="check its weights and preprocessing")
    return tuple(answers)
