"""How much noise each operator adds by being int8: all of them side by side with their float selves in one graph.

before: x ──► Conv ──► y ──► ...
after:  x ──► Conv ──► y ──► ...          the student itself, in floating point
        x ──► Conv in int8 ──► z          a twin of each operator that the recipe quantizes, on the same input
                                          (a sum of looked-up rows with the look-up, which int8 makes one with it)
        sum (y - z)^2, sum y^2            two numbers a sample leave the graph, whatever the size of y

What an operator does to the answer is not asked: its own signal to quantization noise ratio is cheap, and enough to say
which operators to give back first; the task's metric then says how many.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

import msgspec
import numpy as np

from edgekit_converters.captured import Arrays
from edgekit_converters.onnx import apply as applying
from edgekit_converters.onnx import bags
from edgekit_converters.onnx.edit import Editor
from edgekit_converters.onnx.session import open_session, run_session, serialize
from edgekit_converters.recipe.types import Recipe

if TYPE_CHECKING:
    import onnx_ir as ir

_TWIN = "#int8"


def noise(model: ir.Model, recipe: Recipe, samples: Iterable[Arrays]) -> dict[str, float]:
    """Noise power over signal power at the output of each quantized operator, by operator name.

    Args:
        model: The fp32 graph that the recipe was resolved on.
        recipe: Its decisions.
        samples: Calibration samples; what is kept of each is two numbers an operator.
    """
    import onnx_ir as ir

    kept = list(samples)
    twins = ir.from_proto(ir.to_proto(model))
    wanted = {op.op: op for op in recipe.ops if op.scheme not in ("float", "follow")}
    names = _add_twins(twins, set(wanted))
    decisions = tuple(msgspec.structs.replace(wanted[name], op=name + _TWIN) for name in names)
    made = applying.apply(twins, msgspec.structs.replace(recipe, ops=decisions), kept)
    session = open_session(serialize(made))
    power, error = np.zeros(len(names)), np.zeros(len(names))
    for sample in kept:
        seen = run_session(session, sample)
        power += [float(seen[f"{name}#power"]) for name in names]
        error += [float(seen[f"{name}#error"]) for name in names]
    return {name: float(e / p) if p else 0.0 for name, e, p in zip(names, error, power, strict=True)}


def _add_twins(model: ir.Model, wanted: set[str]) -> list[str]:
    """Adds a twin of each operator and the two sums; gives back the operators' names in graph order."""
    import onnx_ir as ir

    editor = Editor(model)
    names = []
    # Before anything is added: a sum whose rows are read twice, once by the twin of their look-up, is none.
    sums = {node.name: gather for node in model.graph if (gather := bags.looked_up(node)) is not None}
    for node in list(model.graph):
        name = node.name or ""
        if name not in wanted:
            continue
        attributes = {key: attribute.value for key, attribute in node.attributes.items()}
        twin = editor.node(
            None, node.op_type, _inputs(editor, node, sums.get(name)), outputs=len(node.outputs), name=name + _TWIN,
            domain=node.domain, **attributes,
        )[0]  # fmt: skip
        whole = node.outputs[0]
        difference = editor.one(None, "Sub", whole, twin)
        for what, value in (("power", whole), ("error", difference)):
            total = editor.one(None, "ReduceSumSquare", value, keepdims=0)
            total.name, total.type, total.shape = f"{name}#{what}", ir.TensorType(ir.DataType.FLOAT), ir.Shape(())
            model.graph.outputs.append(total)
        names.append(name)
    return names


def _inputs(editor: Editor, node: ir.Node, gather: ir.Node | None) -> list[ir.Value | None]:
    """What the twin of an operator reads; rows that are looked up to be summed it looks up for itself alone."""
    inputs = list(node.inputs)
    if gather is not None:
        (rows,) = editor.node(None, "Gather", list(gather.inputs), axis=0)
        rows.type, rows.shape = gather.outputs[0].type, gather.outputs[0].shape
        inputs[1] = rows
    return inputs
