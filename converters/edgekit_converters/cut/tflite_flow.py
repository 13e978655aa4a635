"""A TFLite file as a `Flow`: its steps are the units of one signature, the same in every rung of the ladder."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from edgekit_converters.cut.flow import Flow, Step
from edgekit_converters.cut.onnx_flow import Seen
from edgekit_converters.cut.tflite_units import LOOP, units
from edgekit_converters.tflite.flatbuffer import (
    Model,
    dtype_of,
    executed,
    is_constant,
    kind_of,
    main_subgraphs,
    operators,
    shape_of,
    text,
)
from edgekit_converters.tflite.passes.names import tensor_key
from edgekit_runtime.errors import Refused
from edgekit_runtime.macs import macs
from edgekit_runtime.manifest import Axis, Quantization, Signature, Tensor

# An operator that reads a constant of more values than this has weights.
_SMALL = 64
_TRANSPORT = ("float32", "float16", "int8", "uint8", "int16", "int32", "int64", "bool")


def see(model: Model, signatures: Sequence[Signature], axes: Sequence[Axis], sizes: Mapping[str, int]) -> Seen:
    """Reads a model.

    Args:
        model: The file.
        signatures: Its rungs; empty where it has one size.
        axes: The student's dynamic axes.
        sizes: The example's sizes: the rung that holds them is billed.

    Raises:
        Refused: The rungs do not hold the same operators.
    """
    subgraphs = main_subgraphs(model)
    kinds = [[(unit.kind, len(unit.outputs)) for unit in units(model, subgraph)] for subgraph in subgraphs]
    for number, other in enumerate(kinds):
        if other != kinds[0]:
            raise Refused(_unlike(signatures, number, kinds[0], other), remedy="cut the ONNX graph")
    names = [tensor_names(model, subgraph, number) for number, subgraph in enumerate(subgraphs)]
    billed = _rung(signatures, axes, sizes)
    chosen, by_index = subgraphs[billed], names[billed]
    tensors = {
        name: _tensor(name, [_by_name(s, n)[name] for s, n in zip(subgraphs, names, strict=True)], signatures, axes)
        for name in by_index.values()
    }
    keys = [text(signature.signatureKey) for signature in model.signatureDefs or []]
    flow = Flow(
        steps=tuple(_steps(model, chosen, by_index, keys)),
        inputs=tuple(by_index[int(index)] for index in chosen.inputs),
        outputs=tuple(by_index[int(index)] for index in chosen.outputs),
        bytes={name: _wire_bytes(chosen.tensors[index]) for index, name in by_index.items()},
        closed={n: f"{t.dtype} cannot be sent" for n, t in tensors.items() if t.dtype not in _TRANSPORT},
    )
    return Seen(flow, tensors)


def _unlike(signatures: Sequence[Signature], number: int, first: Sequence[object], other: Sequence[object]) -> str:
    """Why the rungs cannot be cut at the same places."""
    at = next((i for i, (a, b) in enumerate(zip(first, other, strict=False)) if a != b), min(len(first), len(other)))
    names = [signatures[i].name if i < len(signatures) else str(i) for i in (0, number)]
    there = [str(kinds[at][0]) if at < len(kinds) else "nothing" for kinds in (first, other)]  # type: ignore[index]
    return (
        f"the rungs of the TFLite file hold different operators: of {len(first)} and {len(other)}, number {at} is "
        f"{there[0]} in {names[0]} and {there[1]} in {names[1]}"
    )


def tensor_names(model: Model, subgraph: Any, rung: int = 0) -> dict[int, str]:
    """A name for each tensor between units, by its index: equal for the same tensor of every rung.

    Inputs and outputs have the student's names, others `x<unit>` (a second output: `x<unit>.1`).
    """
    names: dict[int, str] = {}
    if model.signatureDefs:
        signature = model.signatureDefs[rung]
        for entry in (*signature.outputs, *signature.inputs):
            names[int(entry.tensorIndex)] = text(entry.name)
    for number, unit in enumerate(units(model, subgraph)):
        for position, index in enumerate(unit.outputs):
            names.setdefault(index, f"x{number}" + (f".{position}" if position else ""))
    return names


def _by_name(subgraph: Any, names: Mapping[int, str]) -> dict[str, Any]:
    return {name: subgraph.tensors[index] for index, name in names.items()}


def _rung(signatures: Sequence[Signature], axes: Sequence[Axis], sizes: Mapping[str, int]) -> int:
    """The smallest rung that holds the sizes."""
    batch = {axis.symbol for axis in axes if axis.role == "batch"}
    for number, signature in enumerate(signatures):
        if all(size >= sizes.get(name, size) for name, size in signature.sizes.items() if name not in batch):
            return number
    return max(0, len(signatures) - 1)


def _tensor(name: str, rungs: Sequence[Any], signatures: Sequence[Signature], axes: Sequence[Axis]) -> Tensor:
    shapes = [shape_of(tensor) for tensor in rungs]
    shape: list[int | str] = []
    for axis in range(len(shapes[0])):
        sizes = [found[axis] for found in shapes]
        same = [
            key for key in (signatures[0].sizes if signatures else {}) if [s.sizes[key] for s in signatures] == sizes
        ]
        moving = [key for key in same if len(set(sizes)) > 1]
        shape.append(moving[0] if moving else sizes[0] if len(set(sizes)) == 1 else f"{name}_{axis}")
    for dynamic in axes:
        if (
            dynamic.role == "batch"
            and signatures
            and dynamic.symbol in signatures[0].sizes
            and dynamic.symbol not in shape
        ):
            _mark_batch(shape, dynamic.symbol, signatures[0].sizes[dynamic.symbol])
    codes = rungs[0].quantization
    scales = [] if codes is None or codes.scale is None else list(codes.scale)
    quantization = (
        Quantization(scale=float(scales[0]), zero_point=int(codes.zeroPoint[0])) if len(scales) == 1 else None
    )
    return Tensor(name=name, dtype=dtype_of(rungs[0]), shape=tuple(shape), quantization=quantization)


def _mark_batch(shape: list[int | str], symbol: str, size: int) -> None:
    """No rung tells which axis is the batch, as all have one size of it: the first of that size; the proof checks."""
    for axis, found in enumerate(shape):
        if found == size:
            shape[axis] = symbol
            return


def _wire_bytes(tensor: Any) -> int:
    count = int(np.prod(shape_of(tensor), dtype=np.int64))
    dtype = dtype_of(tensor)
    return count if dtype.startswith("float") else count * np.dtype(dtype).itemsize if dtype in _TRANSPORT else 0


def _steps(model: Model, subgraph: Any, names: Mapping[int, str], keys: Sequence[str]) -> list[Step]:
    steps = []
    bodies = {id(body): _macs(model, body) for body, _ in executed(model, subgraph)[1:]}
    for number, unit in enumerate(units(model, subgraph)):
        constants = [index for index in unit.inputs if is_constant(model, subgraph.tensors[index])]
        path = tensor_key(text(subgraph.tensors[unit.outputs[0]].name), keys).split("/")
        module = ".".join(path[:-1])
        steps.append(
            Step(
                name=f"{module}/{unit.kind}#{number}" if module else f"{unit.kind}#{number}",
                inputs=tuple(dict.fromkeys(names[index] for index in unit.inputs if index in names)),
                outputs=tuple(names[index] for index in unit.outputs),
                macs=sum(_called(model, subgraph, operator, bodies) for operator in unit.operators),
                fixed=unit.kind in ("IF", "WHILE", LOOP)
                or any(int(np.prod(shape_of(subgraph.tensors[index]))) > _SMALL for index in constants),
            )
        )
    return steps


def _called(model: Model, subgraph: Any, operator: Any, bodies: Mapping[int, int]) -> int:
    """MACs of an operator; of a call those of what it calls."""
    if kind_of(model, operator) == "IF":
        return bodies.get(id(model.subgraphs[operator.builtinOptions.thenSubgraphIndex]), 0)
    return _operator_macs(model, subgraph, operator)


def _operator_macs(model: Model, subgraph: Any, operator: Any) -> int:
    given = [shape_of(subgraph.tensors[int(index)]) if int(index) >= 0 else () for index in operator.inputs]
    made = [shape_of(subgraph.tensors[int(index)]) for index in operator.outputs]
    return macs(kind_of(model, operator), given, made) or 0


def _macs(model: Model, subgraph: Any) -> int:
    return sum(_operator_macs(model, subgraph, operator) for _, operator in operators(model, subgraph))
