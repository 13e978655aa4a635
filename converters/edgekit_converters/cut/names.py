"""Names of places: the module of the student that ends there, the same in every format and precision.

A step is called `layer1.0.conv1/Conv` in the fp32 ONNX graph. A place is called after the largest module whose steps
all lie before it and that holds the last step before it: `layer1.0`, `layer1`, `bert.encoder.layer.3`. Graphs that have
lost these names (int8, TFLite) take the name of the fp32 place with the same share of the MACs before it and as many
tensors crossing.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Collection, Sequence

from edgekit_converters.cut.flow import Flow, Place, copied

# How far the shares of MACs before two places may differ to count as the same place: formats count a padded convolution
# differently, and the rung of a ladder is longer than the example.
_SAME_MACS = 0.015


def named(flow: Flow, places: Sequence[Place], taken: Collection[str] = ()) -> tuple[Place, ...]:
    """The places of a graph whose steps carry module paths, each with a name that no other one has.

    Args:
        flow: The graph.
        places: Its places in order of depth.
        taken: Names that are given already.
    """
    modules: dict[str, set[str]] = {}
    light = copied(flow)  # shapes and masks of one module serve others too: they do not tell where it ends
    for step in flow.steps:
        if step.name in light:
            continue
        for module in _modules(step.name):
            modules.setdefault(module, set()).add(step.name)
    order = {step.name: index for index, step in enumerate(flow.steps)}
    return unique([_name(place, modules, order) for place in places], taken)


def _name(place: Place, modules: dict[str, set[str]], order: dict[str, int]) -> Place:
    for step in sorted(place.steps_before, key=lambda name: -order[name]):
        whole = [module for module in _modules(step) if modules[module] <= place.steps_before]
        if whole:
            return dataclasses.replace(place, name=whole[0], ends=tuple(whole))
        if "/" in step:  # inside a module: called after the module and the operator
            return dataclasses.replace(place, name=step.partition("#")[0].replace("/", "."))
    return dataclasses.replace(place, name="cut")


def _modules(step: str) -> list[str]:
    """`a.b.c/Conv` -> a, a.b, a.b.c; nothing for a step outside every module."""
    path, slash, _ = step.rpartition("/")
    parts = path.split(".") if slash else []
    return [".".join(parts[:count]) for count in range(1, len(parts) + 1)]


def unique(places: Sequence[Place], taken: Collection[str] = ()) -> tuple[Place, ...]:
    """Numbers equal names: the last place of a module keeps its name, the ones before get `NAME.1`, `NAME.2` and on."""
    last = {place.name: index for index, place in enumerate(places) if place.name not in taken}
    taken = {*taken, *(place.name for place in places)}
    count: dict[str, int] = {}
    found = []
    for index, place in enumerate(places):
        name = re.sub(r"[^\w.-]", "_", place.name)
        if last.get(place.name) != index:
            while True:
                count[name] = count.get(name, 0) + 1
                if f"{name}.{count[name]}" not in taken:
                    break
            name = f"{name}.{count[name]}"
            taken.add(name)
        found.append(dataclasses.replace(place, name=name))
    return tuple(found)


def like(places: Sequence[Place], known: Sequence[Place], taken: Collection[str] = ()) -> tuple[Place, ...]:
    """Names places after those of another graph of the same student.

    Args:
        places: In order of depth; without a twin a place keeps the name it has.
        known: With names, in order of depth.
        taken: Names that are given already.
    """
    free = list(known)
    found = []
    for number, place in enumerate(places):
        twin = _twin(place, free)
        if twin is not None:
            free.remove(twin)
        name, ends = (twin.name, twin.ends) if twin else (place.name or f"cut{number}", place.ends)
        found.append(dataclasses.replace(place, name=name, ends=ends))
    return unique(found, taken)


def _twin(place: Place, others: Sequence[Place]) -> Place | None:
    """The place of another graph with nearly the same share of MACs before it; of several that with the same bytes."""
    near = [
        (round(abs(_share(place) - _share(other)), 4), place.bytes != other.bytes, number)
        for number, other in enumerate(others)
        if len(place.tensors) == len(other.tensors) and place.illegal == other.illegal
    ]
    best = min(near, default=None)
    return others[best[2]] if best is not None and best[0] <= _SAME_MACS else None


def _share(place: Place) -> float:
    return place.macs_before / max(place.macs_before + place.macs_after, 1)
