"""Pass: slices that keep every n-th place of one or two axes become plain slices, which XNNPACK takes.

    before: STRIDED_SLICE(x [B,H,W,C], stride s of H) ──► [B,H/s,W,C] ──► STRIDED_SLICE(stride t of W) ──► [B,H/s,W/t,C]
    after:  RESHAPE(x, [B·H/s, s, W/t, t·C]) ──► SLICE [B·H/s, 1, W/t, C] ──► RESHAPE [B,H/s,W/t,C]

XNNPACK has no strides in its slices: a STRIDED_SLICE runs in LiteRT's own kernel and parts the delegate's graph in two
(the option-A shortcut of a ResNet, every second step of a sequence). A pool of 1x1 with a stride would be shorter, but
LiteRT 2.3 does not give that to XNNPACK either. Values are only moved, so that all dtypes and scales stay. Slices that
leave a rest (H no multiple of s) stay as they are, and so do all where signatures would no longer hold equal operators.
"""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import numpy as np

from edgekit_converters.tflite.flatbuffer import (
    Model,
    data_of,
    dtype_of,
    main_subgraphs,
    operators,
    shape_of,
    text,
)
from edgekit_converters.tflite.passes.build import Builder

STRIDED = "STRIDED_SLICE"
_AXES = 2  # more would need more than the four axes that every runtime slices fast


@dataclasses.dataclass(frozen=True)
class _Picked:
    """Places kept of one tensor: from `begin` on, every `stride`-th, by axis.

    Attributes:
        operators: The slices in a row, by `id`.
        source: Tensor they read.
        output: Tensor they make.
    """

    operators: tuple[int, ...]
    source: int
    output: int
    begin: dict[int, int]
    stride: dict[int, int]


def every_nth(model: Model) -> int:
    """Rewrites the slices of all subgraphs in place and returns how many groups of them there were."""
    found = {id(subgraph): _groups(model, subgraph) for subgraph in model.subgraphs}
    if len({len(found[id(subgraph)]) for subgraph in main_subgraphs(model)}) > 1:
        return 0
    for subgraph in model.subgraphs:
        last = {group.operators[-1]: group for group in found[id(subgraph)]}
        gone = {one for group in found[id(subgraph)] for one in group.operators}
        made: list[Any] = []
        for _, operator in operators(model, subgraph):
            if id(operator) in last:
                made += _plain(model, subgraph, last[id(operator)])
            elif id(operator) not in gone:
                made.append(operator)
        subgraph.operators = made
    return sum(map(len, found.values()))


def _groups(model: Model, subgraph: Any) -> list[_Picked]:
    """Each slice, joined with the one before where nothing else reads what is between."""
    readers: dict[int, int] = {}
    for index in [*subgraph.outputs, *(i for _, operator in operators(model, subgraph) for i in operator.inputs)]:
        readers[int(index)] = readers.get(int(index), 0) + 1
    by_output: dict[int, _Picked] = {}
    for kind, operator in operators(model, subgraph):
        picked = _picked(model, subgraph, operator) if kind == STRIDED else None
        if picked is None:
            continue
        before = by_output.get(picked.source)
        apart = before is not None and not set(before.stride) & set(picked.stride)
        if before is not None and apart and readers[picked.source] == 1:
            joined = {**before.stride, **picked.stride}
            if len(joined) <= _AXES:
                del by_output[picked.source]
                picked = _Picked(
                    (*before.operators, *picked.operators),
                    before.source,
                    picked.output,
                    {**before.begin, **picked.begin},
                    joined,
                )
        by_output[picked.output] = picked
    return list(by_output.values())


def _picked(model: Model, subgraph: Any, operator: Any) -> _Picked | None:
    """What a slice keeps; None where it does more than keep every n-th place of whole axes, or leaves a rest."""
    options = operator.builtinOptions
    if options is None or options.ellipsisMask or options.newAxisMask or options.shrinkAxisMask or options.offset:
        return None
    source, output = subgraph.tensors[int(operator.inputs[0])], subgraph.tensors[int(operator.outputs[0])]
    begins, strides = (data_of(model, subgraph.tensors[int(operator.inputs[place])]) for place in (1, 3))
    sizes, kept = shape_of(source), shape_of(output)
    open_sizes = any(_is_open(tensor) for tensor in (source, output))
    if begins is None or strides is None or open_sizes or len(sizes) != len(kept):
        return None
    begin: dict[int, int] = {}
    stride: dict[int, int] = {}
    for axis, step in enumerate(int(value) for value in strides):
        start = 0 if options.beginMask >> axis & 1 else int(begins[axis]) % max(1, sizes[axis])
        if step < 1 or start >= step or kept[axis] * step != sizes[axis]:
            return None
        if step > 1:
            begin[axis], stride[axis] = start, step
    if not 1 <= len(stride) <= _AXES:
        return None
    return _Picked((id(operator),), int(operator.inputs[0]), int(operator.outputs[0]), begin, stride)


def _is_open(tensor: Any) -> bool:
    return tensor.shapeSignature is not None and any(int(size) < 0 for size in tensor.shapeSignature)


def _plain(model: Model, subgraph: Any, group: _Picked) -> list[Any]:
    """RESHAPE, SLICE, RESHAPE; the last makes the tensor that the slices made."""
    sizes = shape_of(subgraph.tensors[group.source])
    split: list[int] = []
    begin: list[int] = []
    size: list[int] = []
    done = 0
    axes = sorted(group.stride)
    for number, axis in enumerate(axes):
        step, start = group.stride[axis], group.begin[axis]
        split.append(math.prod(sizes[done:axis]) * sizes[axis] // step)
        begin.append(0)
        size.append(split[-1])
        inner = math.prod(sizes[axis + 1 :]) if number == len(axes) - 1 else 1
        split.append(step * inner)
        begin.append(start * inner)
        size.append(inner)
        done = axis + 1
    whole = subgraph.tensors[group.output]
    build = Builder(model, subgraph)
    name, dtype = text(whole.name), dtype_of(whole)
    apart = _reshape(build, group.source, tuple(split), f"{name}.apart", dtype)
    edges = [build.constant(np.array(values, np.int32)) for values in (begin, size)]
    (part,) = build.operator("SLICE", [apart, *edges], [tuple(size)], "SliceOptions", [dtype])
    subgraph.tensors[part].name = f"{name}.part".encode()
    _reshape(build, part, shape_of(whole), "", dtype, group.output)
    for index in (apart, part):
        subgraph.tensors[index].quantization = whole.quantization
    return build.operators


def _reshape(build: Builder, source: int, shape: tuple[int, ...], name: str, dtype: str, onto: int = -1) -> int:
    """A RESHAPE onto a new tensor, or onto one that is there."""
    target = np.array(shape, np.int32)
    made = build.operator(
        "RESHAPE", [source, build.constant(target)], [shape] if onto < 0 else [], "ReshapeOptions", [dtype][: onto < 0]
    )
    build.operators[-1].builtinOptions.newShape = target
    if onto >= 0:
        build.operators[-1].outputs = [onto]
        return onto
    build.subgraph.tensors[made[0]].name = name.encode()
    return made[0]
