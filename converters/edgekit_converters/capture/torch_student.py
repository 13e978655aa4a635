"""Modules and `.pt2` programs to a captured student."""

from __future__ import annotations

import dataclasses
import functools
import inspect
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from edgekit_converters.capture.axes import DynamicAxis, axis_role, bounds, close, output_shapes, resized
from edgekit_converters.capture.program import (
    Runner,
    check_example,
    export_program,
    integer_only,
    prove_program,
    runner,
    student_runner,
)
from edgekit_converters.capture.rewrite import rewrite_saved
from edgekit_converters.captured import Arrays, Captured, SourceKind
from edgekit_converters.quiet import quiet
from edgekit_runtime.errors import Refused
from edgekit_runtime.manifest import Axis, Tensor

if TYPE_CHECKING:
    import torch


def capture_module(
    module: torch.nn.Module,
    *,
    name: str,
    example: Arrays,
    dynamic: Sequence[DynamicAxis] = (),
    kind: SourceKind = "module",
    notes: tuple[str, ...] = (),
) -> Captured:
    """Captures an nn.Module.

    Args:
        module: In eval mode; called with keyword arguments named as `example`.
        name: Name of the student.
        example: One batch of inputs.
        dynamic: Axes the person declared. Where none is, axis 0 of all inputs becomes the batch axis if the student
            runs with two samples and treats them apart.
        kind: Kind of source, for the report.
        notes: Carried into the report.

    Raises:
        Refused: The student fails on the example; see `check_example`, `export_program`, `prove_program`.
    """
    check_example(module, example)
    student = student_runner(module)
    student(example)  # before anything else: data the student cannot run on are no matter of the exporter
    if not dynamic:
        dynamic = _batch_axis(student, example)
        notes += () if dynamic else ("the batch axis is fixed: the student does not treat samples apart along axis 0",)
    ranges = bounds(dynamic, example)
    program = export_program(module, example, dynamic, ranges)
    prove_program(student, runner(program.module()), example, dynamic, ranges)
    captured = Captured(
        name=name,
        kind=kind,
        inputs=(),
        outputs=(),
        axes=(),
        example=example,
        reference=student,
        program=program,
        quantized=integer_only(program),
        notes=notes,
    )
    return with_interface(captured, dynamic, ranges)


def with_interface(
    captured: Captured, dynamic: Sequence[DynamicAxis], ranges: Mapping[str, tuple[int, int]]
) -> Captured:
    """Fills in inputs, outputs and axes by running the reference at several sizes."""
    run, example = captured.reference, captured.example
    outputs = output_shapes(run, example, dynamic, ranges)
    inputs = tuple(_input_tensor(name, array, dynamic) for name, array in example.items())
    axes = tuple(
        Axis(symbol=symbol, min=low, max=high, role=axis_role(run, example, dynamic, symbol, (low, high), outputs))
        for symbol, (low, high) in ranges.items()
    )
    return dataclasses.replace(captured, inputs=inputs, outputs=outputs, axes=axes)


def _input_tensor(name: str, array: np.ndarray, dynamic: Sequence[DynamicAxis]) -> Tensor:
    shape: list[int | str] = list(array.shape)
    for item in dynamic:
        if item.input == name:
            shape[item.axis] = item.symbol
    return Tensor(name=name, dtype=str(array.dtype), shape=tuple(shape))


def _batch_axis(student: Runner, example: Arrays) -> tuple[DynamicAxis, ...]:
    """Axis 0 of every input, if the student takes two samples at once and answers each as it does alone."""
    sizes = {array.shape[0] if array.ndim else 0 for array in example.values()}
    if len(sizes) != 1 or 0 in sizes:
        return ()
    dynamic = tuple(DynamicAxis(name, 0, "batch") for name in example)
    try:
        one, two = student(resized(example, dynamic, "batch", 1)), student(resized(example, dynamic, "batch", 2))
    except Exception:  # noqa: BLE001 - a student that takes one batch size only: not an error, the axis stays fixed
        return ()
    apart = all(
        value.ndim and value.shape[0] == 1 and two[key].shape[0] == 2 and close(two[key][:1], value)
        for key, value in one.items()
    )
    return dynamic if apart else ()


