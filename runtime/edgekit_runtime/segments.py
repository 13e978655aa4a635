"""Each piece of a cut student on golden inputs: what `convert` writes down and `verify` runs again."""

from __future__ import annotations

from edgekit_runtime.bundle import Arrays, Bundle
from edgekit_runtime.chain import Chain, split_points
from edgekit_runtime.manifest import Graph


def answers(bundle: Bundle, full: Graph, inputs: Arrays, engine: str) -> dict[str, Arrays]:
    """What each segment and each exit of a full graph answers to golden inputs, by graph id.

    Each segment is run alone, on what the one before it gave. Empty where the graph was not cut.
    """
    points = split_points(bundle.manifest, full.id)
    if not points:
        return {}
    segments = (*points[0].before, *points[0].after)
    borders: list[str | None] = [None, *(point.id for point in points), None]
    found: dict[str, Arrays] = {}
    given: Arrays = dict(inputs)
    for name, start, stop in zip(segments, borders, borders[1:], strict=False):
        with Chain(bundle, full.id, start=start, stop=stop, engine=engine) as segment:
            made = segment.run({tensor.name: given[tensor.name] for tensor in segment.inputs})
        own = {tensor.name for tensor in bundle.graph(name).outputs}
        found[name] = {key: value for key, value in made.items() if key in own}
        given = {**inputs, **made}
    with Chain(bundle, full.id, engine=engine) as whole:
        if whole.exits:
            for item, scores in zip(whole.exits, whole.scores(inputs), strict=True):
                if item.graph:
                    found[item.graph] = {item.output: scores}
    return found
