"""What surrounds the engine's call: preprocessing, labels, the session's own checks. Runs in the worker process."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

import edgekit_runtime as er
from edgekit_runtime.bundle import Bundle
from edgekit_runtime.engines.base import Arrays, LoadedGraph
from edgekit_runtime.errors import EdgekitError, Refused
from edgekit_runtime.preprocess import AudioInput, ImageInput, Input, Preprocessor, TextInput

_NANOSECONDS_TO_MS = 1e-6
_FEWEST = 11
_PHOTO = (480, 640, 3)  # a camera's picture: what an application resizes from
_WORDS = "the students on the small board answer every question of the long test in time "


def around(
    root: Path, graph: str, engine: str, threads: int, opened: tuple[LoadedGraph, Arrays], seconds: float
) -> dict[str, Any]:
    """Times preprocessing, label finding, and a session's run beside the engine's own call.

    Args:
        root: The bundle.
        graph: Graph id.
        engine: Engine name.
        threads: Threads.
        opened: The loaded graph and inputs in the file's shapes, whose run is what a session's is compared with.
        seconds: Time for each of the three.

    Returns:
        `encode_ms`, `decode_ms`, `session_ms` (None where there is none) and `reason`.
    """
    found: dict[str, Any] = {"encode_ms": None, "decode_ms": None, "session_ms": None}
    missing = []
    with er.open(root, graph=graph, engine=engine, threads=threads) as session:
        assert session.bundle is not None
        loaded, inputs = opened
        batch = min((array.shape[0] for array in inputs.values() if array.ndim), default=1)
        golden = {name: array[:batch] for name, array in session.bundle.golden_inputs().items()}
        if not golden and set(inputs) == {tensor.name for tensor in session.inputs}:
            golden = dict(inputs)
        if golden:
            share = overhead_ms(
                lambda: session.run(golden), lambda: loaded.run(inputs), seconds, same=_same(golden, inputs)
            )
            if share is None:
                missing.append("the session cuts or pads these inputs: its own share is not told apart")
            elif share < 0:
                missing.append("the session's own share is less than this machine's noise")
            else:
                found["session_ms"] = share
        for key, act in (
            ("encode_ms", lambda: _encode(session.bundle, session.inputs)),
            ("decode_ms", lambda: _decode(session, golden)),
        ):
            try:
                found[key] = _median_ms(act(), seconds)
            except EdgekitError as error:
                missing.append(f"{key}: {error.message}")
    return {**found, "reason": "; ".join(missing)}


def overhead_ms(
    outer: Callable[[], object], inner: Callable[[], object], seconds: float, *, same: bool = True
) -> float | None:
    """What `outer` takes above `inner`: median of the differences of runs that take turns, in ms.

    Args:
        outer: The whole call.
        inner: The part of it.
        seconds: For all runs.
        same: Whether both do the same work; else the answer is None.
    """
    if not same:
        return None
    differences: list[float] = []
    end = time.perf_counter() + seconds
    while len(differences) < _FEWEST or time.perf_counter() < end:
        first = time.perf_counter_ns()
        outer()
        second = time.perf_counter_ns()
        inner()
        differences.append((2 * second - first - time.perf_counter_ns()) * _NANOSECONDS_TO_MS)
    return float(np.median(differences))


def raw_item(rule: Input) -> object:
    """A made-up raw item of a kind: a photograph's size, a few sentences, one window of sound.

    Raises:
        Refused: Nothing is done to inputs of this kind.
    """
    generator = np.random.default_rng(0)
    if isinstance(rule, ImageInput):
        shape = (*rule.size, 3) if rule.resize == "none" else _PHOTO
        return generator.integers(0, 256, shape, dtype=np.uint8)
    if isinstance(rule, AudioInput):
        return generator.uniform(-0.5, 0.5, rule.window or rule.rate).astype(np.float32)
    if isinstance(rule, TextInput):
        return _WORDS * max(1, (rule.max_length or 64) // 16)
    raise Refused("the bundle takes tensors as they are: there is no preprocessing")


def encode_ms(bundle: Bundle, inputs: tuple[Any, ...], seconds: float) -> float:
    """Median time of a bundle's preprocessing of one made-up raw item.

    Args:
        bundle: Opened.
        inputs: Of the graph that takes the result.
        seconds: For all runs.

    Raises:
        EdgekitError: It has none, or what it needs is not installed.
    """
    return _median_ms(_encode(bundle, inputs), seconds)


def _encode(bundle: Bundle, inputs: tuple[Any, ...]) -> Callable[[], object]:
    preprocessor = Preprocessor.of(bundle, inputs)
    rules = preprocessor.settings.inputs
    items: dict[str, object] = {name: raw_item(rule) for name, rule in rules.items()}
    if not items:
        raise Refused("the bundle has no preprocessing")
    preprocessor.encode(items)
    return lambda: preprocessor.encode(items)


def _decode(session: er.Session, golden: Mapping[str, np.ndarray]) -> Callable[[], object]:
    if not golden:
        raise Refused("the bundle has no golden inputs")
    outputs = session.run(golden)
    session.decode(outputs)
    return lambda: session.decode(outputs)


def _median_ms(act: Callable[[], object], seconds: float) -> float:
    samples: list[float] = []
    end = time.perf_counter() + seconds
    while len(samples) < _FEWEST or time.perf_counter() < end:
        start = time.perf_counter_ns()
        act()
        samples.append((time.perf_counter_ns() - start) * _NANOSECONDS_TO_MS)
    return float(np.median(samples))


def _same(golden: Mapping[str, np.ndarray], inputs: Mapping[str, np.ndarray]) -> bool:
    return sorted(array.size for array in golden.values()) == sorted(array.size for array in inputs.values())
