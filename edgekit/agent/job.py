"""The process in which an agent profiles: limited, and gone with the agent.

It reads one JSON line (what to profile, or to calibrate) and writes wire messages as JSON lines. Its limits hold for
the workers below it too: no core files, bounded CPU time, file size and open files, no new privileges.
"""

from __future__ import annotations

import contextlib
import ctypes
import logging
import os
import sys
import tempfile
import threading
from collections.abc import Callable
from pathlib import Path

import msgspec

from edgekit.agent import wire
from edgekit.profiler.measure import run_plan
from edgekit.profiler.request import Request
from edgekit_runtime.errors import EdgekitError

MOST_FILE_BYTES = 2 << 30
MOST_OPEN_FILES = 512
_NO_NEW_PRIVILEGES = 38  # PR_SET_NO_NEW_PRIVS, linux/prctl.h


class Order(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What the agent tells its job: a path with a request, or a calibration."""

    cpu_s: int
    path: str = ""
    request: Request = Request()
    calibrate: wire.Calibrate | None = None


def limit(cpu_s: int) -> None:
    """Lowers what this process and its children may do. Soft failures are left: a limit may be lower already."""
    import resource

    for what, value in (
        (resource.RLIMIT_CORE, 0),
        (resource.RLIMIT_CPU, cpu_s),
        (resource.RLIMIT_FSIZE, MOST_FILE_BYTES),
        (resource.RLIMIT_NOFILE, MOST_OPEN_FILES),
    ):
        _, hard = resource.getrlimit(what)
        lower = value if hard == resource.RLIM_INFINITY else min(value, hard)
        resource.setrlimit(what, (lower, lower))
    if sys.platform == "linux":
        with contextlib.suppress(OSError, AttributeError):
            ctypes.CDLL(None).prctl(_NO_NEW_PRIVILEGES, 1, 0, 0, 0)


def main() -> None:
    """Carries one order out."""
    answers = os.fdopen(os.dup(1), "wb", buffering=0)
    os.dup2(2, 1)
    logging.basicConfig(level=logging.ERROR)

    def say(message: wire.Said) -> None:
        left = memoryview(msgspec.json.encode(message) + b"\n")
        while left:
            left = left[answers.write(left) or 0 :]

    line = sys.stdin.buffer.readline()
    threading.Thread(target=_end_with_the_agent, daemon=True).start()
    try:
        order = msgspec.json.decode(line, type=Order)
        limit(order.cpu_s)
        if order.calibrate is not None:
            say(calibrated(order.calibrate, say))
        else:
            made = order.request.plan(Path(order.path))
            say(wire.Plan(steps=made.steps, remarks=made.remarks))
            say(wire.Done(measurements=tuple(run_plan(made, lambda label: say(wire.Step(label=label))))))
    except EdgekitError as error:
        say(wire.Failure(kind=error.kind, message=error.message, remedy=error.remedy))
    except OSError as error:
        from edgekit.agent.store import disk_error

        refusal = disk_error(error)
        say(wire.Failure(kind=refusal.kind, message=refusal.message, remedy=refusal.remedy))


def calibrated(asked: wire.Calibrate, say: Callable[[wire.Said], None]) -> wire.Calibrated:
    """Measures this machine and gives the text of the files that a calibration writes."""
    from edgekit.devices.calibration import calibrate, lines

    say(wire.Plan(steps=lines(asked.engines)))
    with tempfile.TemporaryDirectory() as folder:
        path = calibrate(
            Path(folder), name=asked.name, engine=asked.engines, progress=lambda label: say(wire.Step(label=label))
        )
        predictor = path.with_suffix(".predictor.json")
        return wire.Calibrated(name=path.stem, profile=path.read_text(), predictor=predictor.read_text())


def _end_with_the_agent() -> None:
    sys.stdin.buffer.read()
    os._exit(0)


if __name__ == "__main__":
    main()
