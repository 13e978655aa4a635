"""Torch program or .onnx file -> clean fp32 graph.

ExportedProgram ──torch.onnx (dynamo)──► ir.Model ──clean──► rename ──► bytes
      └─ fails ──► torch.onnx (TorchScript), kept only if it agrees with the reference on two sizes
.onnx file ── checker, shape inference, refuse quantized ──► ir.Model ──clean──► rename ──► bytes
"""

from __future__ import annotations

import contextlib
import dataclasses
import re
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from edgekit_converters.capture.recurrent import symbolic_time
from edgekit_converters.captured import Arrays, Captured
from edgekit_converters.onnx import names, translate
from edgekit_converters.onnx.canonical import canonical
from edgekit_converters.onnx.clean import clean
from edgekit_converters.onnx.edit import has_subgraphs
from edgekit_converters.onnx.fold_pad import fold_pad
from edgekit_converters.onnx.versions import DEFAULT_OPSET, IR_VERSION, OLDEST_OPSET
from edgekit_converters.quiet import quiet
from edgekit_runtime.errors import Refused

if TYPE_CHECKING:
    import onnx
    import onnx_ir as ir
    import torch

_QUANTIZED = {"QuantizeLinear", "DequantizeLinear", "QLinearConv", "QLinearMatMul", "MatMulInteger", "ConvInteger"}
_QUANTIZED |= {"DynamicQuantizeLinear", "DynamicQuantizeMatMul", "MatMulNBits", "DynamicQuantizeLSTM"}


@dataclasses.dataclass(frozen=True)
class Exported:
    """The clean graph and what is known about how it was made.

    Attributes:
        model: fp32 graph with the student's input and output names.
        wheres: Node name -> `file.py:line` in the student's source.
        exporter: Which exporter wrote it (`torch.onnx dynamo`, `torch.onnx torchscript`, `onnx`).
        notes: What a person should know.
    """

    model: ir.Model
    wheres: Mapping[str, str]
    exporter: str
    notes: tuple[str, ...] = ()


def export(student: Captured, opset: int | None = None) -> Exported:
    """Writes the student as a clean fp32 ONNX graph.

    Args:
        student: Its `program` or its `.onnx` `path` is read.
        opset: ONNX opset; None: the default, or as high as the operators of the student need.

    Raises:
        Refused: An operator that no exporter takes (aten operator, file:line, remedy), a file that is no valid ONNX, or
            a quantized source that was not asked to be kept, or an opset that its operators do not allow.
    """
    if student.program is not None:
        model, exporter, notes = _from_program(student, opset)
        _check_opset(model, opset)
    else:
        model, exporter, notes = _from_file(student), "onnx", ()
    # Passes here see one graph: with If and Loop inside, the exporter's own form is kept.
    if not (student.quantized and student.program is None) and not has_subgraphs(model):
        canonical(clean(model))
        fold_pad(model)
        clean(model)
        if student.program is not None:
            model.ir_version = IR_VERSION.get(model.opset_imports.get("", DEFAULT_OPSET), 10)
    if student.program is None:
        names.complete(model)
        if not student.quantized and not has_subgraphs(model):
            names.rename_values(
                model, [v.name or "" for v in model.graph.inputs], [v.name or "" for v in model.graph.outputs]
            )
        return Exported(model, {}, exporter, notes)
    wheres = names.rename(model, [t.name for t in student.inputs], [t.name for t in student.outputs])
    _name_dimensions(model, student)
    return Exported(model, wheres, exporter, notes)


def _from_program(student: Captured, opset: int | None) -> tuple[ir.Model, str, tuple[str, ...]]:
    try:
        return _dynamo(student, opset), "torch.onnx dynamo", ()
    except Exception as error:
        refusal = _refusal(student, error)
        try:
            model = _torchscript(student, opset)
            agrees = _agrees(student, model)  # a size that was frozen shows as an error of the engine
        except Exception:  # noqa: BLE001 - any failure of the fallback leaves the first error as the answer
            raise refusal from error
        if not agrees:
            raise refusal from error
        return model, "torch.onnx torchscript", (f"the dynamo exporter failed: {_first_line(error)}",)


