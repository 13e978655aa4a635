from __future__ import annotations

import pytest

from edgekit_converters.promise import back_for_speed, broken, check_recipe, shares
from edgekit_converters.recipe.types import OpDecision, Recipe
from edgekit_runtime.manifest import Graph


def operator(name: str, scheme: str, macs: int = 0, weight_bytes: int = 0, reason: str = "r") -> OpDecision:
    return OpDecision(op=name, kind="Conv", scheme=scheme, reason=reason, macs=macs, weight_bytes=weight_bytes)  # type: ignore[arg-type]


def recipe(*ops: OpDecision) -> Recipe:
    return Recipe(format="onnx", precision="int8", ops=ops)


MIXED = recipe(
    operator("table", "weight_row", 0, 4000),
    operator("a", "static", 600, 400),
    operator("b", "weight_channel", 300, 400),
    operator("c", "float", 100, 400, "both factors are computed at run time (attention): fp32 is as fast"),
)


def test_shares_count_an_int8_weight_as_one_byte_and_a_float_one_as_four() -> None:
    weights, macs = shares(MIXED)
    assert weights == pytest.approx(1200 / 1600)
    assert macs == pytest.approx(0.6)


def test_shares_of_nothing_are_zero() -> None:
    assert shares(recipe()) == (0.0, 0.0)


def test_every_operator_that_stays_float_is_a_finding_with_reason_and_way_out() -> None:
    found = check_recipe(MIXED, {"c": "student.py:7"})
    assert [f.op for f in found.findings] == ["b (Conv)", "c (Conv)"]
    assert found.findings[1].where == "student.py:7" and "nothing" in found.findings[1].remedy
    assert all(f.severity == "warning" and f.reason and f.remedy for f in found.findings)


def test_what_hardly_weighs_is_told_but_does_not_warn() -> None:
    found = check_recipe(recipe(operator("a", "static", 1000, 1000), operator("c", "float", 1, 4)))
    assert [f.severity for f in found.findings] == ["info"]


def test_a_file_that_keeps_less_than_promised_is_named_and_one_that_keeps_it_is_not() -> None:
    graph = Graph(
        id="onnx.int8",
        format="onnx",
        precision="int8",
        path="p",
        bytes=1,
        sha256="0",
        inputs=(),
        outputs=(),
        engine="onnxruntime",
        min_engine_version="1.18",
        promised_int8_weight_bytes_fraction=1.0,
        promised_int8_macs_fraction=0.9,
        int8_weight_bytes_fraction=0.99,
        executed_int8_macs_fraction=0.5,
    )
    assert broken(graph) == ("promised 90.0% of MACs run in int8, got 50.0%",)


def test_what_was_given_back_for_speed_is_counted_apart() -> None:
    given = recipe(
        operator("a", "static", 700, 400), operator("b", "weight_channel", 300, 400, "given back for speed: x")
    )
    assert back_for_speed(given) == (0.0, 0.3)
