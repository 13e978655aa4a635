"""torch.export of a module, with the person's names, and the proof that the captured program is the student.

The program is called with keyword arguments named as those of `forward`. Before anything else happens it is run at the
smallest, a middle and the largest size of each dynamic axis and compared with the module itself, because exporters have
frozen axes silently.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from edgekit_converters.capture.axes import DynamicAxis, close, resized, sizes_to_try
from edgekit_converters.capture.recurrent import symbolic_time
from edgekit_converters.capture.rewrite import rewriting
from edgekit_converters.captured import Arrays
from edgekit_converters.quiet import quiet
from edgekit_runtime.errors import Refused

if TYPE_CHECKING:
    import torch

Runner = Callable[[Mapping[str, np.ndarray]], Arrays]


def forward_names(module: torch.nn.Module) -> tuple[str, ...]:
    """Names of the arguments of `forward` that a caller must give, then the optional ones."""
    parameters = inspect.signature(module.forward).parameters.values()
    return tuple(p.name for p in parameters if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY))


def check_example(module: torch.nn.Module, example: Arrays) -> None:
    """Compares the example's names with the arguments of `forward`.

    Raises:
        Refused: A required argument has no example, or an array belongs to no argument.
    """
    parameters = inspect.signature(module.forward).parameters
    named = forward_names(module)
    required = [n for n in named if parameters[n].default is inspect.Parameter.empty]
    missing = [name for name in required if name not in example]
    takes_any = any(p.kind is p.VAR_KEYWORD for p in parameters.values())
    unexpected = [] if takes_any else [name for name in example if name not in named]
    if missing or unexpected:
        raise Refused(
            f"example inputs are {', '.join(example) or 'empty'}; forward({', '.join(named)}) "
            + (f"lacks {', '.join(missing)}" if missing else f"does not take {', '.join(unexpected)}"),
            remedy="name the arrays of --example (or of the calibration data) as the arguments of forward",
        )


def flatten_outputs(value: Any) -> dict[str, torch.Tensor]:
    """Names a module's outputs: keys of a dict, `output`, or `output_0`, `output_1`, ... in the order returned.

    Raises:
        Refused: Something that is not a tensor is returned.
    """
    import torch

    if isinstance(value, torch.Tensor):
        return {"output": value}
    if isinstance(value, Mapping):
        found = {str(key): item for key, item in value.items() if item is not None}
    elif isinstance(value, (tuple, list)):
        found = {f"output_{index}": item for index, item in enumerate(value)}
    else:
        raise Refused(
            f"forward returns a {type(value).__name__}",
            remedy="return a tensor, a tuple of tensors or a dict of tensors",
        )
    wrong = {name: type(item).__name__ for name, item in found.items() if not isinstance(item, torch.Tensor)}
    if wrong:
        raise Refused(
            f"forward returns {', '.join(f'{kind} as {name}' for name, kind in wrong.items())}",
            remedy="return a tensor, a flat tuple of tensors or a flat dict of tensors",
        )
    return found


def runner(module: Callable[..., Any]) -> Runner:
    """The module as a function of named numpy arrays."""
    import torch

    def run(inputs: Mapping[str, np.ndarray]) -> Arrays:
        with torch.no_grad():
            outputs = module(**{name: torch.from_numpy(np.ascontiguousarray(a)) for name, a in inputs.items()})
        return {name: value.detach().cpu().numpy() for name, value in flatten_outputs(outputs).items()}

    return run


def student_runner(module: Callable[..., Any]) -> Runner:
    """`runner` of the person's own module: whatever it raises is told as the student's own failure (Refused)."""
    run = runner(module)

    def answer(inputs: Mapping[str, np.ndarray]) -> Arrays:
        try:
            return run(inputs)
        except Refused:
            raise
        except Exception as error:  # the person's own code: whatever it raises is shown to them
            given = ", ".join(f"{name} {list(array.shape)}" for name, array in inputs.items())
            raise Refused(
                f"the student itself fails on {given}: {type(error).__name__}: {_first_lines(str(error), 3)}",
                remedy="give inputs it takes, or a range of sizes it allows (--dynamic NAME:AXIS=SYMBOL:MIN-MAX)",
            ) from error

    return answer


def integer_only(program: torch.export.ExportedProgram) -> bool:
    """Whether a program is written in integers already: int8 matrices, integer products, no floating-point weight."""
    import torch

    held = [value for value in program.state_dict.values() if isinstance(value, torch.Tensor)]
    matrices = [value for value in held if value.ndim >= 2]
    if not matrices or any(value.dtype != torch.int8 for value in matrices):
        return False
    return not any(value.is_floating_point() for value in held)


def export_program(
    module: torch.nn.Module,
    example: Arrays,
    dynamic: Sequence[DynamicAxis],
    ranges: Mapping[str, tuple[int, int]],
) -> torch.export.ExportedProgram:
    """Captures the module with torch.export (non-strict first, strict if that fails).

    Raises:
        Refused: The module cannot be exported, or a dynamic axis is fixed by the module itself.
    """
    import torch

    # A size of 1 would be taken for a constant; two of everything lets the axis stay an axis.
    example = _at_least_two(example, dynamic, ranges)
    dims = {symbol: torch.export.Dim(symbol, min=low, max=high) for symbol, (low, high) in ranges.items()}
    shapes: dict[str, Any] = {name: {} for name in example}
    for item in dynamic:
        shapes[item.input][item.axis] = dims[item.symbol]
    tensors = {name: torch.from_numpy(np.ascontiguousarray(array)) for name, array in example.items()}
    problems: list[Exception] = []
    for strict in (False, True):
        try:
            with quiet(), symbolic_time(), rewriting():
                return torch.export.export(
                    module, (), kwargs=tensors, dynamic_shapes=shapes if dynamic else None, strict=strict
                )
        except Exception as error:  # noqa: BLE001 - torch.export raises dozens of types; each is shown to the person
            problems.append(error)
    raise _refusal(problems[0], ranges)


def _at_least_two(example: Arrays, dynamic: Sequence[DynamicAxis], ranges: Mapping[str, tuple[int, int]]) -> Arrays:
    for symbol, (_, high) in ranges.items():
        first = next(item for item in dynamic if item.symbol == symbol)
        if example[first.input].shape[first.axis] < 2 <= high:
            example = resized(example, dynamic, symbol, 2)
    return example


def _refusal(error: Exception, ranges: Mapping[str, tuple[int, int]]) -> Refused:
    text = str(error).strip()
    frozen = [s for s in ranges if f"{s} = " in text or f"'{s}'" in text or f"({s})" in text]
    if ranges and ("specializ" in text or "Constraints violated" in text or "Not all values of" in text):
        refused = Refused(
            f"the student fixes a dynamic axis ({', '.join(frozen or ranges)}): {_first_lines(text)}",
            remedy="remove what ties the axis to one size in forward (reshape to a constant, a Python loop over it, "
            "int(x.shape[..])), or leave the axis static",
        )
    else:
        refused = Refused(
            f"torch.export cannot capture the student: {type(error).__name__}: {_first_lines(text)}",
            remedy="see the place named above; data-dependent Python control flow has to become tensor operations",
        )
    refused.__cause__ = error
    return refused


def _first_lines(text: str, count: int = 6) -> str:
    # torch's advice about its own switches helps nobody who sees it here.
    noise = ("Suggested fixes", "The error above occurred", "For more information")
    lines = [line.split(" For more information")[0] for line in text.splitlines() if line.strip()]
    return "\n    ".join(line for line in lines[:count] if not line.strip().startswith(noise))


def prove_program(
    student: Runner,
    captured: Runner,
    example: Arrays,
    dynamic: Sequence[DynamicAxis],
    ranges: Mapping[str, tuple[int, int]],
) -> None:
    """Runs the captured program and the student at the smallest, a middle and the largest size of every axis.

    Raises:
        Refused: The program fails or answers differently at one of them (a frozen axis), or the student itself fails.
    """
    trials = [("the example", example)]
    for symbol, (low, high) in ranges.items():
        for size in sizes_to_try(low, high):
            trials.append((f"{symbol} = {size}", resized(example, dynamic, symbol, size)))
    for label, inputs in trials:
        expected = student(inputs)
        try:
            got = captured(inputs)
        except Exception as error:  # guards of the exported program raise several types
            raise Refused(
                f"the captured graph does not run at {label}, the student does: {_first_lines(str(error), 3)}",
                remedy="the axis is frozen in the graph: narrow its range (:MIN-MAX) or leave it static",
            ) from error
        wrong = [name for name in expected if not close(got[name], expected[name])]
        if wrong:
            raise Refused(
                f"the captured graph answers differently from the student at {label} (outputs {', '.join(wrong)})",
                remedy="the axis is frozen or forward is not deterministic (dropout in training mode, random numbers)",
            )
