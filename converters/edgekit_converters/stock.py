"""What the tools underneath make of a student by themselves, with their documented defaults.

ORT is onnxruntime, AEQ is ai-edge-quantizer.

The demo and the benchmarks put these beside edgekit's own graphs. Nothing here is tuned, for or against: each function
is what the first page of the tool's documentation says to do.
"""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from edgekit_converters.captured import Arrays, Captured
from edgekit_converters.quiet import quiet_native


@dataclasses.dataclass(frozen=True)
class Attempt:
    """What a stock tool made: a file, or why not.

    Attributes:
        tool: Name of the tool and its mode.
        path: The int8 file; None where the tool failed.
        error: The last line of what it raised.
    """

    tool: str
    path: Path | None
    error: str = ""


def attempts(student: Captured, calibration: Sequence[Arrays], work: Path) -> Iterator[Attempt]:
    """Runs every stock tool on a torch student, one after the other as they are asked for.

    Args:
        student: Captured from torch.
        calibration: For the static one.
        work: Folder for the files.
    """
    work = work.absolute()
    work.mkdir(parents=True, exist_ok=True)
    makers: dict[str, tuple[str, Callable[[Path], object]]] = {
        "ORT quantize_dynamic": ("dynamic.onnx", lambda path: onnx_dynamic(student, path)),
        "ORT quantize_static": ("static.onnx", lambda path: onnx_static(student, calibration, path)),
        "litert-torch + AEQ": ("dynamic.tflite", lambda path: tflite_dynamic(student, path)),
    }
    for tool, (name, make) in makers.items():
        yield _attempt(tool, work / name, make)


def _attempt(tool: str, path: Path, make: Callable[[Path], object]) -> Attempt:
    # onnxruntime's shape inference leaves sym_shape_infer_temp.onnx in the current folder when it fails.
    before = Path.cwd()
    try:
        os.chdir(path.parent)
        with quiet_native():
            make(path)
    except Exception as error:  # noqa: BLE001 - the tools raise anything at all; the benchmark is about exactly that
        lines = [line for line in str(error).splitlines() if line.strip()]
        return Attempt(tool, None, f"{type(error).__name__}: {lines[-1].strip() if lines else ''}"[:200])
    finally:
        os.chdir(before)
    return Attempt(tool, path)


def onnx_fp32(student: Captured, path: Path) -> Path:
    """torch.onnx.export with its defaults, and output names that no inner node has (the exporter mixes them up)."""
    import torch

    torch.onnx.export(
        student.program,
        f=str(path),
        dynamo=True,
        verbose=False,
        external_data=False,
        input_names=[tensor.name for tensor in student.inputs],
        output_names=[f"output_{index}" for index in range(len(student.outputs))],
    )
    return path


def onnx_dynamic(student: Captured, path: Path) -> None:
    """onnxruntime.quantization.quantize_dynamic on the exported file."""
    from onnxruntime.quantization import QuantType, quantize_dynamic

    quantize_dynamic(onnx_fp32(student, path.with_suffix(".fp32.onnx")), path, weight_type=QuantType.QInt8)


def onnx_static(student: Captured, calibration: Sequence[Arrays], path: Path) -> None:
    """quant_pre_process and quantize_static (QDQ, per channel) on the exported file."""
    from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static
    from onnxruntime.quantization.shape_inference import quant_pre_process

    class Reader(CalibrationDataReader):
        def __init__(self) -> None:
            self.rest = iter(calibration)

        def get_next(self) -> Any:
            return next(self.rest, None)

    fp32 = onnx_fp32(student, path.with_suffix(".fp32.onnx"))
    prepared = path.with_suffix(".prepared.onnx")
    quant_pre_process(str(fp32), str(prepared))
    quantize_static(
        str(prepared),
        str(path),
        Reader(),
        quant_format=QuantFormat.QDQ,
        per_channel=True,
        weight_type=QuantType.QInt8,
        activation_type=QuantType.QUInt8,
    )


def tflite_fp32(student: Captured, path: Path) -> Path:
    """litert_torch.convert at the example's sizes."""
    import litert_torch
    import torch

    example = tuple(torch.from_numpy(np.ascontiguousarray(student.example[t.name])) for t in student.inputs)
    litert_torch.convert(_positional(student), example).export(str(path))
    return path


def tflite_dynamic(student: Captured, path: Path) -> None:
    """ai-edge-quantizer's dynamic_wi8_afp32 recipe on the converted file."""
    from ai_edge_quantizer import quantizer, recipe

    fp32 = tflite_fp32(student, path.with_suffix(".fp32.tflite"))
    tool = quantizer.Quantizer(str(fp32))
    tool.load_quantization_recipe(recipe.dynamic_wi8_afp32())
    tool.quantize().export_model(str(path), overwrite=True)


def _positional(student: Captured) -> Any:
    """litert-torch wants positional inputs: the student behind arguments in their order."""
    import torch

    assert student.program is not None
    inner, names = student.program.module(), [tensor.name for tensor in student.inputs]

    class Positional(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = inner

        def forward(self, *arguments: torch.Tensor) -> Any:
            return self.inner(**dict(zip(names, arguments, strict=True)))

    return Positional()
