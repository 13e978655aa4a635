"""Carries a Recipe out with ai-edge-quantizer; decides nothing.

static          min-max scales from calibration, int8 weights per channel      (static_wi8_ai8)
follow          the same for operators between them
dynamic_row     int8 weights per channel, activations quantized by the kernel  (dynamic_wi8_afp32)
dynamic_tensor  the same
weight_row      the same on EMBEDDING_LOOKUP, then `passes.split_table`: int8 rows with a scale each
                (UNIDIRECTIONAL_SEQUENCE_LSTM of a .tflite source: `passes.hybrid_lstm`, ai-edge-quantizer does not
                know it)
weight_channel  int8 weights per channel, a DEQUANTIZE in front that runs once, at load
float           untouched
"""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from edgekit_converters.quiet import quiet_native
from edgekit_converters.recipe.types import Recipe, Scheme
from edgekit_converters.tflite.calibrate import Range
from edgekit_converters.tflite.flatbuffer import Model, parse, serialize, text
from edgekit_converters.tflite.passes.hybrid_lstm import hybrid_lstm
from edgekit_converters.tflite.passes.names import tensor_key
from edgekit_converters.tflite.passes.split_table import split_tables
from edgekit_converters.tflite.passes.versions import raise_versions
from edgekit_converters.tflite.weighted import LSTM

_STATIC: tuple[Scheme, ...] = ("static", "follow")
_DYNAMIC: tuple[Scheme, ...] = ("dynamic_row", "dynamic_tensor", "weight_row")
_STORED: tuple[Scheme, ...] = ("weight_channel",)
_AEQ_NAMES = {"TRANSPOSE_CONV": "CONV_2D_TRANSPOSE"}
_ALGORITHM = "min_max_uniform_quantize"
_NUMBER = re.compile(r"~\d+\.\d+~")


def quantize(model: Model, recipe: Recipe, ranges: Mapping[str, Range]) -> Model:
    """Returns the quantized form of an fp32 model, which may be changed.

    Inputs and outputs of the graph keep their dtypes; QUANTIZE and DEQUANTIZE stand behind them.

    Args:
        model: The fp32 model.
        recipe: Decisions by operator name without signature prefix.
        ranges: Activation ranges by tensor name without signature prefix; needed for `static`.
    """
    signatures = [text(signature.signatureKey) for signature in model.signatureDefs or []]
    recurrent = {decision.op for decision in recipe.ops if decision.kind == LSTM and decision.scheme == "dynamic_row"}
    rules = quantizer_rules(recipe, signatures)
    if rules:
        model = _run_quantizer(model, rules, ranges, signatures)
    hybrid_lstm(model, recurrent, signatures, asymmetric=True)
    split_tables(model)
    raise_versions(model)
    return model


def halve(model: Model) -> Model:
    """Weights in half precision, with a DEQUANTIZE in front that runs once, at load; arithmetic is the device's own.

    Args:
        model: The fp32 model; may be changed.
    """
    half = {"num_bits": 16, "dtype": "FLOAT"}
    config = {"weight_tensor_config": half, "compute_precision": "FLOAT", "explicit_dequantize": True}
    rule = {"regex": ".*", "operation": "*", "algorithm_key": "float_casting", "op_config": config}
    halved = _run_quantizer(model, [rule], {}, [])
    raise_versions(halved)
    return halved


def _run_quantizer(
    model: Model, rules: list[dict[str, Any]], ranges: Mapping[str, Range], signatures: Sequence[str]
) -> Model:
    from ai_edge_quantizer.quantizer import Quantizer

    _number_tensors(model)
    statistics = _statistics(model, ranges, signatures) if any(_is_static(rule) for rule in rules) else None
    with quiet_native():
        quantizer = Quantizer(bytearray(serialize(model)), rules)
        result = quantizer.quantize(statistics, enable_progress_bar=False, enable_progress_report=False)
    quantized = parse(bytes(result.quantized_model), "the quantized model")
    _drop_numbers(quantized)
    return quantized


def _number_tensors(model: Model) -> None:
    """Tells tensors of one name, or of none, apart: ai-edge-quantizer knows a tensor by its name (in place)."""
    counts = Counter(text(tensor.name) for subgraph in model.subgraphs for tensor in subgraph.tensors)
    for number, subgraph in enumerate(model.subgraphs):
        for index, tensor in enumerate(subgraph.tensors):
            name = text(tensor.name)
            if not name or counts[name] > 1:
                tensor.name = f"{name}~{number}.{index}~".encode()


def _drop_numbers(model: Model) -> None:
    for subgraph in model.subgraphs:
        for tensor in subgraph.tensors:
            tensor.name = _NUMBER.sub("", text(tensor.name)).encode()


def quantizer_rules(recipe: Recipe, signatures: Sequence[str]) -> list[dict[str, Any]]:
    """The recipe in ai-edge-quantizer's form: one rule a kind where its operators agree, else one an operator."""
    by_kind: dict[str, dict[str, Scheme]] = defaultdict(dict)
    for decision in recipe.ops:
        if decision.kind != LSTM:
            by_kind[decision.kind][decision.op] = decision.scheme
    rules = []
    for kind, schemes in by_kind.items():
        complete = set(schemes.values()) & {*_DYNAMIC, *_STORED}
        if len(set(schemes.values())) == 1 and complete:
            # Every operator of a weighted kind is in the recipe, so one rule may stand for all of them.
            rules.append(_rule(".*", kind, next(iter(schemes.values()))))
            continue
        for name, scheme in schemes.items():
            if scheme in (*_STATIC, *_DYNAMIC, *_STORED):
                rules.append(_rule(_exactly(name, signatures), kind, scheme))
    return rules


def _exactly(name: str, signatures: Sequence[str]) -> str:
    prefix = f"(?:(?:{'|'.join(map(re.escape, signatures))})/)?" if signatures else ""
    return f"^{prefix}{re.escape(name)}(?:{_NUMBER.pattern})?;"


def _rule(regex: str, kind: str, scheme: Scheme) -> dict[str, Any]:
    weights = {"num_bits": 8, "symmetric": True, "granularity": "CHANNELWISE", "dtype": "INT"}
    config: dict[str, Any] = {
        "weight_tensor_config": weights,
        "compute_precision": "FLOAT" if scheme in _STORED else "INTEGER",
        "explicit_dequantize": scheme in _STORED,
    }
    if scheme in _STATIC:
        config["activation_tensor_config"] = {
            "num_bits": 8,
            "symmetric": False,
            "granularity": "TENSORWISE",
            "dtype": "INT",
        }
    return {
        "regex": regex,
        "operation": _AEQ_NAMES.get(kind, kind),
        "algorithm_key": _ALGORITHM,
        "op_config": config,
    }


def _is_static(rule: Mapping[str, Any]) -> bool:
    return "activation_tensor_config" in rule["op_config"]


def _statistics(model: Model, ranges: Mapping[str, Range], signatures: Sequence[str]) -> dict[str, Any]:
    found = {}
    for subgraph in model.subgraphs:
        for tensor in subgraph.tensors:
            name = text(tensor.name)
            seen = ranges.get(tensor_key(_NUMBER.sub("", name), signatures))
            if seen is not None:
                found[name] = {"min": np.array([[seen.low]], np.float32), "max": np.array([[seen.high]], np.float32)}
    return found
