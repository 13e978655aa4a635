"""fp32 graph + Recipe + calibration samples -> int8 graph. Does what the recipe says and nothing more."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from edgekit_converters.captured import Arrays
from edgekit_converters.onnx import bags, moves, names, observe, pins, recurrent, rows, static, tables
from edgekit_converters.onnx.edit import Editor, has_subgraphs
from edgekit_converters.recipe.types import Recipe, Scheme

if TYPE_CHECKING:
    import onnx_ir as ir

REDUCED_RANGE = "reduced_range"
S8S8 = "s8s8"


@dataclasses.dataclass
class Seen:
    """What calibration found, kept for the next recipe on the same graph: ranges and column maxima by tensor.

    Attributes:
        ranges: Clipped where that lowers the error.
        columns: Largest absolute value of each column.
        extremes: Smallest and largest value.
    """

    ranges: dict[str, observe.Range] = dataclasses.field(default_factory=dict)
    columns: dict[str, np.ndarray] = dataclasses.field(default_factory=dict)
    extremes: dict[str, observe.Range] = dataclasses.field(default_factory=dict)


def apply(
    model: ir.Model,
    recipe: Recipe,
    calibration: Sequence[Arrays],
    seen: Seen | None = None,
    pinned: pins.Level = pins.LEVELS[-1],
) -> ir.Model:
    """Returns the int8 graph; `model` itself stays as it is.

    Args:
        model: The fp32 graph that the recipe was resolved on.
        recipe: One decision an operator. Its variant `reduced_range` stores weights in 7 bits (x86 without VNNI adds
            pairs of u8 x s8 products in 16 bits and saturates), `s8s8` calibrated activations in int8 (for Arm;
            onnxruntime on x86 leaves many of those operators in floating point).
        calibration: Samples; must not be empty where the recipe has static operators.
        seen: What an earlier call found on this graph with these samples; added to.
        pinned: Which ends of int8 LSTM layers are constants.
    """
    import onnx_ir as ir

    levels = 63 if recipe.variant == REDUCED_RANGE else 127
    plan = static.plan(model, recipe)
    seen = seen or Seen()
    seen.ranges.update(observe.ranges(model, [n for n in plan.tensors if n not in seen.ranges], calibration))
    spans = {name: seen.ranges[name] for name in plan.tensors}
    wide = [n.inputs[0] for n in _chosen(model, recipe, "dynamic_row") if bags.looked_up(n) is None]
    unsmoothed = [v for v in wide if v is not None and rows.lowest(v) is None]
    looked_at = sorted({v.name or "" for v in unsmoothed})
    seen.columns.update(observe.columns(model, [n for n in looked_at if n not in seen.columns], calibration))
    largest = {name: seen.columns[name] for name in looked_at if name in seen.columns}
    spanned = pins.tensors(_chosen(model, recipe, "dynamic_tensor"))
    seen.extremes.update(observe.extremes(model, [n for n in spanned if n not in seen.extremes], calibration))
    student = [[v.name or "" for v in values] for values in (model.graph.inputs, model.graph.outputs)]

    made = ir.from_proto(ir.to_proto(model))
    editor = Editor(made)
    chosen = {s: _chosen(made, recipe, s) for s in ("dynamic_row", "weight_row", "dynamic_tensor", "weight_channel")}
    ends = pins.ends(chosen["dynamic_tensor"], seen.extremes, pinned)
    static.apply(editor, plan, spans, np.int8 if recipe.variant == S8S8 else np.uint8, levels=levels)
    moves.apply(editor)
    sums = [node for node in chosen["dynamic_row"] if bags.looked_up(node) is not None]
    bags.apply(editor, sums, levels=levels)
    rows.apply(editor, [node for node in chosen["dynamic_row"] if node not in sums], largest, levels=levels)
    recurrent.apply_lstm(editor, chosen["dynamic_tensor"], ends=ends, levels=levels)
    recurrent.apply_storage(editor, chosen["weight_channel"])
    tables.apply(editor, [node for node in chosen["weight_row"] if node.graph is not None])
    editor.finish()
    for node in made.graph:
        node.name = ""
    if not has_subgraphs(made):
        names.rename_values(made, *student)
    return made


def _chosen(model: ir.Model, recipe: Recipe, scheme: Scheme) -> list[ir.Node]:
    wanted = {op.op for op in recipe.ops if op.scheme == scheme}
    return [node for node in model.graph if node.name in wanted]
