"""Runs a draft as a device would, before there is a bundle."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from edgekit_converters.captured import Captured
from edgekit_converters.data import Samples
from edgekit_converters.draft import Draft
from edgekit_converters.verify.gate import judge
from edgekit_converters.verify.task import Task
from edgekit_runtime import engines
from edgekit_runtime.manifest import Graph, Quality
from edgekit_runtime.paths import sha256
from edgekit_runtime.runner import Runner, Student


@contextlib.contextmanager
def opened(student: Captured, draft: Draft) -> Iterator[Runner]:
    """The draft on its engine, one thread."""
    graph = Graph(
        id=draft.id,
        format=draft.format,
        precision=draft.precision,
        variant=draft.variant,
        path=draft.path.name,
        bytes=draft.path.stat().st_size,
        sha256=sha256(draft.path),
        inputs=draft.inputs,
        outputs=draft.outputs,
        signatures=draft.signatures,
        engine=draft.engine,
        min_engine_version=draft.min_engine_version,
    )
    known = Student(inputs=student.inputs, outputs=student.outputs, axes={axis.symbol: axis for axis in student.axes})
    runner = Runner(graph, engines.get(draft.engine), draft.path, threads=1, student=known)
    try:
        yield runner
    finally:
        runner.close()


def judged(student: Captured, draft: Draft, data: Samples, task: Task) -> tuple[Quality, ...]:
    """What the gate says of a draft."""
    with opened(student, draft) as runner:
        answers = [runner.run(sample)[task.output] for sample in data.inputs]
    return judge(draft.id, task.metric, [r[task.output] for r in task.reference], answers, data, task.limit)
