"""`--state IN=OUT`: which output of a streaming student is the input of its next step. Pure."""

from __future__ import annotations

from collections.abc import Sequence

from edgekit_converters.captured import Captured
from edgekit_runtime.errors import Refused, UsageError
from edgekit_runtime.manifest import State, Tensor


def parse_states(pairs: Sequence[str], student: Captured) -> tuple[State, ...]:
    """Reads pairs of names and holds them against the student.

    Args:
        pairs: `IN=OUT`, as the person wrote them.
        student: Captured, with the shapes that were seen.

    Raises:
        UsageError: No pair, a name the student does not have, or a name in two pairs.
        Refused: The output does not fit the input: another dtype or shape, or an output in every step a different size.
    """
    states: list[State] = []
    for pair in pairs:
        name, equals, output = (part.strip() for part in pair.partition("="))
        if not equals or not name or not output:
            raise UsageError(f"--state {pair!r}", remedy="INPUT=OUTPUT, for example --state h=h_next")
        source = _find(student.inputs, name, pair, "input")
        target = _find(student.outputs, output, pair, "output")
        if any(name == state.input or output == state.output for state in states):
            raise UsageError(f"--state {pair!r}: a name stands in two pairs", remedy="each input and output once")
        if (source.dtype, source.shape) != (target.dtype, target.shape):
            raise Refused(
                f"--state {pair}: input {name} is {source.dtype} {_told(source)}, "
                f"output {output} is {target.dtype} {_told(target)}",
                remedy="a state comes out as it goes in: same dtype, same shape, same dynamic axes",
            )
        states.append(State(input=name, output=output))
    if states and len(states) == len(student.outputs):
        raise UsageError(
            "every output is a state: a stream would answer nothing", remedy="leave one output that is none"
        )
    return tuple(states)


def _find(tensors: Sequence[Tensor], name: str, pair: str, kind: str) -> Tensor:
    for tensor in tensors:
        if tensor.name == name:
            return tensor
    there = ", ".join(tensor.name for tensor in tensors)
    raise UsageError(f"--state {pair!r}: the student has no {kind} {name!r}", remedy=f"its {kind}s are: {there}")


def _told(tensor: Tensor) -> str:
    return f"[{', '.join(map(str, tensor.shape))}]"
