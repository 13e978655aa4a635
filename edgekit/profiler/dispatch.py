"""Takes a profile where it was asked for, and keeps the documents beside the bundle."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from edgekit import devices
from edgekit.profiler.measure import run_plan
from edgekit.profiler.request import Request
from edgekit.profiler.where import Access, Where
from edgekit_runtime.bundle import open_bundle
from edgekit_runtime.errors import EdgekitError, Refused, UsageError
from edgekit_runtime.measurement import Measurement

Announce = Callable[[int, tuple[str, ...]], None]  # steps to come, and what was left out with the reason
Progress = Callable[[str], None]


def take(
    where: Where,
    path: str | Path,
    request: Request,
    access: Access,
    *,
    announce: Announce = lambda steps, remarks: None,
    progress: Progress = lambda label: None,
) -> list[Measurement]:
    """The documents of one device.

    Args:
        where: The device.
        path: A bundle, or a bare graph file.
        request: What is asked.
        access: How an agent is entered.
        announce: Called when the number of steps is known, and with what was left out.
        progress: Called as each step begins.

    Raises:
        UsageError: No such device, graph or engine.
        Refused: The path cannot be read, or none of its graphs could be measured.
        Unreachable: The agent cannot be reached, or was lost.
    """
    if where.kind == "local":
        made = request.plan(path)
        announce(made.steps, made.remarks)
        found = run_plan(made, progress)
    elif where.kind == "named":
        found = predicted(where.text, path, request, announce, progress)
    else:
        from edgekit.agent.client import profile

        found = profile(where, Path(path), request, access, announce=announce, progress=progress)
    if lost := keep(path, found):
        announce(0, lost)
    return found


def keep(path: str | Path, documents: list[Measurement]) -> tuple[str, ...]:
    """Keeps documents beside the bundle they are of; bare files and packed bundles keep none.

    Returns:
        Why they were not kept, where the disk says no: the figures are there all the same.
    """
    path = Path(path)
    if not path.is_dir():
        return ()
    bundle = open_bundle(path)
    try:
        for document in documents:
            if document.latency_ms.n + document.predicted:
                bundle.add_measurement(document)
    except OSError as error:
        return (f"keeping the figures in {path / 'measurements'}: {error.strerror}",)
    return ()


def predicted(
    name: str,
    path: str | Path,
    request: Request,
    announce: Announce = lambda steps, remarks: None,
    progress: Progress = lambda label: None,
) -> list[Measurement]:
    """Documents of a device that is not at hand. What it cannot run is left out; nothing at all is an error."""
    profile = devices.load(name)
    made = request.plan(path)
    announce(len(made.jobs), made.remarks)
    found: list[Measurement] = []
    refusals: list[EdgekitError] = []
    work: dict[tuple[str, int, int | None], devices.Work] = {}
    for job in made.jobs:
        progress(f"{name}: {job.label}")
        key = (job.target.graph, job.batch, job.length)
        try:
            # Before the file is opened here: what is too large for the device may be too large for this machine.
            devices.check_memory(profile, job.target.graph, job.target.file_bytes)
            work[key] = work.get(key) or devices.of_job(job)
            found.append(devices.predict(profile, work[key], engine=job.engine, threads=job.threads))
        except (UsageError, Refused) as error:
            refusals.append(error)
    if not found:
        raise refusals[0]
    announce(0, tuple(f"{name}: {error.message}" for error in refusals))
    return found
