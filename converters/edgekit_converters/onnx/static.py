"""Static int8: quantize and dequantize pairs around everything that runs on calibrated int8 values.

before: x ──► Conv(w, b) ──► Relu ──► MaxPool ──► y
after:  x ──► Q─DQ ──► Conv(DQ(w int8), DQ(b int32)) ──► Q─DQ ──► MaxPool ──► Q─DQ ──► y

The engine fuses each DQ…Q group into one integer kernel. A Relu goes away: its output range begins at 0, so the Q after
Conv already cuts there. Tensors that an operator only moves (MaxPool, Reshape, Concat …) share one scale, so the
engine moves bytes.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from edgekit_converters.onnx.edit import Editor, attribute, constant, consumers
from edgekit_converters.onnx.observe import Range
from edgekit_converters.onnx.qmath import activation_parameters, quantize_bias, quantize_weight
from edgekit_converters.onnx.resolve import FUSED, MOVING
from edgekit_converters.recipe.types import Recipe

if TYPE_CHECKING:
    import onnx_ir as ir

SHARING = MOVING | {"Concat"}
_NODE_BYTES = 32  # what a Mul costs in the file, or a little more


@dataclasses.dataclass(frozen=True)
class StaticPlan:
    """The tensors that hold calibrated int8 values.

    Attributes:
        compute: Names of the nodes with int8 weights.
        follow: Names of the nodes that run on their neighbours' int8 values.
        tensors: Names of the tensors that get a scale, in graph order.
        groups: Tensor -> the tensor whose scale it shares.
    """

    compute: frozenset[str]
    follow: frozenset[str]
    tensors: tuple[str, ...]
    groups: Mapping[str, str]


def plan(model: ir.Model, recipe: Recipe) -> StaticPlan:
    """Which tensors need a scale for the static part of a recipe. Pure."""
    compute = frozenset(op.op for op in recipe.ops if op.scheme == "static")
    follow = frozenset(op.op for op in recipe.ops if op.scheme == "follow")
    tensors: dict[str, ir.Value] = {}
    parent: dict[str, str] = {}

    def root(name: str) -> str:
        while parent.get(name, name) != name:
            name = parent[name]
        return name

    for node in model.graph:
        if node.name not in compute | follow:
            continue
        inputs = [v for v in _data_inputs(node) if constant(v) is None]
        outputs = [] if _stays_float(node, compute | follow) else list(node.outputs)
        if len(outputs) == 1 and (absorbed := _absorbing(outputs[0], follow)) is not None:
            outputs = list(absorbed.outputs)
        if node.op_type in FUSED and not _absorbed(node, compute | follow):
            parent[root(outputs[0].name or "")] = root(outputs[0].name or "")
        elif node.op_type in FUSED:
            inputs = []
        for value in (*inputs, *outputs):
            tensors.setdefault(value.name or "", value)
        if node.op_type in SHARING:
            sharing = [v for v in inputs if node.op_type in MOVING or not _cut_above(v)] or list(outputs)
            first = root(sharing[0].name or "")
            for value in (*sharing[1:], *outputs):
                parent[root(value.name or "")] = first
    return StaticPlan(compute, follow, tuple(tensors), {name: root(name) for name in tensors})


def parameters(
    plan: StaticPlan, ranges: Mapping[str, Range], dtype: type[np.generic]
) -> dict[str, tuple[np.float32, np.generic]]:
    """Scale and zero point of each tensor; tensors of one group get the widest range of the group."""
    low: dict[str, float] = {}
    high: dict[str, float] = {}
    for name in plan.tensors:
        group, span = plan.groups[name], ranges[name]
        low[group] = min(low.get(group, 0.0), span.min)
        high[group] = max(high.get(group, 0.0), span.max)
    return {name: activation_parameters(low[group], high[group], dtype) for name, group in plan.groups.items()}


def apply(
    editor: Editor, plan: StaticPlan, ranges: Mapping[str, Range], dtype: type[np.generic], *, levels: int = 127
) -> None:
    """Writes the quantize and dequantize pairs; edits the graph.

    Args:
        editor: Of the graph.
        plan: What `plan` gave for it.
        ranges: Range of each tensor of the plan.
        dtype: int8 or uint8, of activations.
        levels: Largest weight code, 127 or 63.
    """
    codes = parameters(plan, ranges, dtype)
    scales: dict[int, tuple[np.float32, ir.Value]] = {}
    values = {v.name: v for n in editor.graph for v in n.outputs} | {v.name: v for v in editor.graph.inputs}
    int8_nodes = plan.compute | plan.follow
    for node in list(editor.graph):
        if node.name in plan.follow and node.op_type in FUSED and _absorbed(node, int8_nodes):
            source = node.inputs[0]
            assert source is not None
            name = node.outputs[0].name
            editor.replace(node.outputs[0], source)
            values[name] = source
            editor.remove(node)
    pairs: dict[str, ir.Value] = {}
    for name in plan.tensors:
        value, (scale, zero) = values[name], codes[name]
        pairs[name] = _pair(editor, value, scale, zero, int8_nodes)
        scales[id(pairs[name])] = scale, editor.constant(scale)
    for node in list(editor.graph):
        if node.name in plan.compute:
            _weights(editor, node, *scales[id(node.inputs[0])], levels)


def _pair(editor: Editor, value: ir.Value, scale: np.float32, zero: np.generic, int8_nodes: frozenset[str]) -> ir.Value:
    """Q and DQ behind a value; every reader reads the DQ, so float readers see what the int8 ones see."""
    producer = value.producer()
    uses = list(value.uses())
    quantized_from_float = producer is None or producer.name not in int8_nodes
    first = next((node for node in editor.graph if any(node is use.node for use in uses)), None)
    s, z = editor.constant(scale), editor.constant(zero)
    q = editor.one(first, "QuantizeLinear", value, s, z)
    dq = editor.one(first, "DequantizeLinear", q, s, z)
    for node, index in uses:
        # A float reader of a float value keeps the float: only int8 operators look through the pair.
        if not quantized_from_float or node.name in int8_nodes:
            node.replace_input_with(index, dq)
    if value.is_graph_output() and not quantized_from_float:
        name, shape, dtype = value.name, value.shape, value.type
        index = list(editor.graph.outputs).index(value)
        editor.graph.outputs[index] = dq
        dq.name, dq.shape, dq.type = name, shape, dtype
        value.name = editor._fresh("t")
    return dq


def _weights(editor: Editor, node: ir.Node, input_scale: np.float32, told: ir.Value, levels: int) -> None:
    """int8 weights with a scale a channel, and the bias in int32 with the scales of the accumulator.

    Those are the product of the data's scale and the weights': the file says so in a Mul, which every engine folds
    when it opens the graph, instead of holding as many floats again as there are channels.
    """
    weight = constant(node.inputs[1])
    assert weight is not None
    axis = 0 if node.op_type == "Conv" or attribute(node, "transB", 0) else weight.ndim - 1
    codes, scale = quantize_weight(weight, axis, levels=levels)
    zeros = editor.constant(np.zeros(scale.shape, np.int8))
    own = editor.constant(scale)
    node.replace_input_with(1, editor.one(node, "DequantizeLinear", editor.constant(codes), own, zeros, axis=axis))
    bias = constant(node.inputs[2]) if len(node.inputs) > 2 else None
    if bias is not None:
        bias_codes, bias_scale = quantize_bias(bias.reshape(-1), float(input_scale), scale)
        assert (bias_scale == input_scale * scale).all()
        sums = editor.one(node, "Mul", told, own) if scale.nbytes > _NODE_BYTES else editor.constant(bias_scale)
        whole = editor.one(node, "DequantizeLinear", editor.constant(bias_codes), sums, None, axis=0)
        node.replace_input_with(2, whole)


def _data_inputs(node: ir.Node) -> Sequence[ir.Value]:
    found = [value for value in node.inputs if value is not None]
    return found if node.op_type in ("Add", "Mul", "Concat") else found[:1]


def _absorbing(value: ir.Value, follow: frozenset[str]) -> ir.Node | None:
    """The Relu or Clip that is the only reader of the value and disappears into its range."""
    readers = consumers(value)
    if len(readers) == 1 and readers[0].op_type in FUSED and readers[0].name in follow and not value.is_graph_output():
        return readers[0]
    return None


def _absorbed(node: ir.Node, int8_nodes: frozenset[str]) -> bool:
    source = node.inputs[0]
    producer = source.producer() if source is not None else None
    if source is None or producer is None or producer.name not in int8_nodes:
        return False
    return _absorbing(source, frozenset({node.name or ""})) is node


def _cut_above(value: ir.Value) -> bool:
    """Whether a Clip makes the value: its upper end is its range's, so it may not get a wider one from others."""
    producer = value.producer()
    return producer is not None and producer.op_type == "Clip"


def _stays_float(node: ir.Node, int8_nodes: frozenset[str]) -> bool:
    """Dense layers can write float themselves: no rounding where no int8 operator reads the answer."""
    if node.op_type not in ("Gemm", "MatMul"):
        return False
    return not any(reader.name in int8_nodes for output in node.outputs for reader in consumers(output))
