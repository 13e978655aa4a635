"""Students that write a sequence: `encoder` and `decode_step`, and the loop of `edgekit_runtime.decoding`.

    module.encode(chars) -> {"memory": ...}                                    becomes the graph `encoder`
    module.decode_step(token, memory, chars, cache) -> {"scores", "next_cache"}  becomes the graph `decode_step`
    module.initial_state(batch) -> {"cache": zeros}       module.begin, module.end, module.limit

`decode_step` asks by name for whatever it needs: the last `token` [B], outputs of `encode`, arguments of `encode`, and
its states. A state NAME is handed on as the output `next_NAME`; the output left over is the scores [B, V].
"""

from __future__ import annotations

import dataclasses
import inspect
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from edgekit_converters.capture.axes import DynamicAxis
from edgekit_converters.capture.program import student_runner
from edgekit_converters.capture.torch_student import capture_module
from edgekit_converters.captured import Arrays, Captured, SourceKind
from edgekit_runtime.decoding import greedy
from edgekit_runtime.errors import Refused
from edgekit_runtime.manifest import Axis, Decoding, Role, State, Tensor

if TYPE_CHECKING:
    import torch

TOKEN, NEXT = "token", "next_"
# Recorded steps that calibrate the decode step; more only repeat what these show.
MAX_STEPS = 256


def is_sequence(module: torch.nn.Module) -> bool:
    """Whether a module says how to encode and how to take one decoding step."""
    return callable(getattr(module, "encode", None)) and callable(getattr(module, "decode_step", None))


def capture_sequence(
    module: torch.nn.Module,
    *,
    name: str,
    example: Arrays,
    dynamic: Sequence[DynamicAxis] = (),
    kind: SourceKind = "module",
    notes: tuple[str, ...] = (),
) -> Captured:
    """Captures a sequence student: its two parts, and the loop as its reference.

    Args:
        module: In eval mode.
        name: Name of the student.
        example: One batch of the arguments of `encode`.
        dynamic: Axes of those arguments that the person declared; those of the decode step follow from them.
        kind: Kind of source, for the report.
        notes: Carried into the report.

    Raises:
        Refused: A part of the form above is missing or does not fit the others; see also `capture_module`.
    """
    encoder = capture_module(_method(module, "encode"), name=name, example=example, dynamic=dynamic, notes=notes)
    step_module = _method(module, "decode_step")
    wanted = _wanted(module, step_module, encoder)
    form = _form(module, step_module, encoder, wanted)
    feeds = _record(encoder.reference, student_runner(step_module), wanted, form, (example,))
    # The last step: its states are not zeros any more.
    step = capture_module(step_module, name=name, example=feeds[-1], dynamic=_step_axes(encoder, wanted))
    axes = tuple(_weaker(axis, step.axes) for axis in encoder.axes)
    parts: dict[Role, Captured] = {
        "encoder": dataclasses.replace(encoder, axes=axes),
        "decode_step": dataclasses.replace(step, axes=axes),
    }

    def reference(inputs: Mapping[str, np.ndarray]) -> Arrays:
        return greedy(encoder.reference, step.reference, step.inputs, form, inputs)

    batch = wanted[TOKEN].shape[0]
    return Captured(
        name=name,
        kind=kind,
        inputs=encoder.inputs,
        outputs=(Tensor(name=form.output, dtype="int64", shape=(batch, form.limit)),),
        axes=axes,
        example=example,
        reference=reference,
        notes=notes,
        parts=parts,
        decoding=form,
    )


