"""Does a graph still answer as the student does when each feeds its own state back, step after step?

One step on golden inputs tells nothing about errors that a state carries on. The samples are taken as the steps of one
sequence; student and graph both begin with zeros and keep their own states.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np

from edgekit_converters.captured import Arrays
from edgekit_converters.verify.metrics import cosine
from edgekit_runtime.manifest import State, Tensor
from edgekit_runtime.stream import Stream

STEPS = 16
# A step is held to 1e-4 of the range; a state that is fed back may add up what single steps leave.
LARGEST_ERROR = 1e-3
SMALLEST_COSINE = 0.99

Run = Callable[[Mapping[str, np.ndarray]], Arrays]


def streamed(run: Run, inputs: Sequence[Tensor], states: Sequence[State], samples: Sequence[Arrays]) -> Arrays:
    """All steps' outputs, stacked along a new first axis."""
    stream = Stream(run, inputs, states)
    carried = {state.input for state in states}
    steps = [stream.step({n: a for n, a in sample.items() if n not in carried}) for sample in samples[:STEPS]]
    return {name: np.stack([step[name] for step in steps]) for name in steps[0]}


def stream_problem(want: Arrays, got: Arrays, *, exact: bool) -> str:
    """Why a graph's stream is not the student's; empty where it is.

    Args:
        want: The student's stream.
        got: The graph's.
        exact: fp32: largest error over the range of the outputs; else cosine over all steps.
    """
    for name, value in want.items():
        if exact:
            span = max(float(np.ptp(value)), 1e-6)
            error = float(np.abs(got[name] - value).max()) / span
            if not error <= LARGEST_ERROR:
                return f"streamed over {len(value)} steps, {name} is off by {error:.1e} of its range"
        elif not (alike := cosine(value, got[name])) >= SMALLEST_COSINE:
            return f"streamed over {len(value)} steps, the cosine of {name} is {alike:.3f} (at least {SMALLEST_COSINE})"
    return ""
