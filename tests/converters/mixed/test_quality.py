from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path

from hypothesis import given as drawn
from hypothesis import strategies as st

from edgekit_converters.draft import Draft
from edgekit_converters.mixed.quality import GIVEN_BACK, Passed, fewest, pass_gate, search, steps, sure
from edgekit_converters.recipe.types import Given, OpDecision, Recipe
from edgekit_runtime.manifest import Quality

LIMIT = (0.01, False)


def operator(name: str, scheme: str = "static", kind: str = "Conv", weight_bytes: int = 400) -> OpDecision:
    return OpDecision(op=name, kind=kind, scheme=scheme, reason="r", macs=100, weight_bytes=weight_bytes)  # type: ignore[arg-type]


def recipe(*ops: OpDecision) -> Recipe:
    return Recipe(format="onnx", precision="int8", ops=ops)


FOUR = recipe(*(operator(name) for name in "abcd"), operator("table", "weight_row", "Gather", 40_000))
NOISE = {"a": 0.001, "b": 0.1, "c": 0.01, "d": 0.0001, "table": 0.00001}
DRAFT = Draft("onnx", "int8", Path("int8.onnx"), (), (), "onnxruntime", "1.18", recipe=FOUR)


def quality(drop: float, high: float | None = None, group: str = "all") -> Quality:
    return Quality(
        graph="onnx.int8",
        slice=group,
        metric="top1",
        higher_is_better=True,
        reference=0.9,
        value=0.9 - drop,
        drop=drop,
        interval_95=(0.0, drop + 0.02 if high is None else high),
        n=200,
        labels=True,
        gate="passed" if drop <= 0.01 else "failed",
        reason="r",
    )


class Bench:
    """Quantizes in name only; an operator costs accuracy while it computes in int8."""

    def __init__(self, costs: dict[str, float]) -> None:
        self.costs, self.tries, self.ranked = costs, 0, 0

    def make(self, given: Given) -> Draft:
        self.tries += 1
        ops = tuple(
            operator(op.op, given[op.op][0], op.kind, op.weight_bytes) if op.op in given else op for op in FOUR.ops
        )
        return dataclasses.replace(DRAFT, recipe=recipe(*ops))

    def judge(self, draft: Draft) -> tuple[Quality, ...]:
        assert draft.recipe is not None
        return (quality(sum(self.costs.get(op.op, 0.0) for op in draft.recipe.ops if op.scheme == "static")),)

    def rank(self) -> dict[str, float]:
        self.ranked += 1
        return NOISE

    def run(self) -> Passed:
        return pass_gate(DRAFT, self.make, self.judge, self.rank, LIMIT, lambda line: None)


def test_a_graph_that_passes_is_left_alone_and_nothing_is_ranked() -> None:
    bench = Bench({"b": 0.009})
    assert bench.run() == Passed(DRAFT, (quality(0.009),), {})
    assert (bench.tries, bench.ranked) == (0, 0)


def test_only_the_noisiest_goes_back_when_that_is_enough() -> None:
    bench = Bench({"b": 0.05})
    found = bench.run()
    assert list(found.given) == ["b"] and found.given["b"][0] == "weight_channel"
    assert GIVEN_BACK in found.given["b"][1] and "10 dB" in found.given["b"][1]


def test_the_fewest_that_pass_are_found_by_halving() -> None:
    found = Bench({"b": 0.05, "c": 0.05, "a": 0.05}).run()
    assert list(found.given) == ["b", "c", "a"] and found.passes


def test_a_drop_close_to_the_limit_is_taken_only_when_no_step_does_better() -> None:
    assert list(Bench({"b": 0.05, "c": 0.008}).run().given) == ["b", "c"]
    stuck = Bench({"b": 0.05, "table": 0.0})
    stuck.judge = lambda draft: (quality(0.05 if draft is DRAFT else 0.009),)  # type: ignore[method-assign]
    assert list(stuck.run().given) == ["b"]


