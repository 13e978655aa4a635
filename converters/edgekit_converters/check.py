"""`edgekit check`: what will convert and become int8, told before any calibration or verification.

source ─ capture ─► Captured ─ export at one size ─► fp32 graph ─ resolve ─► Recipe ─► shares, findings
"""

from __future__ import annotations

import re
import tempfile
from pathlib import Path
from typing import Any

import msgspec

from edgekit_converters.captured import Captured
from edgekit_converters.convert import capture_source
from edgekit_converters.draft import Progress
from edgekit_converters.formats import other_format
from edgekit_converters.options import Options
from edgekit_converters.promise import Finding, FormatCheck, check_recipe
from edgekit_converters.recipe.types import Recipe
from edgekit_runtime.errors import Refused

_WHERE = re.compile(r"\(?\b([\w./-]+\.py:\d+)\)?")
_OPERATOR = re.compile(r"operator ([\w.]+)")


def check(source: Any, *, progress: Progress | None = None, **options: Any) -> dict[str, FormatCheck]:
    """Says for each format whether a student converts, how much becomes int8, and what stands against the rest.

    Args:
        source: An nn.Module, or what `edgekit convert SOURCE` takes.
        progress: Called with a short line for each step.
        **options: As `edgekit.convert` takes them: `weights`, `example`, `calibration` (its first sample serves as
            example), `dynamic`, `formats`, `keep_float`, `opset`, `tokenizer`.

    Raises:
        UsageError: Options that do not fit together.
        Refused: The source itself cannot be read or captured.
    """
    tell = progress or (lambda line: None)
    asked = Options(source=source, out=Path("check.edge"), **options)
    asked.check()
    student = capture_source(asked, tell).student
    found = {}
    with tempfile.TemporaryDirectory() as folder:
        for name in asked.formats:
            reason = other_format(student, name)
            if reason:
                found[name] = _refused(Refused(reason, remedy="give the torch source to have both formats"))
                continue
            work = Path(folder) / name
            work.mkdir()
            try:
                found[name] = _FORMATS[name](student, asked, work, tell)
            except Refused as error:
                found[name] = _refused(error)
    return found


def _refused(error: Refused) -> FormatCheck:
    operator, where = _OPERATOR.search(error.message), _WHERE.search(error.message)
    finding = Finding(
        severity="error",
        op=operator[1] if operator else "",
        where=where[1] if where else "",
        reason=error.message,
        remedy=error.remedy,
    )
    return FormatCheck(convertible=False, findings=(finding,))


def _onnx(student: Captured, options: Options, work: Path, progress: Progress) -> FormatCheck:
    import onnx_ir as ir

    from edgekit_converters.onnx.converter import OnnxConverter, decide

    draft = OnnxConverter(options.opset).export(student, work, progress)
    return _judged(student, decide(ir.load(draft.path), student, draft.path), {})


def _tflite(student: Captured, options: Options, work: Path, progress: Progress) -> FormatCheck:
    from edgekit_converters.tflite import flatbuffer, ladder
    from edgekit_converters.tflite.converter import TfliteConverter
    from edgekit_converters.tflite.resolve import resolve

    # One rung tells as much as six: the same operators, the same weights.
    sizes = {
        axis.symbol: (min(axis.max, max(axis.min, ladder.example_size(student, axis.symbol))),)
        for axis in student.axes
        if axis.role == "length"
    }
    draft = TfliteConverter(sizes).export(student, work, progress)
    recipe = resolve(flatbuffer.read(draft.path), student.float_patterns)
    return _judged(student, recipe, _places(student, recipe))


def _judged(student: Captured, recipe: Recipe, wheres: dict[str, str]) -> FormatCheck:
    if not student.quantized:
        return check_recipe(recipe, wheres)
    kept = Finding(
        severity="info",
        op="",
        where="",
        reason="the source is quantized already",
        remedy="--precision keep ships it as it is",
    )
    return FormatCheck(convertible=True, findings=(kept,))


def _places(student: Captured, recipe: Recipe) -> dict[str, str]:
    """`file.py:line` of TFLite operators, by the module path in their names: the exporter keeps no places itself."""
    from edgekit_converters.onnx.names import place

    if student.program is None:
        return {}
    by_path: dict[str, str] = {}
    for node in student.program.graph.nodes:
        stack, trace = node.meta.get("nn_module_stack"), node.meta.get("stack_trace")
        if stack and trace:
            by_path.setdefault(list(stack.values())[-1][0], place(trace))
    found = {}
    for op in recipe.ops:
        path = ".".join(op.op.split("/")[:-1])
        fitting = {where for module, where in by_path.items() if path and f".{module}".endswith(f".{path}")}
        if len(fitting) == 1:
            found[op.op] = fitting.pop()
    return found


_FORMATS = {"onnx": _onnx, "tflite": _tflite}


def as_document(found: dict[str, FormatCheck]) -> dict[str, Any]:
    """The answer of `edgekit check --json`."""
    document: dict[str, Any] = {"formats": msgspec.to_builtins(found)}
    return document
