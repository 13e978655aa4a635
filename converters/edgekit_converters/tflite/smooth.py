"""Evens out the columns of activations before they are quantized a row at a time, so that one large column does not
take the resolution of all others (the idea of SmoothQuant, Xiao et al., arXiv 2211.10438, equation 4).

    before: u -> FULLY_CONNECTED(W)                      after: u -> MUL(1/s) -> FULLY_CONNECTED(W * s)
            u -> FULLY_CONNECTED(V)                                          -> FULLY_CONNECTED(V * s)

    s_j = sqrt(max |u_j| / max |W_j|)   over the calibration samples, and over the weights of all that read u

The product is the same in floating point. One multiplication of the activations is added, so it is done only where the
calibration rows show that it pays.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from edgekit_converters.recipe.types import Recipe
from edgekit_converters.tflite.calibrate import Rows
from edgekit_converters.tflite.flatbuffer import (
    Model,
    add_constant,
    add_tensor,
    data_of,
    main_subgraphs,
    opcode_index,
    operators,
    schema,
    shape_of,
    text,
)
from edgekit_converters.tflite.passes.names import tensor_key

WORTH_FIXING = 0.008  # relative error of a product from rounding its rows, below which nothing is gained
GAIN = 0.7  # the error must fall to this share or less


def readers(model: Model, recipe: Recipe) -> dict[str, list[tuple[Any, Any]]]:
    """Activations read by row-quantized operators: name without prefix -> (subgraph, operator), over all signatures."""
    signatures = [text(signature.signatureKey) for signature in model.signatureDefs or []]
    row_wise = {decision.op for decision in recipe.ops if decision.scheme == "dynamic_row"}
    found: dict[str, list[tuple[Any, Any]]] = {}
    for subgraph in main_subgraphs(model):
        for kind, operator in operators(model, subgraph):
            name = tensor_key(text(subgraph.tensors[int(operator.outputs[0])].name), signatures)
            source = tensor_key(text(subgraph.tensors[int(operator.inputs[0])].name), signatures)
            # The state inside an LSTM has no name: its values lie between -1 and 1, there is nothing to even out.
            if kind == "FULLY_CONNECTED" and name in row_wise and source:
                found.setdefault(source, []).append((subgraph, operator))
    return found


def plan(model: Model, recipe: Recipe, rows: Mapping[str, Rows]) -> dict[str, np.ndarray]:
    """Decides which activations to even out: name without prefix -> s, one number a column. Pure."""
    factors = {}
    for name, pairs in readers(model, recipe).items():
        seen = rows.get(name)
        found = [data_of(model, subgraph.tensors[int(operator.inputs[1])]) for subgraph, operator in pairs]
        weights = [weight for weight in found if weight is not None]
        # A factor that is cut to the request's length (Linformer's projection) has a width of its own in each rung.
        if seen is None or {weight.shape[1] for weight in weights} != {seen.sample.shape[-1]}:
            continue
        matrix = np.concatenate(weights)
        factor = np.sqrt(np.maximum(seen.column_max, 1e-5) / np.maximum(np.abs(matrix).max(axis=0), 1e-5))
        factor = np.clip(factor / np.exp(np.log(factor).mean()), 1 / 64, 64).astype(np.float32)
        before = product_error(seen.sample, matrix)
        after = product_error(seen.sample / factor, matrix * factor)
        if before > WORTH_FIXING and after < GAIN * before:
            factors[name] = factor
    return factors


def product_error(rows: np.ndarray, matrix: np.ndarray) -> float:
    """Relative error of `rows @ matrix.T` when rows and weights are rounded to int8 as the kernel does."""
    exact = rows @ matrix.T
    scale = np.maximum(np.abs(matrix).max(axis=1, keepdims=True), 1e-12) / 127
    rounded = _round_rows(rows) @ (np.round(matrix / scale) * scale).T
    return float(np.linalg.norm(rounded - exact) / max(float(np.linalg.norm(exact)), 1e-12))


def _round_rows(rows: np.ndarray) -> np.ndarray:
    low, high = np.minimum(rows.min(axis=1, keepdims=True), 0), np.maximum(rows.max(axis=1, keepdims=True), 0)
    scale = np.maximum(high - low, 1e-12) / 255
    zero = np.round(-low / scale)
    return (np.clip(np.round(rows / scale) + zero, 0, 255) - zero) * scale


def apply(model: Model, recipe: Recipe, factors: Mapping[str, np.ndarray]) -> None:
    """Inserts the multiplications and scales the weights, in place."""
    scaled: dict[tuple[int, str], int] = {}
    for name, pairs in readers(model, recipe).items():
        if name not in factors:
            continue
        for subgraph in main_subgraphs(model):
            own = [operator for holder, operator in pairs if holder is subgraph]
            if own:
                _insert(model, subgraph, own, factors[name], name, scaled)


def _insert(
    model: Model,
    subgraph: Any,
    own: Sequence[Any],
    factor: np.ndarray,
    name: str,
    scaled: dict[tuple[int, str], int],
) -> None:
    source = int(own[0].inputs[0])
    prefix = text(subgraph.tensors[source].name)
    smooth = add_tensor(model, subgraph, f"{prefix}.evened", shape_of(subgraph.tensors[source]))
    constant = add_constant(model, subgraph, f"{prefix}.evened.factor", (1 / factor).astype(np.float32))
    multiply = schema().OperatorT()
    multiply.opcodeIndex = opcode_index(model, "MUL")
    multiply.inputs, multiply.outputs = [source, constant], [smooth]
    multiply.builtinOptionsType = schema().BuiltinOptions.MulOptions
    multiply.builtinOptions = schema().MulOptionsT()
    first = min(index for index, operator in enumerate(subgraph.operators) if any(operator is one for one in own))
    subgraph.operators.insert(first, multiply)
    for operator in own:
        weight = subgraph.tensors[int(operator.inputs[1])]
        key = (int(weight.buffer), name)
        if key not in scaled:
            values = data_of(model, weight)
            assert values is not None
            buffer = schema().BufferT()
            buffer.data = np.frombuffer((values * factor).astype(np.float32).tobytes(), np.uint8)
            model.buffers.append(buffer)
            scaled[key] = len(model.buffers) - 1
        weight.buffer = scaled[key]
        operator.inputs = [smooth, *operator.inputs[1:]]
