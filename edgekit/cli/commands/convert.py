"""`edgekit convert`."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

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
from edgekit_converters.options import Options, parse_min_engine

Samples = Annotated[str | None, typer.Option(help=".npz, folder of .npy, .jsonl, .txt or module:function.")]
Labelled = Annotated[str | None, typer.Option("--eval", help="The same, with `labels` where there are any.")]
Metric = Annotated[str, typer.Option(help="top1, f1, qwk, mse, cosine, perplexity, cer or module:function.")]
MaxDrop = Annotated[str, typer.Option(help="Largest loss that may ship: 0.01 or 1%.")]
Precision = Annotated[str, typer.Option(help="auto, int8, fp16, fp32 or keep.")]
Exits = Annotated[str, typer.Option(help="Outputs in order of depth, the full answer last: A,B,C")]
SplitPoints = Annotated[
    str, typer.Option(help="Where it may be cut: auto, auto:5 (five that stand for all), all, none or NAME,...")
]
State = Annotated[
    list[str] | None, typer.Option(help="INPUT=OUTPUT: a streaming student's state, carried on; repeatable.")
]
Labels = Annotated[Path | None, typer.Option(help="One class name a line.")]
Preprocess = Annotated[Path | None, typer.Option(help="preprocess.toml: raw item to tensor.")]
MinEngine = Annotated[str, typer.Option(help="onnxruntime=1.18,tflite=2.14")]
Targets = Annotated[
    list[str] | None, typer.Option(help="Device profile to decide for (`edgekit devices`); repeatable.")
]
Costs = Annotated[
    Path | None, typer.Option(help="Cost table to replay (reports/costs.json of a bundle); written if it is new.")
]


def command(
    source: Source,
    out: Annotated[Path, typer.Option("-o", "--output", help="The bundle to write, NAME.edge.")],
    weights: Weights = None,
    example: Example = None,
    calibration: Samples = None,
    evaluation: Labelled = None,
    metric: Metric = "",
    max_drop: MaxDrop = "0.01",
    formats: Formats = "onnx,tflite",
    precision: Precision = "auto",
    dynamic: Dynamic = None,
    exits: Exits = "",
    split_points: SplitPoints = "auto",
    state: State = None,
    keep_float: KeepFloat = None,
    tokenizer: Tokenizer = None,
    labels: Labels = None,
    preprocess: Preprocess = None,
    opset: Opset = None,
    min_engine: MinEngine = "",
    target: Targets = None,
    costs: Costs = None,
    seed: Annotated[int, typer.Option(help="Seeds the factory.")] = 0,
    name: Annotated[str, typer.Option(help="Name for servers; default: the bundle's stem.")] = "",
    version: Annotated[int, typer.Option(help="Version for servers.")] = 1,
    pack: Annotated[bool, typer.Option("--pack", help="Write one file instead of a folder.")] = False,
    force: Annotated[bool, typer.Option("--force", help="Replace a bundle that exists.")] = False,
    json: JsonFlag = False,
    quiet: QuietFlag = False,
) -> None:
    """Turns a trained student into a verified bundle of int8 ONNX and TFLite graphs.

    Example: edgekit convert student.py:build --weights student.safetensors
    --calibration calib.npz --eval eval.npz -o student.edge
    """
    from edgekit.converting import resolve

    options = Options(
        source=source,
        out=out,
        weights=weights,
        example=example,
        calibration=calibration,
        eval=evaluation,
        metric=metric,
        max_drop=max_drop,
        formats=listed(formats),
        precision=precision,  # type: ignore[arg-type]  # checked by Options.check
        dynamic=tuple(dynamic or ()),
        exits=listed(exits),
        split_points=listed(split_points),
        states=tuple(state or ()),
        keep_float=tuple(keep_float or ()),
        tokenizer=tokenizer,
        labels=labels,
        preprocess=preprocess,
        opset=opset,
        min_engine=parse_min_engine(min_engine),
        targets=resolve(target or ()),
        costs=costs,
        seed=seed,
        name=name,
        version=version,
        force=force,
    )
    _convert(options, pack, Output(json=json, quiet=quiet))


def _convert(options: Options, pack: bool, output: Output) -> None:
    from edgekit_converters.convert import run
    from edgekit_converters.pack import pack_in_place

    start = time.monotonic()
    with output.steps(f"converting {options.source}", total=_steps(options)) as steps:
        bundle = run(options, steps.advance)
    path = pack_in_place(bundle) if pack else bundle.root
    seconds = round(time.monotonic() - start, 1)
    document: dict[str, Any] = {
        "bundle": str(path),
        "bundle_id": bundle.bundle_id,
        "seconds": seconds,
        "manifest": bundle.manifest,
        "refused": bundle.manifest.refused,
    }
    output.result(document, lambda console: _render(console, document))


def _steps(options: Options) -> int:
    """About how many lines the conversion will report, for the bar's ETA."""
    int8 = options.precision in ("auto", "int8")
    lines = {"onnx": 7 if int8 else 3, "tflite": 10 if int8 else 5}
    graphs = 2 if int8 else 1
    cuts = 0 if options.split_points == ("none",) else graphs + 1  # and int8 on the wire of fp32
    return 2 + sum(lines[name] + cuts for name in options.formats if name in lines)


def _render(console: Console, document: dict[str, Any]) -> None:
    from edgekit.cli.bundle_tables import graph_table, refusal_lines

    manifest = document["manifest"]
    console.print(f"{document['bundle']}  ({document['seconds']} s)")
    console.print(f"bundle_id {document['bundle_id']}")
    console.print(graph_table(manifest))
    for line in refusal_lines(manifest):
        console.print(line, markup=False)
