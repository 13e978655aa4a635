"""One parity helper for all students: what `works` asks of the graphs of one format."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from edgekit_converters.captured import Arrays, Captured
from edgekit_converters.draft import Draft
from edgekit_converters.mixed.trial import opened
from edgekit_converters.verify.parity import FP32_TOLERANCE, parity


def check(student: Captured, drafts: Sequence[Draft], held: Sequence[Arrays], least_db: float) -> None:
    """fp32 is the student, int8 is close, its weights are int8, and company in a batch changes nothing."""
    reference = [student.reference(sample) for sample in held]
    for draft in drafts:
        with opened(student, draft) as runner:
            for seen in parity(draft.id, reference, [runner.run(sample) for sample in held]):
                if draft.precision == "fp32":
                    assert seen.max_error_fraction <= FP32_TOLERANCE, draft.id
                else:
                    assert seen.sqnr_db is None or seen.sqnr_db >= least_db, (draft.id, seen)
            if any(axis.role == "batch" for axis in student.axes):
                alike = [sample for sample in held if _shapes(sample) == _shapes(held[0])]
                together = runner.run({name: np.concatenate([s[name] for s in alike]) for name in alike[0]})
                for row, sample in enumerate(alike):
                    for output, answer in runner.run(sample).items():
                        np.testing.assert_allclose(answer[0], together[output][row], atol=1e-5, rtol=1e-5)


def _shapes(sample: Arrays) -> dict[str, tuple[int, ...]]:
    return {name: array.shape for name, array in sample.items()}
