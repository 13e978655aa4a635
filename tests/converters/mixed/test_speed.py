from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path

import msgspec
import numpy as np
import pytest

from edgekit_converters.draft import Draft
from edgekit_converters.mixed.costs import Duel
from edgekit_converters.mixed.speed import duel_of, families, faster, not_slower, slower
from edgekit_converters.promise import FOR_SPEED
from edgekit_converters.recipe.types import Given, OpDecision, Recipe

# What each operator takes in ms, in fp32 and in int8.
COSTS = {"small": (0.1, 0.3), "large": (1.0, 0.6), "table": (0.1, 0.1)}


def operator(name: str, kind: str, scheme: str, macs: int) -> OpDecision:
    return OpDecision(op=name, kind=kind, scheme=scheme, reason="r", macs=macs, weight_bytes=400)  # type: ignore[arg-type]


OPS = (
    operator("table", "Gather", "weight_row", 0),
    operator("small", "Gemm", "dynamic_row", 1_000),
    operator("large", "Conv", "static", 1_000_000),
)
FP32 = Draft("onnx", "fp32", Path("fp32.onnx"), (), (), "onnxruntime", "1.18")
INT8 = dataclasses.replace(FP32, precision="int8", recipe=Recipe(format="onnx", precision="int8", ops=OPS))


def make(given: Given) -> Draft:
    ops = tuple(
        msgspec.structs.replace(op, scheme=given[op.op][0], reason=given[op.op][1]) if op.op in given else op
        for op in OPS
    )
    return dataclasses.replace(INT8, recipe=Recipe(format="onnx", precision="int8", ops=ops))


def duel(costs: dict[str, tuple[float, float]]) -> Callable[[Draft, Draft], Duel]:
    def ms(draft: Draft) -> float:
        if draft.recipe is None:
            return sum(float_ms for float_ms, _ in costs.values())
        fast = ("static", "dynamic_row", "weight_row")
        return sum(costs[op.op][1 if op.scheme in fast else 0] for op in draft.recipe.ops)

    def run(before: Draft, after: Draft) -> Duel:
        ratio = ms(before) / ms(after)
        return Duel(before_ms=ms(before), after_ms=ms(after), ratio=ratio, interval_95=(ratio * 0.99, ratio * 1.01))

    return run


def schemes(draft: Draft | None) -> dict[str, str]:
    assert draft is not None and draft.recipe is not None
    return {op.op: op.scheme for op in draft.recipe.ops}


def test_an_operator_whose_int8_form_does_not_pay_goes_back_and_says_so() -> None:
    draft, why = not_slower(FP32, INT8, {}, make, duel(COSTS), lambda line: None)
    assert schemes(draft) == {"table": "weight_row", "small": "weight_channel", "large": "static"}
    assert "faster than fp32" in why and "given back for speed" in why
    assert draft is not None and draft.recipe is not None
    assert FOR_SPEED in next(op.reason for op in draft.recipe.ops if op.op == "small")


def test_no_search_where_int8_gains_half_or_more() -> None:
    costs = {**COSTS, "small": (0.1, 0.11), "large": (3.0, 0.6)}
    draft, why = not_slower(FP32, INT8, {}, make, duel(costs), lambda line: None)
    assert draft is INT8 and "faster than fp32" in why


def test_where_no_int8_form_pays_the_arithmetic_is_fp32_and_the_weights_stay_int8() -> None:
    costs = {"small": (0.1, 0.11), "large": (1.0, 1.3), "table": (0.1, 0.1)}
    draft, _ = not_slower(FP32, INT8, {}, make, duel(costs), lambda line: None)
    assert schemes(draft)["large"] == "weight_channel"


def test_a_table_that_is_slower_than_everything_gains_leaves_fp32_alone() -> None:
    costs = {"small": (0.1, 0.2), "large": (1.0, 1.3), "table": (0.1, 0.9)}
    draft, why = not_slower(FP32, INT8, {}, make, duel(costs), lambda line: None)
    assert draft is None and "slower than fp32 in every form" in why


@pytest.mark.parametrize("ms", [0.002, 0.02])
def test_a_difference_below_the_floor_decides_nothing(ms: float) -> None:
    told = Duel(before_ms=ms, after_ms=ms / 1.4, ratio=1.4, interval_95=(1.3, 1.5))
    assert not faster(told) and not slower(told)


def test_a_doubtful_difference_decides_nothing() -> None:
    told = Duel(before_ms=1.0, after_ms=1.2, ratio=0.83, interval_95=(0.6, 1.1))
    assert not slower(told)
    assert slower(Duel(before_ms=1.0, after_ms=1.2, ratio=0.83, interval_95=(0.8, 0.86)))


def test_the_interval_holds_the_ratio_of_medians() -> None:
    rng = np.random.default_rng(0)
    before, after = rng.gamma(9, 0.2, 200), rng.gamma(9, 0.1, 200)
    told = duel_of(before.tolist(), after.tolist())
    assert told.interval_95[0] < told.ratio < told.interval_95[1]
    assert told.ratio == pytest.approx(2.0, rel=0.15)  # 200 samples: the spread of a median is about 3 %


def test_families_are_like_operators_with_the_cheapest_first() -> None:
    ops = (*OPS, operator("large2", "Conv", "static", 1_200_000), operator("odd", "Einsum", "static", 10))
    found = families(Recipe(format="onnx", precision="int8", ops=ops))
    assert found == [["small"], ["large", "large2"]]
