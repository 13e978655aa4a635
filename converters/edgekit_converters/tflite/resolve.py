"""Decides what becomes int8 in a TFLite graph and how. Pure: looks at the fp32 model, returns a Recipe.

Two styles, chosen for the whole graph by its structure:

    static    convolutional and feed-forward nets on float inputs: activations get calibrated scales, so the data stays
              int8 from the first weighted operator to the last
    dynamic   nets with look-up tables, attention or recurrence: activations stay float between operators, each matrix
              product quantizes its rows as they come (no calibration, no outlier problem, padding cannot change a row);
              convolutions on pictures in front of such a net are static all the same (`front`)
"""

from __future__ import annotations

import fnmatch
from collections.abc import Sequence
from typing import Any, Literal

import msgspec

from edgekit_converters.recipe.types import Given, OpDecision, Recipe, Scheme
from edgekit_converters.tflite.flatbuffer import (
    Model,
    dtype_of,
    executed,
    is_constant,
    main_subgraphs,
    operators,
    text,
)
from edgekit_converters.tflite.front import front_operators
from edgekit_converters.tflite.passes.names import tensor_key
from edgekit_converters.tflite.passes.step_recurrent import is_recurrent_product
from edgekit_converters.tflite.weighted import LSTM, Weighted, touched_bytes_fp32, weight_bytes_fp32, weighted_operators

Style = Literal["static", "dynamic"]

TABLES = frozenset({"EMBEDDING_LOOKUP", "GATHER"})
PRODUCTS = frozenset({"CONV_2D", "DEPTHWISE_CONV_2D", "TRANSPOSE_CONV", "FULLY_CONNECTED"})
# Move values without changing them: int8 on one side is int8 on the other.
MOVING = frozenset(
    {"RESHAPE", "TRANSPOSE", "PAD", "SLICE", "STRIDED_SLICE", "SPLIT", "PACK", "UNPACK", "SPACE_TO_DEPTH"}
)
# Have int8 kernels that lose little when their input is int8 already.
FOLLOWING = MOVING | {
    "ADD", "SUB", "MUL", "CONCATENATION", "MEAN", "SUM", "AVERAGE_POOL_2D", "MAX_POOL_2D", "RELU", "MAXIMUM",
    "LOGISTIC", "TANH", "HARD_SWISH", "RESIZE_BILINEAR", "RESIZE_NEAREST_NEIGHBOR", "PADV2", "MIRROR_PAD",
}  # fmt: skip

FRONT = "a convolution on feature maps in front of the rest: their ranges are stable, calibrated scales"


def resolve(
    model: Model, float_patterns: Sequence[str] = (), *, calibrated: bool = True, given: Given | None = None
) -> Recipe:
    """Decides for every operator with weights or multiply-accumulates, and for what follows them.

    Args:
        model: The fp32 model with the names of `passes.names`.
        float_patterns: fnmatch patterns of operators or modules left in floating point.
        calibrated: Whether calibration samples are at hand; without them nothing is static.
        given: Decisions already taken, by operator.

    Returns:
        The recipe. Operators are named without the prefix of their signature, so that one decision serves all.
    """
    signatures = [text(signature.signatureKey) for signature in model.signatureDefs or []]
    decided: dict[str, OpDecision] = {}
    patterns = tuple(float_patterns)
    # The largest signature first: its MACs are the ones to report.
    for subgraph in reversed(main_subgraphs(model)):
        style, why = style_of(model, subgraph)
        if style == "static" and not calibrated:
            style, why = "dynamic", "no calibration samples, so activations are quantized as they come"
        here: dict[str, OpDecision] = {}
        for part, calls in executed(model, subgraph):
            front = front_operators(model, part, FOLLOWING) if style == "dynamic" and calibrated else set()
            told = (style, why)
            for decision in _decide(model, part, told, patterns, signatures, given or {}, front):
                before = here[decision.op].macs if decision.op in here else 0  # a step stands there four times
                here[decision.op] = msgspec.structs.replace(decision, macs=before + calls * decision.macs)
        decided = here | decided
    _, why = style_of(model, main_subgraphs(model)[-1])
    return Recipe(format="tflite", precision="int8", ops=tuple(decided.values()), notes=(why,))


def style_of(model: Model, subgraph: Any) -> tuple[Style, str]:
    """The style of a graph and the reason in plain words."""
    kinds = {kind for kind, _ in operators(model, subgraph)}
    weighted = weighted_operators(model, subgraph)
    if any(item.kind in TABLES for item in weighted):
        return (
            "dynamic",
            "the graph starts from look-up tables: text-like input, activations are quantized as they come",
        )
    if any(item.kind == "BATCH_MATMUL" and not item.weights for item in weighted):
        return "dynamic", "the graph has attention: one calibrated scale a tensor would lose the small values"
    if "RSQRT" in kinds:
        return (
            "dynamic",
            "the graph normalises over features: its activations have outliers that a calibrated scale loses",
        )
    inputs = [dtype_of(subgraph.tensors[int(index)]) for index in subgraph.inputs]
    if any(dtype != "float32" for dtype in inputs):
        return "dynamic", "an input is not floating point: activations are quantized as they come"
    return "static", "convolutional or feed-forward on float input: activations get calibrated scales"


