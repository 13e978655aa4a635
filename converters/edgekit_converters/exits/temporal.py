"""Certifies when a stream may end: the exits are its steps.

sequences [N, steps, ...] ─ session.stream() ─► logits of each step ─ last or mean ─► samples ─ certify ─► thresholds
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import numpy as np

from edgekit_converters.captured import Arrays
from edgekit_runtime.bundle import Bundle
from edgekit_runtime.errors import Refused, UsageError
from edgekit_runtime.manifest import Manifest, Tensor
from edgekit_runtime.session import Session
from edgekit_runtime.session import open as open_session
from edgekit_runtime.temporal import said

_AT_ONCE = 32


def answer_of(manifest: Manifest, name: str) -> str:
    """The output that holds the logits of a step.

    Args:
        manifest: Of a streaming student.
        name: As a person gave it; empty: the only output that is no state.

    Raises:
        UsageError: There is no such output, or it has to be named.
    """
    carried = {state.output for state in manifest.states}
    free = [tensor.name for tensor in manifest.outputs if tensor.name not in carried]
    if name in free or (not name and len(free) == 1):
        return name or free[0]
    told = f"a step has no output {name!r}" if name else f"a step has {len(free)} outputs"
    raise UsageError(told, remedy=f"name the one with the logits with --answer: {', '.join(free)}")


def step_inputs(manifest: Manifest) -> tuple[Tensor, ...]:
    """What a caller gives to each step: the inputs that are no states."""
    carried = {state.input for state in manifest.states}
    return tuple(tensor for tensor in manifest.inputs if tensor.name not in carried)


def logits_of_steps(bundle: Bundle, graph: str, arrays: Arrays, steps: str, answer: str) -> list[np.ndarray]:
    """What sequences are answered with after each step: [N, ..., classes] for each, the full answer last.

    Args:
        bundle: A streaming student.
        graph: Id of its graph.
        arrays: Inputs [N, steps, ...]; one of the rank of the graph's own input is the same in every step.
        steps: `last` or `mean`.
        answer: Name of the output that holds the logits.
    """
    with open_session(bundle.root, graph=graph, threads=1) as session:
        parts = [_run(session, part, answer) for part in _slices(bundle.manifest, arrays)]
    return said([np.concatenate(rows) for rows in zip(*parts, strict=True)], steps)


def _run(session: Session, part: tuple[Arrays, Arrays, int], answer: str) -> list[np.ndarray]:
    moving, fixed, count = part
    stream = session.stream(fixed=fixed)
    return [stream.step({name: array[:, step] for name, array in moving.items()})[answer] for step in range(count)]


def _slices(manifest: Manifest, arrays: Arrays) -> Iterator[tuple[Arrays, Arrays, int]]:
    """Batches of sequences, what is the same for all, and the number of steps; one by one without a batch axis."""
    moving, fixed = _parted(manifest, arrays)
    count = length(moving)
    batch = next((axis for axis in manifest.axes if axis.role == "batch"), None)
    most = 1 if batch is None else min(_AT_ONCE, batch.max)
    for start in range(0, len(next(iter(moving.values()))), most):
        yield {name: array[start : start + most] for name, array in moving.items()}, fixed, count


def _parted(manifest: Manifest, arrays: Arrays) -> tuple[Arrays, Arrays]:
    moving, fixed = {}, {}
    for tensor in step_inputs(manifest):
        array = arrays[tensor.name]
        if array.ndim == len(tensor.shape) + 1:
            moving[tensor.name] = array
        elif array.ndim == len(tensor.shape):
            fixed[tensor.name] = array
        else:
            raise Refused(
                f"{tensor.name} of shape {list(array.shape)} is no set of sequences of steps {list(tensor.shape)}",
                remedy=f"[sequences, steps, ...] with {len(tensor.shape) + 1} axes",
            )
    if not moving:
        raise Refused("nothing changes from step to step", remedy="inputs [sequences, steps, ...]")
    return moving, fixed


def length(moving: Mapping[str, np.ndarray]) -> int:
    """Steps of the sequences.

    Raises:
        Refused: Inputs with different numbers of sequences or steps, or a single step.
    """
    found = {array.shape[:2] for array in moving.values()}
    if len(found) > 1 or next(iter(found))[1] < 2:
        told = ", ".join(f"{name} {list(array.shape[:2])}" for name, array in moving.items())
        raise Refused(
            f"sequences and steps of the inputs: {told}", remedy="the same for all inputs, and at least two steps"
        )
    return int(next(iter(found))[1])
