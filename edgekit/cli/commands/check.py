"""`edgekit check`."""

from __future__ import annotations

from typing import Annotated

import typer
from rich.console import Console
from rich.markup import escape

from edgekit.cli.app import JsonFlag, QuietFlag
from edgekit.cli.output import Output
from edgekit.cli.student_options import (
    Dynamic,
    Example,
    Formats,
    KeepFloat,
    Opset,
    Source,
    Tokenizer,
    Weights,
    listed,
)
from edgekit_converters.promise import FormatCheck

_COLOURS = {"error": "red", "warning": "yellow", "info": "cyan"}


def command(
    source: Source,
    weights: Weights = None,
    example: Example = None,
    calibration: Annotated[
        str | None, typer.Option(help="As for convert; only its first sample is looked at, as example.")
    ] = None,
    formats: Formats = "onnx,tflite",
    dynamic: Dynamic = None,
    keep_float: KeepFloat = None,
    tokenizer: Tokenizer = None,
    opset: Opset = None,
    json: JsonFlag = False,
    quiet: QuietFlag = False,
) -> None:
    """Says, before any work, what will and will not convert or become int8, where, and the way out.

    Ends with 3 when no format takes the student. Example: edgekit check student.py:build --example example.npz
    """
    from edgekit_converters.check import as_document, check

    output = Output(json=json, quiet=quiet)
    names = listed(formats)
    with output.steps(f"checking {source}", total=1 + 4 * len(names)) as steps:
        found = check(
            source,
            progress=steps.advance,
            weights=weights,
            example=example,
            calibration=calibration,
            formats=names,
            dynamic=tuple(dynamic or ()),
            keep_float=tuple(keep_float or ()),
            tokenizer=tokenizer,
            opset=opset,
        )
    output.result(as_document(found), lambda console: _render(console, found))
    if not any(one.convertible for one in found.values()):
        raise typer.Exit(3)


def _render(console: Console, found: dict[str, FormatCheck]) -> None:
    for name, one in found.items():
        if one.convertible:
            console.print(
                f"{name}: converts; int8 for {one.int8_weight_bytes_fraction:.1%} of weight bytes and "
                f"{one.int8_macs_fraction:.1%} of MACs"
            )
        else:
            console.print(f"{name}: does not convert")
        for finding in one.findings:
            where = f" at {finding.where}" if finding.where else ""
            head = f"{finding.op}{where}: " if finding.op or where else ""
            colour = _COLOURS[finding.severity]
            console.print(f"  [{colour}]{finding.severity:<8}[/]{escape(head)}{escape(finding.reason)}", soft_wrap=True)
            console.print(escape(f"          -> {finding.remedy}"), soft_wrap=True)