def _decide(
    model: Model,
    subgraph: Any,
    chosen: tuple[Style, str],
    patterns: tuple[str, ...],
    signatures: list[str],
    given: Given,
    front: set[int],
) -> list[OpDecision]:
    style, why = chosen
    weighted = {id(item.operator): item for item in weighted_operators(model, subgraph)}
    int8_tensors: set[int] = set()
    decisions: dict[int, OpDecision] = {}
    steps = list(operators(model, subgraph))
    for kind, operator in steps:
        name = tensor_key(text(subgraph.tensors[int(operator.outputs[0])].name), signatures)
        item = weighted.get(id(operator))
        if item is not None and id(operator) in front:
            scheme, reason = _respect(patterns, name, *(given.get(name) or ("static", FRONT)))
            decisions[id(operator)] = _decision(name, item, scheme, reason)
        elif item is not None:
            scheme, reason = given.get(name) or _weighted_scheme(item, style, why)
            scheme, reason = _respect(patterns, name, scheme, reason)
            decisions[id(operator)] = _decision(name, item, scheme, reason)
        elif (
            (style == "static" or id(operator) in front)
            and kind in FOLLOWING
            and _touches(model, subgraph, operator, int8_tensors)
        ):
            scheme, reason = _respect(patterns, name, "follow", "its input is int8 already")
            decisions[id(operator)] = OpDecision(op=name, kind=kind, scheme=scheme, reason=reason)
        if id(operator) in decisions and decisions[id(operator)].scheme in ("static", "follow"):
            int8_tensors.update(int(index) for index in operator.outputs)
    if style == "static":
        _pull_in_movers(subgraph, steps, decisions, signatures)
    return [decisions[id(operator)] for _, operator in steps if id(operator) in decisions]


def _weighted_scheme(item: Weighted, style: Style, why: str) -> tuple[Scheme, str]:
    if item.kind in TABLES:
        if item.kind == "GATHER":
            return (
                "float",
                "GATHER has one scale a tensor, too coarse for a table; a table read by nn.Embedding gets one a row",
            )
        return "weight_row", "a look-up table: one scale a row, dequantized after the look-up"
    if item.kind == LSTM:
        return (
            "dynamic_row",
            "recurrent: int8 weights, the state stays floating point so that errors do not add up over time",
        )
    if item.kind == "FULLY_CONNECTED" and is_recurrent_product(item.name):
        return (
            "dynamic_row",
            "recurrent, one call a step: XNNPACK's products of int8 rows and weights; the state stays floating point, "
            "so that errors do not add up over time",
        )
    if not item.weights:
        return "float", "a product of two activations: int8 would need one scale for all of each, which costs accuracy"
    if item.kind not in PRODUCTS:
        return "float", f"{item.kind} has no int8 kernel for constant weights that LiteRT runs"
    if style == "static":
        return "static", why
    if item.kind == "FULLY_CONNECTED":
        return "dynamic_row", why
    return "dynamic_tensor", why


def _respect(patterns: tuple[str, ...], name: str, scheme: Scheme, reason: str) -> tuple[Scheme, str]:
    """Applies `--keep-float`: a pattern names the operator, its module, or a module above it."""
    parts = name.split("/")
    above = [parts[:end] for end in range(1, len(parts))]
    # A person writes modules with dots, the file has them with slashes.
    candidates = [name, *("/".join(path) for path in above), *(".".join(path) for path in above)]
    for pattern in patterns:
        if any(fnmatch.fnmatchcase(candidate, pattern) for candidate in candidates):
            return "float", f"--keep-float {pattern}"
    return scheme, reason


def _decision(name: str, item: Weighted, scheme: Scheme, reason: str) -> OpDecision:
    return OpDecision(
        op=name,
        kind=item.kind,
        scheme=scheme,
        reason=reason,
        macs=item.macs,
        weight_bytes=weight_bytes_fp32(item),
        touched_bytes=touched_bytes_fp32(item),
    )


def _touches(model: Model, subgraph: Any, operator: Any, int8_tensors: set[int]) -> bool:
    """Whether an operator reads int8 data and only float32 data (no masks, no indices)."""
    data = [
        int(index)
        for index in operator.inputs
        if int(index) >= 0 and not is_constant(model, subgraph.tensors[int(index)])
    ]
    if any(dtype_of(subgraph.tensors[index]) != "float32" for index in data):
        return False
    return any(index in int8_tensors for index in data)


def _pull_in_movers(
    subgraph: Any, steps: list[tuple[str, Any]], decisions: dict[int, OpDecision], signatures: list[str]
) -> None:
    """Movers in front of int8 operators move int8 too: a quarter of the bytes (the transpose of an NCHW input)."""
    readers: dict[int, list[Any]] = {}
    for _, operator in steps:
        for index in operator.inputs:
            readers.setdefault(int(index), []).append(operator)
    border = {int(index) for index in subgraph.outputs}
    for kind, operator in reversed(steps):
        if kind not in MOVING or id(operator) in decisions or len(operator.outputs) != 1:
            continue
        output = int(operator.outputs[0])
        followers = [decisions.get(id(reader)) for reader in readers.get(output, [])]
        if output in border or not followers:
            continue
        if all(follower is not None and follower.scheme in ("static", "follow") for follower in followers):
            name = tensor_key(text(subgraph.tensors[output].name), signatures)
            decision = OpDecision(op=name, kind=kind, scheme="follow", reason="feeds int8 operators only")
            decisions[id(operator)] = decision
