from __future__ import annotations

import itertools

from hypothesis import given, settings
from hypothesis import strategies as st

from edgekit_converters.cut.flow import Flow, Place, Step, copied, nested, places, trunk, undominated


@st.composite
def flows(draw: st.DrawFn) -> Flow:
    """Random graphs: steps that read earlier tensors or inputs, with weights or without."""
    inputs = ("in0", "in1")
    made: list[str] = list(inputs)
    steps = []
    for number in range(draw(st.integers(1, 7))):
        read = draw(st.lists(st.sampled_from(made), min_size=1, max_size=3, unique=True))
        outputs = tuple(f"t{number}.{i}" for i in range(draw(st.integers(1, 2))))
        fixed = draw(st.booleans())
        steps.append(
            Step(f"s{number}", tuple(read), outputs, macs=draw(st.integers(0, 3)) if fixed else 0, fixed=fixed)
        )
        made += outputs
    outputs = tuple(draw(st.lists(st.sampled_from(made[2:]), min_size=1, max_size=2, unique=True)))
    return Flow(tuple(steps), inputs, outputs, {name: draw(st.integers(1, 50)) for name in made})


def brute_force(flow: Flow) -> dict[frozenset[str], tuple[str, ...]]:
    """Every set of steps that holds what its steps need, and what crosses there."""
    light = copied(flow)
    steps = [step for step in flow.steps if step.name not in light]
    maker = {name: step.name for step in steps for name in step.outputs}
    found = {}
    for count in range(1, len(steps)):
        for chosen in itertools.combinations(steps, count):
            names = {step.name for step in chosen}
            if any(maker[r] not in names for step in chosen for r in step.inputs if r in maker):
                continue
            later = {r for step in steps if step.name not in names for r in step.inputs}
            crossing = tuple(name for step in chosen for name in step.outputs if name in later)
            early = [name for name in flow.outputs if maker.get(name) in names]
            if crossing and not early:
                found[frozenset(names)] = crossing
    return found


@settings(max_examples=150, deadline=None)
@given(flows())
def test_every_place_with_one_or_two_tensors_is_found_and_each_is_a_cut(flow: Flow) -> None:
    every = brute_force(flow)
    legal = {place.steps_before: place.tensors for place in places(flow) if not place.reason}
    assert all(every[before] == tensors for before, tensors in legal.items())
    fewest: dict[frozenset[str], frozenset[str]] = {}
    for before, tensors in every.items():
        # Steps whose results nobody needs may lie on either side: the smallest set with these tensors stands for all.
        key = frozenset(tensors)
        if len(tensors) <= 2 and (key not in fewest or before < fewest[key]):
            fewest[key] = before
    assert set(fewest) <= {frozenset(tensors) for tensors in legal.values()}


@settings(max_examples=150, deadline=None)
@given(flows())
def test_the_inputs_of_a_tail_are_those_that_its_steps_and_the_copied_steps_read(flow: Flow) -> None:
    light = copied(flow)
    makers = {name: step for step in flow.steps for name in step.outputs}
    for place in places(flow):
        stack = [n for s in flow.steps if s.name not in light and s.name not in place.steps_before for n in s.inputs]
        stack += [name for name in flow.outputs if makers[name].name in light]  # the tail gives every answer
        read: set[str] = set()
        while stack:
            name = stack.pop()
            if name in flow.inputs:
                read.add(name)
            elif makers[name].name in light:
                stack += makers[name].inputs
        assert set(place.tail_inputs) == read
        assert place.bytes == sum(flow.bytes[name] for name in (*place.tensors, *place.tail_inputs))


@settings(max_examples=100, deadline=None)
@given(flows())
def test_work_before_and_after_is_all_the_work(flow: Flow) -> None:
    total = sum(step.macs for step in flow.steps)
    assert all(place.macs_before + place.macs_after == total for place in places(flow))


@settings(max_examples=100, deadline=None)
@given(flows())
def test_what_is_dropped_has_a_reason_and_what_stays_is_not_beaten(flow: Flow) -> None:
    found = places(flow)
    kept, rest = undominated(flow, found)
    assert len(kept) + len(rest) == len(found)
    assert all(place.reason for place in rest)
    working = [place for place in kept if place.macs_before and place.macs_after]
    for place, other in itertools.permutations(working, 2):
        assert not (other.bytes < place.bytes and other.macs_before <= place.macs_before)


