"""What crosses each split point of a staged bundle on real samples, through the runtime a device uses."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from contextlib import ExitStack

import numpy as np

from edgekit_converters.captured import Arrays
from edgekit_converters.cut.representative import features, stand_ins
from edgekit_runtime.bundle import Bundle
from edgekit_runtime.chain import Chain, split_points
from edgekit_runtime.manifest import Graph, SplitPoint

REPRESENTATIVE_SAMPLES = 32


def crossings(bundle: Bundle, full: Graph, samples: Sequence[Arrays]) -> Iterator[tuple[dict[str, Arrays], Arrays]]:
    """Runs the segments one after the other, each once a sample.

    Args:
        bundle: The staged bundle, its segments listed.
        full: A full graph that is cut.
        samples: One sample each.

    Yields:
        For each sample what the tail of each split point takes, by id, and the answer.
    """
    points = split_points(bundle.manifest, full.id)
    borders = [None, *(point.id for point in points), None]
    with ExitStack() as stack:
        pieces = [
            stack.enter_context(Chain(bundle, full.id, start=start, stop=stop, engine=full.engine))
            for start, stop in itertools.pairwise(borders)
        ]
        for sample in samples:
            given, seen = dict(sample), {}
            for piece, stop in zip(pieces, borders[1:], strict=True):
                made = piece.run({tensor.name: given[tensor.name] for tensor in piece.inputs})
                given = {**sample, **made}
                if stop is not None:
                    seen[stop] = made
            yield seen, made


def represent(
    bundle: Bundle, full: Graph, samples: Sequence[Arrays], k: int, among: Sequence[SplitPoint] = ()
) -> dict[str, str]:
    """For each split point, by place, the place that stands for it (see `representative`).

    Args:
        bundle: The staged bundle, its segments listed.
        full: A full graph that is cut.
        samples: Real inputs; the first `REPRESENTATIVE_SAMPLES` are looked at.
        k: How many places may stand for all.
        among: Split points of the graph that are looked at; empty: all.
    """
    points = among or split_points(bundle.manifest, full.id)
    rows: dict[str, list[np.ndarray]] = {point.id: [] for point in points}
    for seen, _ in crossings(bundle, full, samples[:REPRESENTATIVE_SAMPLES]):
        for point in points:
            # Centred features do not see a zero point; scales weigh the tensors of one place against each other.
            tensors = [seen[point.id][t.name].astype(np.float32) * (t.scale or 1.0) for t in point.tensors]
            rows[point.id].append(features(tensors, [t.shape for t in point.tensors]))
    chosen = stand_ins([np.stack(rows[point.id]) for point in points], k)
    return {point.place: points[other].place for point, other in zip(points, chosen, strict=True)}
