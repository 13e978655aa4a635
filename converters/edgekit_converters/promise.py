"""What a recipe promises before anything is converted: shares of int8, and what stands against the rest. Pure.

Shares are counted as `coverage` counts the finished file: an int8 weight is one byte, a float one four.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

from edgekit_converters.recipe.types import OpDecision, Recipe
from edgekit_runtime.manifest import Base, Graph

Severity = Literal["error", "warning", "info"]

FOR_SPEED = "given back for speed"
COMPUTES = frozenset({"static", "dynamic_row", "dynamic_tensor"})
STORES = COMPUTES | {"weight_row", "weight_channel"}
# A float operator below this share of weights and MACs changes neither size nor speed.
MATTERS = 0.02
# Promise and file are counted by different means; a smaller difference says nothing.
TOLERANCE = 0.02

_REMEDIES: tuple[tuple[str, str], ...] = (
    ("--keep-float", "leave --keep-float out for it"),
    ("computed at run time (attention)", "nothing: the projections around it become int8"),
    ("a product of two activations", "nothing: the projections around it become int8"),
    ("computed at run time", "make the weights constants of the module (nn.Parameter), not results of forward"),
    ("no table of rows", "use nn.Embedding for look-ups"),
    ("GATHER has one scale", "use nn.Embedding for look-ups"),
    ("weights: quantizing each row", "nothing: it is too small to matter"),
    ("values: scales and look-up", "nothing: it is too small to matter"),
    ("element-wise parameter", "nothing: it multiplies no matrix"),
    ("scaled or transposed Gemm", "write it as nn.Linear"),
    ("batch-first layout", "export with torch's nn.LSTM, whatever its batch_first"),
)
_OTHERWISE = "nothing needed: it stays in floating point; or write it with Linear, Conv, Embedding or LSTM layers"


class Finding(Base, frozen=True, kw_only=True):
    """One thing a person should know before converting.

    Attributes:
        severity: `error`: the format cannot be had; `warning`: costs size or speed that matters; `info`: costs none.
        op: Operator in the format's words, empty where it is about the whole student.
        where: `file.py:line` in the student's source; empty where the exporter does not tell.
    """

    severity: Severity
    op: str
    where: str
    reason: str
    remedy: str


class FormatCheck(Base, frozen=True, kw_only=True):
    """What one format will make of a student."""

    convertible: bool
    int8_macs_fraction: float = 0.0
    int8_weight_bytes_fraction: float = 0.0
    findings: tuple[Finding, ...] = ()


def shares(recipe: Recipe) -> tuple[float, float]:
    """(share of weight bytes in int8, share of MACs in int8) that a recipe leads to; 0.0 where there are none."""
    int8 = sum(op.weight_bytes / 4 for op in recipe.ops if op.scheme in STORES)
    floats = sum(op.weight_bytes for op in recipe.ops if op.scheme not in STORES)
    computed = sum(op.macs for op in recipe.ops if op.scheme in COMPUTES)
    macs = sum(op.macs for op in recipe.ops)
    return (int8 / (int8 + floats) if int8 + floats else 0.0), (computed / macs if macs else 0.0)


def check_recipe(recipe: Recipe, wheres: Mapping[str, str] | None = None) -> FormatCheck:
    """What a recipe promises, with a finding for every operator that stays in floating point.

    Args:
        recipe: From the format's `resolve`.
        wheres: `file.py:line` by operator, where the recipe itself does not tell.
    """
    weights, macs = shares(recipe)
    all_bytes = sum(op.weight_bytes for op in recipe.ops) or 1
    all_macs = sum(op.macs for op in recipe.ops) or 1
    findings = []
    for op in recipe.ops:
        if op.scheme != "float" and not (op.scheme == "weight_channel" and op.macs):
            continue
        share = max(op.weight_bytes / all_bytes if op.scheme == "float" else 0.0, op.macs / all_macs)
        told = f"{op.reason} ({op.weight_bytes / all_bytes:.0%} of weight bytes, {op.macs / all_macs:.0%} of MACs)"
        findings.append(
            Finding(
                severity="warning" if share >= MATTERS else "info",
                op=op.op if op.op.endswith(op.kind) else f"{op.op} ({op.kind})",
                where=op.where or (wheres or {}).get(op.op, ""),
                reason=told,
                remedy=remedy(op),
            )
        )
    order = {"warning": 0, "info": 1}
    return FormatCheck(
        convertible=True,
        int8_macs_fraction=macs,
        int8_weight_bytes_fraction=weights,
        findings=tuple(sorted(findings, key=lambda finding: order[finding.severity])),
    )


def remedy(op: OpDecision) -> str:
    """What a person can do about an operator that stays in floating point."""
    return next((text for key, text in _REMEDIES if key in op.reason), _OTHERWISE)


def back_for_speed(recipe: Recipe) -> tuple[float, float]:
    """(share of fp32 weight bytes left in fp32, share of MACs) of operators that were given back for speed."""
    back = [op for op in recipe.ops if FOR_SPEED in op.reason]
    floats = sum(op.weight_bytes for op in back if op.scheme not in STORES)
    all_bytes, all_macs = sum(op.weight_bytes for op in recipe.ops), sum(op.macs for op in recipe.ops)
    macs = sum(op.macs for op in back)
    return (floats / all_bytes if all_bytes else 0.0), (macs / all_macs if all_macs else 0.0)


def broken(graph: Graph) -> tuple[str, ...]:
    """Where a finished graph keeps less than its recipe promised, a line each; empty when it keeps its word."""
    seen = (
        (
            "weight bytes are int8",
            graph.promised_int8_weight_bytes_fraction,
            graph.int8_weight_bytes_fraction,
        ),
        ("MACs run in int8", graph.promised_int8_macs_fraction, graph.executed_int8_macs_fraction),
    )
    return tuple(
        f"promised {wanted:.1%} of {what}, got {got:.1%}" for what, wanted, got in seen if got < wanted - TOLERANCE
    )