@settings(max_examples=100, deadline=None)
@given(flows())
def test_a_chain_of_places_never_goes_back(flow: Flow) -> None:
    series = nested([place for place in places(flow) if not place.reason])
    assert all(a.steps_before < b.steps_before for a, b in itertools.pairwise(series))


def residual() -> Flow:
    return Flow(
        steps=(
            Step("stem", ("image",), ("a",), 10, True),
            Step("conv1", ("a",), ("b",), 20, True),
            Step("conv2", ("b",), ("c",), 20, True),
            Step("add", ("a", "c"), ("d",)),
            Step("head", ("d",), ("logits",), 5, True),
        ),
        inputs=("image",),
        outputs=("logits",),
        bytes={"image": 48, "a": 16, "b": 16, "c": 16, "d": 16, "logits": 4},
    )


def test_inside_a_residual_block_both_branches_cross_and_the_block_s_input_is_better() -> None:
    found = {place.tensors: place for place in places(residual())}
    assert {("a",), ("a", "b"), ("a", "c"), ("d",)} <= set(found)
    kept, rest = undominated(residual(), places(residual()))
    assert [place.tensors for place in kept] == [("a",), ("d",)]
    assert "16 bytes" in next(place.reason for place in rest if place.tensors == ("a", "b"))


def test_a_mask_computed_from_the_inputs_is_copied_into_the_tail_and_its_input_billed() -> None:
    flow = Flow(
        steps=(
            Step("table", ("ids",), ("x",), 0, True),
            Step("mask", ("ids",), ("m",)),
            Step("layer0", ("x", "m"), ("y",), 10, True),
            Step("layer1", ("y", "m"), ("z",), 10, True),
        ),
        inputs=("ids",),
        outputs=("z",),
        bytes={"ids": 8, "x": 100, "m": 8, "y": 100, "z": 2},
    )
    assert copied(flow) == {"mask"}
    place = next(place for place in places(flow) if place.tensors == ("y",))
    assert (place.tail_inputs, place.bytes, place.reason) == (("ids",), 108, "")


def test_more_than_three_tensors_are_no_split_point_and_the_reason_names_them() -> None:
    branches = [Step(f"q{i}", ("x",), (f"v{i}",), 1, True) for i in range(4)]
    steps = (
        Step("stem", ("image",), ("x",), 1, True),
        *branches,
        Step("sum", ("v0", "v1", "v2", "v3"), ("y",), 1, True),
    )
    flow = Flow(steps, ("image",), ("y",), dict.fromkeys(("image", "x", "v0", "v1", "v2", "v3", "y"), 1))
    illegal = [place for place in places(flow) if place.illegal]
    assert any("at most 3" in place.reason and "v0" in place.reason for place in illegal)


def test_the_trunk_leaves_out_what_leads_to_other_answers() -> None:
    flow = residual()
    side = Step("early", ("d",), ("e",), 1, True)
    both = Flow((*flow.steps, side), flow.inputs, ("e", "logits"), {**flow.bytes, "e": 4})
    assert [step.name for step in trunk(both, "logits").steps] == ["stem", "conv1", "conv2", "add", "head"]


def test_a_closed_tensor_is_no_split_point() -> None:
    flow = residual()
    shut = Flow(flow.steps, flow.inputs, flow.outputs, flow.bytes, {"d": "strings cannot be sent"})
    found = next(place for place in places(shut) if place.tensors == ("d",))
    assert isinstance(found, Place) and "strings" in found.reason


def test_an_answer_made_of_inputs_alone_is_the_tails_and_the_tail_needs_these_inputs() -> None:
    steps = (
        Step("mean", ("in0",), ("side",), macs=0, fixed=False),
        Step("a", ("in1",), ("x",), macs=5, fixed=True),
        Step("b", ("x",), ("y",), macs=5, fixed=True),
    )
    flow = Flow(steps, ("in0", "in1"), ("y", "side"), {"in0": 3, "in1": 3, "x": 7, "y": 2, "side": 1})
    (place,) = (place for place in places(flow) if not place.reason)
    assert (place.tensors, place.tail_inputs, place.bytes) == (("x",), ("in0",), 7 + 3)
