"""fp32 graph -> Recipe: what becomes of each operator, and why. Pure: the graph is read, never edited.

The family of an operator follows from where its input comes from, found by walking up to the nearest telling operator:

    image, spectrum ──► Conv ──► Relu ──► MaxPool ──► Flatten ──► Gemm      static: one scale a tensor, calibrated
    Gather ──► LayerNormalization ──► MatMul ──► Gelu ──► MatMul            dynamic_row: one scale a row, at run time
    Gather(table), Slice(table)                                             weight_row: one scale a row of the table
    Gather ──► LSTM ──► LSTM ──► Gemm                                       dynamic_tensor inside LSTM, rows after it
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from fnmatch import fnmatch
from typing import TYPE_CHECKING

from edgekit_converters.onnx import bags
from edgekit_converters.onnx import macs as count
from edgekit_converters.onnx.edit import attribute, constant, consumers
from edgekit_converters.recipe.types import Given, OpDecision, Recipe, Scheme

if TYPE_CHECKING:
    import onnx_ir as ir

# Fewer weights than this: entering the int8 kernels of a dynamic operator costs more than its arithmetic saves.
SMALL_WEIGHTS = 4096
# A look-up has no kernel to enter; of a small student an alphabet's table is a share of the bytes that counts.
SMALL_TABLE = 2048

# Operators that tell what kind of values flow: rows with outliers, or maps with a stable range.
_ROWS = {"LayerNormalization", "Softmax", "Gelu", "Erf", "Gather", "LSTM", "GRU", "RNN", "RMSNormalization"}
_MAPS = {"Conv", "ConvTranspose"}
# A bounded input needs no row scale whatever feeds it.
_BOUNDED = {"Sigmoid", "Tanh", "HardSigmoid"}

# Operators that can run on int8 values. Those that only move or choose values keep scale and zero point.
MOVING = {
    "MaxPool",
    "Reshape",
    "Flatten",
    "Transpose",
    "Squeeze",
    "Unsqueeze",
    "Slice",
    "Pad",
    "ReduceMax",
    "GlobalMaxPool",
}
FUSED = {"Relu", "Clip"}
COMPUTING = {"Add", "Mul", "AveragePool", "GlobalAveragePool", "Concat", "LeakyRelu", "Sigmoid"}
FOLLOWERS = MOVING | FUSED | COMPUTING


@dataclasses.dataclass(frozen=True)
class Facts:
    """What `resolve` may know besides the graph.

    Attributes:
        shapes: Shape of each tensor at the example's size.
        wheres: Node name -> `file.py:line`.
        float_patterns: fnmatch patterns of nodes or source places left in floating point.
        given: Decisions already taken, by node name.
        variant: Empty, or `reduced_range` (7-bit weights for x86 without VNNI, whose u8 x s8 sums saturate).
    """

    shapes: Mapping[str, tuple[int, ...]]
    wheres: Mapping[str, str] = dataclasses.field(default_factory=dict)
    float_patterns: Sequence[str] = ()
    variant: str = ""
    given: Given = dataclasses.field(default_factory=dict)


def resolve(model: ir.Model, facts: Facts) -> Recipe:
    """Decides for every operator with weights or multiply-accumulates, and for those between two int8 ones."""
    chosen: dict[str, tuple[Scheme, str]] = {}
    for node in model.graph:
        if count.weight_bytes(node) or count.macs(node, facts.shapes):
            chosen[node.name or ""] = _kept_float(node, facts) or facts.given.get(node.name or "") or _decide(node)
    _bags(model, chosen, facts)
    _follow(model, chosen, facts)
    ops = [
        OpDecision(
            op=name,
            kind=node.op_type,
            scheme=chosen[name][0],
            reason=chosen[name][1],
            macs=count.macs(node, facts.shapes),
            weight_bytes=count.weight_bytes(node),
            touched_bytes=count.touched_bytes(node, facts.shapes),
            where=facts.wheres.get(name, ""),
        )
        for node in model.graph
        if (name := node.name or "") in chosen
    ]
    return Recipe(format="onnx", precision="int8", variant=facts.variant, ops=tuple(ops))


def _bags(model: ir.Model, chosen: dict[str, tuple[Scheme, str]], facts: Facts) -> None:
    """Sums of rows of a table that became int8 run on the int8 rows."""
    for node in model.graph:
        gather = bags.looked_up(node)
        if (
            gather is not None
            and (node.name or "") not in facts.given
            and chosen.get(gather.name or "", ("", ""))[0] == "weight_row"
            and not _kept_float(node, facts)
        ):
            how = "row scales are whole multiples of one" if bags.summed_whole(node) else "one scale a bag"
            reason = f"a sum of rows of a table: the int8 rows are summed as they are, {how}"
            chosen[node.name or ""] = ("dynamic_row", reason)


def _kept_float(node: ir.Node, facts: Facts) -> tuple[Scheme, str] | None:
    name = node.name or ""
    for pattern in facts.float_patterns:
        if any(fnmatch(text, pattern) for text in (name, name.rsplit("/", 1)[0], facts.wheres.get(name, "")) if text):
            return "float", f"asked for: --keep-float {pattern}"
    return None


def _decide(node: ir.Node) -> tuple[Scheme, str]:
    deciders = {"Conv": _conv, "Gemm": _dense, "MatMul": _dense, "Gather": _table, "Slice": _places, "LSTM": _lstm}
    decider = deciders.get(node.op_type)
    if decider is not None:
        return decider(node)
    if node.op_type in ("GRU", "RNN"):
        if constant(node.inputs[1]) is not None and constant(node.inputs[2]) is not None:
            return (
                "weight_channel",
                f"onnxruntime has no int8 {node.op_type} and stands-in made of other operators are slower: weights are "
                "stored in int8, unpacked at load, arithmetic in fp32",
            )
        return "float", f"onnxruntime has no int8 {node.op_type}, and its weights are computed at run time"
    if node.op_type == "ConvTranspose" and constant(node.inputs[1]) is not None:
        why = "onnxruntime has no int8 ConvTranspose: weights are stored in int8, unpacked at load"
        return "weight_channel", f"{why}; upsampling (Resize) and Conv would run in int8"
    if node.op_type in ("Add", "Sum", "Mul", "Sub", "Div", "PRelu", "Concat", "Where"):
        return "float", "an element-wise parameter, no matrix: it takes part in fp32"
    return "float", f"onnxruntime has no int8 {node.op_type} with constant weights"


def _conv(node: ir.Node) -> tuple[Scheme, str]:
    if constant(node.inputs[1]) is None:
        return "float", "its weights are computed at run time"
    return (
        "static",
        "convolution: feature maps have stable ranges, one calibrated scale a tensor, weights per channel",
    )


def _dense(node: ir.Node) -> tuple[Scheme, str]:
    weight = constant(node.inputs[1])
    if weight is None:
        return "float", "both factors are computed at run time (attention): fp32 is as fast at these sizes"
    if weight.ndim != 2:
        return "float", f"its weights have {weight.ndim} axes; int8 kernels take 2"
    if attribute(node, "transA", 0) or attribute(node, "alpha", 1.0) != 1.0 or attribute(node, "beta", 1.0) != 1.0:
        return "float", "scaled or transposed Gemm: no int8 kernel"
    before = node.inputs[0].producer() if node.inputs[0] is not None else None
    if before is not None and before.op_type in _BOUNDED and weight.size < SMALL_WEIGHTS:
        return "float", f"only {weight.size:,} weights behind {before.op_type}, which is float: quantizing costs more"
    if not takes_rows(node.inputs[0]):
        return "static", "fed by convolutions or the input: one calibrated scale a tensor, weights per channel"
    if weight.size < SMALL_WEIGHTS:
        return "float", f"only {weight.size:,} weights: quantizing each row costs more than int8 saves"
    return (
        "dynamic_row",
        "its rows differ in range (after a norm, Softmax, Gelu, look-up): one scale a row at run time",
    )


def takes_rows(value: ir.Value | None) -> bool:
    """Whether the value comes from operators whose rows differ in range, before any convolution."""
    seen: set[int] = set()
    front = [value]
    while front:
        current = front.pop()
        node = current.producer() if current is not None else None
        if node is None or id(node) in seen:
            continue
        seen.add(id(node))
        if node.op_type in _ROWS and not (node.op_type == "Gather" and constant(node.inputs[0]) is None):
            return True
        if node.op_type not in _MAPS and node.op_type not in _BOUNDED:
            front.extend(node.inputs)
    return False


def _table(node: ir.Node) -> tuple[Scheme, str]:
    table = constant(node.inputs[0])
    if table is None or table.ndim != 2 or attribute(node, "axis", 0) != 0:
        return "float", "no table of rows: a constant that is indexed some other way"
    if table.size < SMALL_TABLE:
        return "float", f"only {table.size:,} values: scales and look-up cost more than int8 saves"
    return "weight_row", "embedding table: int8 rows with one scale each, dequantized after the look-up"


def _places(node: ir.Node) -> tuple[Scheme, str]:
    """Rows of a table from one place to another, as position embeddings are taken."""
    table = constant(node.inputs[0])
    axes = constant(node.inputs[3]) if len(node.inputs) > 3 else None
    if table is None or table.ndim != 2 or axes is None or axes.tolist() != [0]:
        return "float", "no rows of a table: a constant that is sliced some other way"
    if table.size < SMALL_TABLE:
        return "float", f"only {table.size:,} values: scales and slices cost more than int8 saves"
    return (
        "weight_row",
        "a table whose first rows are taken: int8 rows with one scale each, dequantized after the slice",
    )


def _lstm(node: ir.Node) -> tuple[Scheme, str]:
    if constant(node.inputs[1]) is None or constant(node.inputs[2]) is None:
        return "float", "its weights are computed at run time and could not be folded"
    if attribute(node, "layout", 0) != 0:
        return "float", "batch-first layout: onnxruntime has no kernel for it"
    return "dynamic_tensor", "weights int8 per channel, input and state quantized at run time (DynamicQuantizeLSTM)"


def _follow(model: ir.Model, chosen: dict[str, tuple[Scheme, str]], facts: Facts) -> None:
    """Adds operators that can stay in int8 between static ones."""
    int8 = {
        value for node in model.graph if chosen.get(node.name or "", ("", ""))[0] == "static" for value in node.outputs
    }
    followers: list[ir.Node] = []
    for node in model.graph:
        name = node.name or ""
        if (
            node.op_type in FOLLOWERS
            and name not in chosen
            and _can_follow(node, int8)
            and not _kept_float(node, facts)
        ):
            followers.append(node)
            int8.update(node.outputs)
    # From the end: an operator whose readers are all float would only add a rounding, unless it makes tensors smaller.
    kept: set[int] = set()
    for node in reversed(followers):
        readers = [reader for output in node.outputs for reader in consumers(output)]
        useful = any(id(r) in kept or chosen.get(r.name or "", ("", ""))[0] == "static" for r in readers)
        if useful or node.op_type in FUSED or "Pool" in node.op_type or node.op_type == "ReduceMax":
            kept.add(id(node))
    for node in followers:
        if id(node) in kept:
            how = (
                "moves or chooses int8 values" if node.op_type in MOVING else "computes on its neighbours' int8 values"
            )
            if node.op_type in FUSED:
                how = "becomes the lower end of its neighbour's int8 range"
            chosen[node.name or ""] = ("follow", how)


def _can_follow(node: ir.Node, int8: set[ir.Value]) -> bool:
    data = [value for value in node.inputs if value is not None]
    if node.op_type in ("Add", "Mul", "Concat"):
        return all(value in int8 for value in data)
    if node.op_type == "Clip":
        low = constant(node.inputs[1]) if len(node.inputs) > 1 else None
        return data[0] in int8 and low is not None and float(low) == 0.0
    if node.op_type == "Pad":
        fill = constant(node.inputs[2]) if len(node.inputs) > 2 and node.inputs[2] is not None else 0.0
        return (
            data[0] in int8
            and attribute(node, "mode", "constant") == "constant"
            and fill is not None
            and float(fill) == 0.0
        )
    return data[0] in int8 and all(constant(value) is not None or node.op_type == "Reshape" for value in data[1:])
