"""Does a cut student answer as the uncut one? Bit by bit, through the runtime a device uses."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import numpy as np

import edgekit_runtime as er
from edgekit_converters.captured import Arrays
from edgekit_runtime.bundle import Bundle
from edgekit_runtime.chain import Chain
from edgekit_runtime.errors import Refused
from edgekit_runtime.manifest import Graph, SplitPoint


def differing(bundle: Bundle, full: Graph, points: Iterable[SplitPoint], requests: Sequence[Arrays]) -> dict[str, str]:
    """Runs head and tail of each split point and compares with the uncut graph.

    Args:
        bundle: The staged bundle, its segments listed.
        full: The full graph.
        points: Its split points.
        requests: Inputs of several sizes.

    Returns:
        For each split point, by id, whose head and tail together do not answer bit by bit as the uncut graph: how far
        they are from it.
    """
    runnable, wanted = _uncut(bundle, full, requests)
    wrong = {}
    for point in points:
        try:
            got = _through(bundle, full, point, runnable)
        except Refused as error:
            wrong[point.id] = error.message
            continue
        differences = [_difference(w, g) for w, g in zip(wanted, got, strict=True)]
        worst = max(differences, key=lambda pair: pair[0])
        if worst[0]:
            wrong[point.id] = worst[1]
    return wrong


def _uncut(bundle: Bundle, full: Graph, requests: Sequence[Arrays]) -> tuple[list[Arrays], list[Arrays]]:
    """The requests that the uncut graph takes, and its answers.

    Sizes are changed without knowing what the values mean: edges of a graph may then name nodes that are not there.

    Raises:
        Refused: It takes none of them.
    """
    runnable, wanted = [], []
    with er.open(bundle.root, graph=full.id, engine=full.engine, threads=1) as session:
        for request in requests:
            try:
                answer = session.run(request)
            except Refused as error:
                refused = error
                continue
            runnable.append(request)
            wanted.append(answer)
    if not runnable:
        raise refused
    return runnable, wanted


def _through(bundle: Bundle, full: Graph, point: SplitPoint, requests: Sequence[Arrays]) -> list[Arrays]:
    with (
        Chain(bundle, full.id, stop=point.id, engine=full.engine) as head,
        Chain(bundle, full.id, start=point.id, engine=full.engine) as tail,
    ):
        return [tail.run(head.run(request)) for request in requests]


def _difference(wanted: Mapping[str, np.ndarray], got: Mapping[str, np.ndarray]) -> tuple[float, str]:
    """Largest absolute difference over the outputs the tail gives, in words too; 0 only where every bit is the same."""
    worst = (0.0, "")
    for name, value in got.items():
        if value.shape != wanted[name].shape:
            return float("inf"), f"{name} has shape {value.shape}, the uncut graph gives {wanted[name].shape}"
        if value.tobytes() != wanted[name].tobytes():
            far = float(np.abs(value.astype(np.float64) - wanted[name].astype(np.float64)).max())
            if far >= worst[0]:
                worst = (far or 1e-30, f"{name} differs from the uncut graph by up to {far:.2g}")
    return worst
