"""Takes a profile where it was asked for, and keeps the documents beside the bundle."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from edgekit import devices
from edgekit.profiler.measure import run_plan
from edgekit.profiler.request import Request
from edgekit.profiler.targets import resolve
from edgekit.profiler.where import Access, Where
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
        return run_plan(made, progress)
    if where.kind == "named":
        documents = predicted(where.text, path, request, announce, progress)
        keep(path, documents)
        return documents
    from edgekit.agent.client import profile

    found = profile(where, Path(path), request, access, announce=announce, progress=progress)
    keep(path, found)
    return found


def keep(path: str | Path, documents: list[Measurement]) -> None:
    """Keeps documents beside the bundle they are of; bare files and packed bundles keep none."""
    path = Path(path)
    if not path.is_dir():
        return
    for target in resolve(path)[:1]:
        for document in documents:
            if target.bundle is not None and document.latency_ms.n + document.predicted:
                target.bundle.add_measurement(document)


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