def _check_opset(model: ir.Model, wanted: int | None) -> None:
    """The exporter keeps its own opset, without a word, where it cannot bring the graph to the one asked for."""
    written = model.opset_imports.get("")
    if wanted is not None and written != wanted:
        raise Refused(
            f"this student cannot be written with opset {wanted}: its operators are those of opset {written}",
            remedy=f"leave --opset out, or give {written}",
        )


def _dynamo(student: Captured, opset: int | None) -> ir.Model:
    import torch

    with quiet(), torch.no_grad(), symbolic_time():
        program = torch.onnx.export(
            student.program,
            dynamo=True,
            optimize=False,
            opset_version=opset or DEFAULT_OPSET,
            input_names=[t.name for t in student.inputs],
            output_names=[f"{t.name}__out" for t in student.outputs],
            custom_translation_table=translate.table(),
            verbose=False,
        )
    assert program is not None
    return program.model


def _torchscript(student: Captured, opset: int | None) -> ir.Model:
    """The older exporter, on the program's module."""
    import io

    import onnx
    import onnx_ir as ir
    import torch

    assert student.program is not None
    module = student.program.module()
    order = [t.name for t in student.inputs]

    class ByPosition(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.body = module

        def forward(self, *args: Any) -> Any:
            found = self.body(**dict(zip(order, args, strict=True)))
            return tuple(found.values()) if isinstance(found, dict) else found

    dynamic = {
        t.name: {axis: d for axis, d in enumerate(t.shape) if isinstance(d, str)}
        for t in (*student.inputs, *student.outputs)
    }
    outputs = [t.name for t in student.outputs]
    buffer = io.BytesIO()
    with quiet(), torch.no_grad():
        torch.onnx.export(
            ByPosition(),
            tuple(torch.from_numpy(student.example[name]) for name in order),
            buffer,
            dynamo=False,
            training=torch.onnx.TrainingMode.PRESERVE,  # an exported program has no train()
            opset_version=min(opset or DEFAULT_OPSET, 20),
            input_names=order,
            output_names=outputs,
            dynamic_axes=dynamic,
        )
    return ir.from_proto(onnx.load_from_string(buffer.getvalue()))


def _agrees(student: Captured, model: ir.Model) -> bool:
    """Whether the graph gives the reference's answers, on the example and on a batch of half or twice its size."""
    from edgekit_converters.onnx.session import run_model

    for inputs in (student.example, _resized(student)):
        want, got = student.reference(inputs), run_model(model, inputs)
        for name, value in want.items():
            span = max(float(np.ptp(value)), 1e-6)
            if name not in got or got[name].shape != value.shape or np.abs(got[name] - value).max() > 1e-4 * span:
                return False
    return True


def _resized(student: Captured) -> Arrays:
    """The example with every dynamic axis one step away from what the exporter saw."""
    found = dict(student.example)
    for axis in student.axes:
        for tensor in student.inputs:
            for index, symbol in enumerate(tensor.shape):
                if symbol != axis.symbol:
                    continue
                value = found[tensor.name]
                size = value.shape[index]
                wanted = size + 1 if size + 1 <= axis.max else max(axis.min, size - 1)
                found[tensor.name] = np.take(value, np.arange(wanted) % size, axis=index)
    return found


def _from_file(student: Captured) -> ir.Model:
    import onnx
    import onnx_ir as ir
    from onnx_ir.passes.common import RemoveInitializersFromInputsPass

    assert student.path is not None
    remedy = "check the file with onnx.checker.check_model, or export the student again"
    if not student.path.is_file():
        raise Refused(f"{student.path}: no such file", remedy="give the path of an .onnx file")
    try:
        proto = onnx.load(student.path)
        onnx.checker.check_model(proto, full_check=False)
        proto = onnx.shape_inference.infer_shapes(proto, strict_mode=False)
    except Exception as error:  # protobuf, checker and inference each have error classes of their own
        raise Refused(f"{student.path.name} is not a valid ONNX file: {_first_line(error)}", remedy=remedy) from error
    if not proto.graph.node:
        raise Refused(f"{student.path.name} holds no operators", remedy=remedy)
    quantized = sorted({node.op_type for node in proto.graph.node} & _QUANTIZED)
    if quantized and not student.quantized:
        raise Refused(
            f"{student.path.name} is quantized already ({', '.join(quantized)})",
            remedy="give the fp32 file, or keep it as it is with --precision keep",
        )
    model = ir.from_proto(_at_least(proto, OLDEST_OPSET, student.path.name) if not quantized else proto)
    RemoveInitializersFromInputsPass()(model)
    return model


def _at_least(proto: onnx.ModelProto, opset: int, file: str) -> onnx.ModelProto:
    """The same model at the opset that per-channel int8 needs."""
    from onnx import version_converter

    if max((entry.version for entry in proto.opset_import if entry.domain in ("", "ai.onnx")), default=opset) >= opset:
        return proto
    try:
        return version_converter.convert_version(proto, opset)
    except Exception as error:  # the converter raises plain RuntimeErrors from C++
        raise Refused(
            f"{file} has an opset below {opset} and cannot be brought there: {_first_line(error)}",
            remedy=f"export the student again with opset {opset} or newer",
        ) from error


def _name_dimensions(model: ir.Model, student: Captured) -> None:
    """Dynamic axes carry the student's symbols."""
    import onnx_ir as ir

    symbols: dict[str, str] = {}
    for values, tensors in ((model.graph.inputs, student.inputs), (model.graph.outputs, student.outputs)):
        for value, tensor in zip(values, tensors, strict=True):
            for old, new in zip(value.shape or (), tensor.shape, strict=False):
                if isinstance(new, str) and not isinstance(old, int) and old.value is not None:
                    symbols.setdefault(str(old.value), new)
            value.shape = ir.Shape(tensor.shape)
    for node in model.graph:
        for value in node.outputs:
            if value.shape is not None and not value.is_graph_output():
                value.shape = ir.Shape(
                    [d if isinstance(d, int) else symbols.get(str(d.value), d.value) for d in value.shape]
                )


def _refusal(student: Captured, error: BaseException) -> Refused:
    """The exporter's error in the student's terms: aten operator, file:line, the way out."""
    chain = [error]
    while (cause := chain[-1].__cause__ or chain[-1].__context__) is not None and cause not in chain:
        chain.append(cause)
    found = re.search(r"target=torch\.ops\.([\w.]+)|OpOverload\(op='([\w.]+)'", "\n".join(map(str, chain)))
    name = (found.group(1) or found.group(2)) if found else ""
    operator, where = _in_program(student, name)
    what = f"operator {operator or name}" if name else "the student"
    return Refused(
        f"{what}{f' at {where}' if where else ''} cannot be written as ONNX: {_first_line(chain[-1])}",
        remedy="replace the operator in the student's forward, or keep that part outside the model",
    )


def _in_program(student: Captured, operator: str) -> tuple[str, str]:
    """The student's own operator behind the exporter's name for it, and its `file.py:line`; empty where not found.

    The exporter names what is left after decomposition (`prims.bessel_j1.default`), the student's program what was
    written (`aten.special_bessel_j1.default`): the middle part tells that they belong together. What shares no part of
    its name (`aten.linalg_eigvalsh` becomes `aten._linalg_eigh`) is found in the decomposed program, at a cost
    of seconds.
    """
    parts = operator.split(".")
    if student.program is None or len(parts) < 2:
        return "", ""
    for program in _forms(student.program):
        for node in program.graph.nodes:
            target = str(node.target)
            if parts[1] in target and (where := names.place(node.meta.get("stack_trace") or "")):
                return target, where
    return "", ""


def _forms(program: torch.export.ExportedProgram) -> Iterator[torch.export.ExportedProgram]:
    """The program as it was captured, then decomposed."""
    yield program
    with contextlib.suppress(Exception), quiet():  # what fails to decompose has no place to tell
        program = program.run_decompositions()
    yield program


def _first_line(error: BaseException) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    plain = [re.sub(r"\x1b\[[0-9;]*m", "", line) for line in lines]
    return (plain[0] if plain else type(error).__name__)[:200]