def capture_pt2(path: Path, *, name: str, example: Arrays | None, keep: bool = False) -> Captured:
    """Loads a program saved with torch.export.save.

    Args:
        path: The file.
        name: Name of the student.
        example: One batch of inputs; None: those the file carries.
        keep: `--precision keep`: the program may be quantized already (quantize_pt2e, quantization-aware training).

    Raises:
        Refused: The file is truncated or no exported program, its inputs cannot be filled, or it is quantized and
            `keep` is not set.
    """
    import torch

    try:
        with quiet():
            # Registers the operators that quantized programs are made of; without them such a file does not load.
            import torch.ao.quantization.fx._decomposed

            program = torch.export.load(str(path))
    except Exception as error:  # zip, JSON and schema errors of several types
        raise Refused(
            f"{path} is not a readable exported program: {str(error).splitlines()[0] if str(error) else error!r}",
            remedy="save it with torch.export.save under a torch no newer than this one",
        ) from error
    quantized = any("quantized_decomposed" in str(node.target) for node in program.graph.nodes)
    if quantized and not keep:
        raise Refused(
            f"{path} is quantized already",
            remedy="edgekit convert with --precision keep verifies, measures and packs it as it is",
        )
    names = program.graph_signature.user_inputs
    example = example if example is not None else _own_example(program, names)
    missing = [n for n in names if n not in example]
    if missing or len(example) != len(names):
        raise Refused(
            f"{path} takes {', '.join(map(str, names))}; the example has {', '.join(example) or 'nothing'}",
            remedy="name the arrays of --example as the inputs of the exported program",
        )
    ordered = {str(n): example[str(n)] for n in names}
    by_keyword = _by_keyword(program, tuple(ordered))
    dynamic, ranges = _declared(program, ordered)
    if by_keyword is not program:
        by_keyword = export_program(by_keyword, ordered, dynamic, ranges)  # type: ignore[arg-type]
    reference = student_runner(by_keyword.module())
    written_out = rewrite_saved(by_keyword)
    if written_out is not by_keyword:
        prove_program(reference, runner(written_out.module()), ordered, dynamic, ranges)
    quantized = quantized or integer_only(by_keyword)
    captured = Captured(
        name=name,
        kind="pt2",
        inputs=(),
        outputs=(),
        axes=(),
        example=ordered,
        reference=reference,
        program=written_out,
        quantized=quantized,
    )
    return with_interface(captured, dynamic, ranges)


def _own_example(program: torch.export.ExportedProgram, names: Sequence[object]) -> Arrays:
    inputs = program.example_inputs
    if inputs is None:
        raise Refused("the .pt2 file carries no example inputs", remedy="give --example FILE.npz")
    arguments, keywords = inputs
    flat = [*arguments, *keywords.values()]
    return {str(name): tensor.detach().numpy() for name, tensor in zip(names, flat, strict=True)}


def _by_keyword(
    program: torch.export.ExportedProgram, names: tuple[str, ...]
) -> torch.export.ExportedProgram | torch.nn.Module:
    """The program itself where it takes keywords, else a module that passes them on by position."""
    import torch

    positional = len(program.example_inputs[0]) if program.example_inputs else len(names)
    if positional == 0:
        return program
    inner = program.module()

    class ByKeyword(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = inner

        def forward(self, **inputs: torch.Tensor) -> object:
            arguments = [inputs[name] for name in names]
            return self.inner(*arguments[:positional], **{n: inputs[n] for n in names[positional:]})

    # torch.export learns the names of the inputs from the signature, not from the keywords it is called with.
    arguments = [inspect.Parameter(name, inspect.Parameter.POSITIONAL_OR_KEYWORD) for name in names]
    module = ByKeyword()
    forward: Any = functools.partial(ByKeyword.forward, module)
    forward.__signature__ = inspect.Signature(arguments)
    module.forward = forward  # type: ignore[method-assign]
    return module


def _declared(
    program: torch.export.ExportedProgram, example: Arrays
) -> tuple[tuple[DynamicAxis, ...], dict[str, tuple[int, int]]]:
    """Dynamic axes as the saved program declares them."""
    import torch

    symbols: dict[str, str] = {}
    ranges: dict[str, tuple[int, int]] = {}
    dynamic = []
    placeholders = {node.name: node for node in program.graph.nodes if node.op == "placeholder"}
    for name in example:
        for axis, size in enumerate(placeholders[name].meta["val"].shape):
            if not isinstance(size, torch.SymInt):
                continue
            symbol = symbols.setdefault(str(size), "batch" if axis == 0 else f"axis{axis}_{len(symbols)}")
            limit = program.range_constraints.get(size.node.expr)
            low = max(1, int(limit.lower)) if limit is not None else 1
            high = int(limit.upper) if limit is not None and limit.upper < 2**20 else max(64, example[name].shape[axis])
            ranges[symbol] = (low, high)
            dynamic.append(DynamicAxis(name, axis, symbol, low, high))
    return tuple(dynamic), ranges