def test_nothing_that_passes_leaves_the_first_draft_with_its_reason() -> None:
    bench = Bench({})
    bench.judge = lambda draft: (quality(0.5),)  # type: ignore[method-assign]
    found = bench.run()
    assert found.draft is DRAFT and not found.passes


def test_a_hopeless_graph_costs_two_tries_however_many_operators_it_has() -> None:
    many = recipe(*(operator(f"op{n:03}") for n in range(200)), operator("table", "weight_row", "Gather", 400_000))
    tried: list[Given] = []
    lines: list[str] = []

    def make(given: Given) -> Draft:
        tried.append(given)
        return DRAFT

    found = pass_gate(
        dataclasses.replace(DRAFT, recipe=many), make, lambda draft: (quality(0.5),), dict, LIMIT, lines.append
    )
    assert not found.passes and [len(given) for given in tried] == [200, 200]
    assert {scheme for scheme, _ in tried[0].values()} == {"weight_channel"}
    assert {scheme for scheme, _ in tried[1].values()} == {"float"}
    assert "no int8 graph passes the gate" in lines[-1]


@drawn(st.integers(-1, 20), st.integers(1, 60), st.integers(0, 60))
def test_the_fewest_are_found_in_few_tries(failing: int, span: int, answer: int) -> None:
    most = failing + span
    wanted = min(most, failing + 1 + answer)
    asked: list[int] = []

    def good(step: int) -> bool:
        asked.append(step)
        return step >= wanted

    assert fewest(good, failing, most) == wanted
    assert len(asked) <= 2 * span.bit_length()
    assert all(failing < step < most for step in asked)


def test_the_table_that_holds_the_bytes_is_never_given_back() -> None:
    assert all("table" not in given for given in steps(FOUR, NOISE))


def test_a_product_of_looked_up_rows_has_no_weights_to_store_and_becomes_float() -> None:
    found = steps(recipe(operator("sum", "dynamic_row", "MatMul", 0), operator("fc", "dynamic_row", "MatMul")), {})
    assert {name: scheme for name, (scheme, _) in found[1].items()} == {"sum": "float", "fc": "weight_channel"}


def test_a_failing_group_is_not_sure_whatever_the_whole_says() -> None:
    assert sure((quality(0.0, 0.0),), LIMIT)
    assert not sure((quality(0.0, 0.0), quality(0.2, group="dark")), LIMIT)


def test_half_of_the_allowance_or_an_interval_within_it_is_sure() -> None:
    assert sure((quality(0.005, 0.03),), LIMIT) and sure((quality(0.009, 0.01),), LIMIT)
    assert not sure((quality(0.006, 0.03),), LIMIT)


@drawn(st.dictionaries(st.sampled_from("abcd"), st.floats(0, 1), max_size=4))
def test_every_step_goes_one_further_than_the_one_before(noise: dict[str, float]) -> None:
    found: Sequence[Given] = steps(FOUR, noise)
    order = {"weight_channel": 1, "float": 2}
    depth = [sum(order[scheme] for scheme, _ in given.values()) for given in found]
    assert depth == list(range(1, len(found) + 1))


def test_the_search_asks_only_about_steps_and_gives_back_least() -> None:
    asked: list[int] = []

    def passes(step: int) -> bool:
        asked.append(step)
        return step >= 11

    assert search((7, 19), passes, passes) == 11
    assert search((7, 19), lambda step: False, lambda step: True) is None
    assert search((), passes, passes) is None
    assert max(asked) == 19


def test_where_the_furthest_step_is_not_sure_an_allowed_drop_is_enough() -> None:
    assert search((9,), lambda step: step >= 4, lambda step: False) == 4
    assert search((9,), lambda step: step >= 4, lambda step: step >= 6) == 6


def test_less_arithmetic_may_pass_where_all_of_it_fails_by_a_near_tie() -> None:
    assert search((7, 19), lambda step: step in (3, 19), lambda step: step in (3, 19)) == 3