def part_samples(student: Captured, role: Role, samples: Sequence[Arrays]) -> Sequence[Arrays]:
    """What a part of a student sees when the student sees `samples`: for the decode step its steps, thinned out."""
    if role != "decode_step" or student.decoding is None:
        return samples
    encoder, step = student.part("encoder"), student.part("decode_step")
    wanted = {tensor.name: tensor for tensor in step.inputs}
    feeds = _record(encoder.reference, step.reference, wanted, student.decoding, samples)
    return feeds[:: -(-len(feeds) // MAX_STEPS)]


def _record(
    encode: Any, step: Any, wanted: Mapping[str, Tensor], form: Decoding, samples: Sequence[Arrays]
) -> list[Arrays]:
    """Inputs of every step that decoding the samples takes."""
    feeds: list[Arrays] = []

    def recording(inputs: Mapping[str, np.ndarray]) -> Arrays:
        feeds.append(dict(inputs))
        answer: Arrays = step(inputs)
        return answer

    for sample in samples:
        greedy(encode, recording, tuple(wanted.values()), form, sample)
    return feeds


def _method(module: torch.nn.Module, name: str) -> torch.nn.Module:
    """One method of a module as a module of its own, with the method's arguments and the module's weights."""
    import torch

    class Part(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.student = module

    part: Any = Part()
    part.forward = getattr(module, name)
    return part.eval()


def _wanted(module: torch.nn.Module, step: torch.nn.Module, encoder: Captured) -> dict[str, Tensor]:
    """The inputs of the decode step in the order of its arguments, shapes with the encoder's symbols.

    Raises:
        Refused: It takes no token, or asks for something that nothing gives.
    """
    batch = _batch(encoder)
    states = _states(module, int(next(iter(encoder.example.values())).shape[0]))
    there = {tensor.name: tensor for tensor in (*encoder.inputs, *encoder.outputs)}
    there[TOKEN] = Tensor(name=TOKEN, dtype="int64", shape=(batch,))
    for name, array in states.items():
        there[name] = Tensor(name=name, dtype=str(array.dtype), shape=(batch, *array.shape[1:]))
    names = list(inspect.signature(step.forward).parameters)
    unknown = [name for name in names if name not in there]
    if TOKEN not in names or unknown:
        raise Refused(
            f"decode_step({', '.join(names)}) "
            + (f"asks for {', '.join(unknown)}, which nothing gives" if unknown else f"takes no {TOKEN!r}"),
            remedy=f"its arguments are {TOKEN!r} [B], outputs and arguments of encode, and states of initial_state: "
            f"there are {', '.join(there)}",
        )
    return {name: there[name] for name in names}


def _states(module: torch.nn.Module, batch: int) -> Arrays:
    make = getattr(module, "initial_state", None)
    if make is None:
        return {}
    states = {str(name): value.detach().numpy() for name, value in make(batch).items()}
    wrong = [name for name, value in states.items() if value.any() or not value.ndim or value.shape[0] != batch]
    if wrong:
        raise Refused(
            f"initial_state({batch}) gives {', '.join(wrong)} that are not zeros with the batch first",
            remedy="states start as zeros [batch, ...]; keep an offset inside decode_step",
        )
    return states


def _form(module: torch.nn.Module, step: torch.nn.Module, encoder: Captured, wanted: Mapping[str, Tensor]) -> Decoding:
    """Tokens, limit and names; runs the first step to learn what it gives.

    Raises:
        Refused: `begin`, `end` or `limit` is missing, a state is not handed on, or there is not one output of scores.
    """
    numbers = {name: getattr(module, name, None) for name in ("begin", "end", "limit")}
    if any(not isinstance(value, int) or value < 0 for value in numbers.values()) or not numbers["limit"]:
        raise Refused(
            f"the student has encode and decode_step, and {', '.join(f'{n} = {v!r}' for n, v in numbers.items())}",
            remedy="set module.begin, module.end (tokens) and module.limit (most tokens of an answer), whole numbers",
        )
    first = encoder.example
    given = {**first, **encoder.reference(first)}
    size = len(next(iter(first.values())))
    states = _states(module, size)
    feed = {**{name: given[name] for name in wanted if name in given}, **states}
    feed = {name: feed.get(name, np.full(size, numbers["begin"], np.int64)) for name in wanted}
    answer = student_runner(step)(feed)
    carried = tuple(State(input=name, output=NEXT + name) for name in wanted if name in states)
    scores = [name for name in answer if name not in {state.output for state in carried}]
    missing = [state.output for state in carried if state.output not in answer]
    if missing or len(scores) != 1 or answer[scores[0]].ndim != 2:
        raise Refused(
            f"decode_step gives {', '.join(answer)}" + (f"; {', '.join(missing)} is missing" if missing else ""),
            remedy=f"return {NEXT}NAME for each state NAME, and one output more: scores [B, V]",
        )
    return Decoding(token=TOKEN, scores=scores[0], states=carried, **numbers)  # type: ignore[arg-type]


def _batch(encoder: Captured) -> int | str:
    size = encoder.inputs[0].shape[0]
    return (
        size
        if isinstance(size, int) or encoder.axis(size).role == "batch"
        else int(encoder.example[encoder.inputs[0].name].shape[0])
    )


def _step_axes(encoder: Captured, wanted: Mapping[str, Tensor]) -> tuple[DynamicAxis, ...]:
    ranges = {axis.symbol: axis for axis in encoder.axes}
    return tuple(
        DynamicAxis(name, place, size, ranges[size].min, ranges[size].max)
        for name, tensor in wanted.items()
        for place, size in enumerate(tensor.shape)
        if isinstance(size, str)
    )


def _weaker(axis: Axis, others: Sequence[Axis]) -> Axis:
    """An axis may be padded or cut only where both parts allow it."""
    roles = [axis.role, *(other.role for other in others if other.symbol == axis.symbol)]
    return axis if len(set(roles)) == 1 else Axis(symbol=axis.symbol, min=axis.min, max=axis.max, role="other")
