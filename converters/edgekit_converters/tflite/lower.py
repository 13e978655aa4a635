"""Torch program -> TFLite flatbuffer with one subgraph a signature, by litert-torch."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from edgekit_converters.captured import Captured
from edgekit_converters.draft import Progress
from edgekit_converters.quiet import quiet, quiet_native
from edgekit_converters.tflite import lowerings
from edgekit_converters.tflite.flatbuffer import Model, parse
from edgekit_converters.tflite.ladder import shape_at
from edgekit_converters.tflite.passes.step_scan import step_scan, take_bodies
from edgekit_converters.tflite.torch_passes.fold_constants import fold_constants
from edgekit_converters.tflite.torch_passes.mark_recurrent import mark_recurrent
from edgekit_converters.tflite.torch_passes.mark_scan import MarkedScan, bodies, mark_scan
from edgekit_converters.tflite.torch_passes.mark_scatter import mark_scatter
from edgekit_converters.tflite.torch_passes.same_padding import write_out_same_padding
from edgekit_converters.tflite.torch_passes.widen_conv1d import widen_conv1d
from edgekit_runtime.errors import Refused
from edgekit_runtime.manifest import Signature

if TYPE_CHECKING:
    import torch

_TARGET = re.compile(r"target=(?:torch\.ops\.)?(?P<op>[\w.]+)")
_FRAME = re.compile(r'File "(?P<file>[^"]+)", line (?P<line>\d+)')
_LIBRARY = re.compile(r"site-packages|dist-packages|/torch/|<eval_with_key>")

REMEDIES: tuple[tuple[str, str], ...] = (
    ("_embedding_bag", "write it as nn.Embedding and a masked mean or sum over the tokens"),
)
GENERAL_REMEDY = "write this step with other operators, or convert to ONNX alone (--format onnx)"


def lower(student: Captured, signatures: Sequence[Signature], progress: Progress) -> Model:
    """Lowers a torch student at the sizes of each signature into one model.

    The subgraph of each signature has its inputs and outputs in the student's order; 64-bit integers become 32-bit.
    Recurrent layers are still the markers of `torch_passes.mark_recurrent`.

    Raises:
        Refused: An operator that litert-torch cannot lower: operator, file:line, remedy.
    """
    if student.program is None:
        raise TypeError("lower() takes torch students; a .tflite source is read as it is")
    progress("TFLite: loading litert-torch")
    with quiet_native():
        from litert_torch._convert.interface import Converter

    converter = Converter()
    module = student.program.module()
    mark_recurrent(module)
    mark_scatter(module)
    write_out_same_padding(module)
    widen_conv1d(module)
    fold_constants(module)
    lowerings.register()
    scans = mark_scan(module)
    for signature in signatures:
        converter.add_signature(signature.name, module, None, example_at(student, signature))
    _add_bodies(converter, module, scans, [example_at(student, signature) for signature in signatures])
    progress(f"TFLite: lowering {len(signatures)} signature{'s' if len(signatures) > 1 else ''}")
    try:
        with quiet():
            lowered = converter.convert()
    except (KeyboardInterrupt, MemoryError):
        raise
    except Exception as error:
        raise refusal(error) from error
    with quiet_native():  # the C++ writer prints its estimate of arithmetic operations
        data = lowered.model_content()
    model = parse(data, student.name)
    take_bodies(model)
    step_scan(model, {scan.name: scan for scan in scans})
    _check_border(model, student)
    return model


def _add_bodies(
    converter: Any, module: torch.nn.Module, scans: Sequence[MarkedScan], examples: Sequence[dict[str, torch.Tensor]]
) -> None:
    """Runs the marked student once a signature to see what its scans' bodies are given, and adds those."""
    import torch

    if not scans:
        return
    with torch.no_grad():
        for example in examples:
            module(**example)
    for name, (body, arguments) in bodies(scans).items():
        converter.add_signature(name, body, arguments, None)


def example_at(student: Captured, signature: Signature) -> dict[str, torch.Tensor]:
    """Example inputs at the sizes of a signature: the student's example, cut or repeated along each axis."""
    import torch

    inputs = {}
    for tensor in student.inputs:
        array = torch.from_numpy(student.example[tensor.name].copy())
        for axis, size in enumerate(shape_at(tensor.shape, signature.sizes)):
            if array.shape[axis] != size:
                array = array.index_select(axis, torch.arange(size) % array.shape[axis])
        inputs[tensor.name] = array.contiguous()
    return inputs


def refusal(error: Exception) -> Refused:
    """Turns what litert-torch or torch raised into the operator, the place in the person's file, and the way out."""
    message = str(error)
    target = _TARGET.search(message)
    operator = target["op"] if target else ""
    where = source_line(message)
    remedy = next((text for key, text in REMEDIES if key in operator), GENERAL_REMEDY)
    reason = message.strip().splitlines()[0] if message.strip() else type(error).__name__
    what = (
        f"the operator {operator} cannot be lowered to TFLite"
        if operator
        else "the student cannot be lowered to TFLite"
    )
    place = f" ({where})" if where else ""
    return Refused(f"{what}{place}: {reason}", remedy=remedy)


def source_line(message: str) -> str:
    """`file.py:line` of the innermost frame of a torch traceback that is not in an installed library; may be empty."""
    frames = [(match["file"], match["line"]) for match in _FRAME.finditer(message)]
    own = [frame for frame in frames if not _LIBRARY.search(frame[0])]
    if not (own or frames):
        return ""
    file, line = (own or frames)[-1]
    return f"{file}:{line}"


def _check_border(model: Model, student: Captured) -> None:
    for signature in model.signatureDefs:
        subgraph = model.subgraphs[signature.subgraphIndex]
        for what, tensors, indices in (
            ("inputs", student.inputs, subgraph.inputs),
            ("outputs", student.outputs, subgraph.outputs),
        ):
            if len(tensors) != len(indices):
                raise Refused(
                    f"the TFLite graph has {len(indices)} {what} where the student has {len(tensors)}",
                    remedy=f"every one of the student's {what} must depend on, or be used in, the computation",
                )
