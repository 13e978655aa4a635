"""The Python call behind `edgekit profile`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from edgekit.profiler.dispatch import take
from edgekit.profiler.request import Request
from edgekit.profiler.where import Access, parse
from edgekit_runtime.measurement import Measurement


def profile(
    path: str | Path,
    device: str | Sequence[str] = "local",
    *,
    engine: str | None = None,
    graph: str | None = None,
    threads: Sequence[int] = (1,),
    batch: Sequence[int] = (1,),
    length: Sequence[int] = (),
    duration_s: float | None = None,
    memory_limit_mb: float | None = None,
    duty: bool = False,
    access: Access | None = None,
) -> list[Measurement]:
    """Measures a bundle's graphs, or one bare graph file.

    A bundle in a folder keeps the measurements under `measurements/`, outside its identity.

    Args:
        path: A bundle, or an `.onnx` or `.tflite` file.
        device: `local`, `tcp://HOST:PORT`, `ssh://USER@HOST`, the name of a device profile, or several of them.
        engine: Engine to run on; None: the first installed one for each format.
        graph: One graph of a bundle; None: all its full graphs.
        threads: Numbers of threads to try.
        batch: Batch sizes to try.
        length: Lengths of a bundle's dynamic axes to try; empty: that of its golden inputs.
        duration_s: Seconds of sampling a graph; None: so that all of it takes under half a minute.
        memory_limit_mb: Megabytes of resident memory the process may take; a graph that needs more is not measured
            and its document says so (verdict invalid).
        duty: Also latency after a pause, paced at 1, 5 and 30 Hz, and in bursts (25 s more a graph).
        access: Token and certificates for an agent.

    Returns:
        One document a device, graph, engine, number of threads, batch size and length. A graph that could not be
        measured is listed with verdict `invalid` and the reason.

    Raises:
        UsageError: Unknown device, engine, graph, or impossible numbers.
        Refused: The path cannot be read, or none of its graphs could be measured.
        Unreachable: An agent cannot be reached, or was lost.
    """
    request = Request(
        engine=engine,
        graph=graph,
        threads=tuple(threads),
        batch=tuple(batch),
        length=tuple(length),
        duration_s=duration_s,
        memory_limit_mb=memory_limit_mb,
        duty=duty,
    )
    places = [parse(text) for text in ((device,) if isinstance(device, str) else device)]
    return [document for place in places for document in take(place, path, request, access or Access())]
