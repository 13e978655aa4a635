"""What `convert` and `check` both ask about a student, said once."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

Source = Annotated[
    str, typer.Argument(help="file.py:name, module:name, .pt2, .onnx, .tflite or a Hugging Face folder.")
]
Weights = Annotated[Path | None, typer.Option(help=".safetensors, or a state dict.")]
Example = Annotated[Path | None, typer.Option(help="Example inputs, .npz; default: first calibration sample.")]
Formats = Annotated[str, typer.Option("--format", help="onnx,tflite")]
Dynamic = Annotated[list[str] | None, typer.Option(help="NAME:AXIS[=SYMBOL][:MIN-MAX]; repeatable.")]
KeepFloat = Annotated[list[str] | None, typer.Option(help="Pattern of operators left in float; repeatable.")]
Tokenizer = Annotated[Path | None, typer.Option(help="Folder that travels in the bundle; reads text given as data.")]
Opset = Annotated[int | None, typer.Option(help="ONNX opset, 15 to 23; default 18.")]


def listed(text: str) -> tuple[str, ...]:
    """`a,b` as its parts; empty ones are left out."""
    return tuple(part for part in text.split(",") if part)
