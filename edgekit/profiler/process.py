"""The parent's side of a worker process: start, ask, watch, and always end."""

from __future__ import annotations

import contextlib
import os
import selectors
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import msgspec
import psutil

from edgekit_runtime.errors import BundleInvalid, EdgekitError, EngineMissing, InputMismatch, Refused, UsageError

ANSWER_TIMEOUT_S = 300.0
_POLL_S = 0.02
_KINDS: dict[str, type[EdgekitError]] = {
    kind.kind: kind for kind in (UsageError, Refused, BundleInvalid, InputMismatch, EngineMissing)
}


def _mb(count: int) -> str:
    """Bytes as megabytes, small numbers with three figures: a limit of 10 kB is not `0 MB`."""
    mb = count / 1e6
    return f"{mb:.0f} MB" if mb >= 10 else f"{mb:.3g} MB"


class OverBudget(Refused):
    """The worker grew beyond the memory it may have and was stopped."""

    kind = "over_memory_budget"

    def __init__(
        self, label: str, used_bytes: int, limit_bytes: int, *, machine: bool = False, loaded: bool = True
    ) -> None:
        limit = f"the {_mb(limit_bytes)} {'of this device' if machine else 'it may have'}"
        end = f"stopped at {_mb(used_bytes)}" if loaded else f"the file alone has {_mb(used_bytes)}; not loaded"
        more = "a device with more memory" if machine else "a higher --memory-limit"
        super().__init__(
            f"{label} needs more than {limit} ({end})",
            remedy=f"use a smaller graph (int8, a shorter length, batch 1) or {more}",
        )


class Worker:
    """One fresh process that runs one graph. A context manager; the process ends with it, whatever happens.

    Args:
        folder: An existing folder for the worker's stderr; also its working directory, so that no file of the
            person's folder is imported by accident.
        label: What it runs, for error messages.
        memory_limit_bytes: Resident bytes beyond which it is stopped; None: no limit.
    """

    def __init__(self, folder: Path, label: str, *, memory_limit_bytes: int | None = None) -> None:
        self.label = label
        self._limit = memory_limit_bytes
        self._stderr_path = folder / f"worker-{time.monotonic_ns()}.stderr"
        # The roots of this process: a checkout that is not installed finds its packages in the child too.
        roots = [entry for entry in sys.path if entry]
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(roots)}
        with self._stderr_path.open("wb") as stderr:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "edgekit.profiler.worker"],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=stderr,
                cwd=folder,
                env=environment,
                # Ctrl-C reaches the profiler, which ends its workers in order.
                start_new_session=True,
            )
        assert self._process.stdin is not None and self._process.stdout is not None
        self._stdin, self._stdout = self._process.stdin, self._process.stdout
        self._selector = selectors.DefaultSelector()
        self._selector.register(self._stdout, selectors.EVENT_READ)
        self._pending = b""

    def __enter__(self) -> Worker:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def pid(self) -> int:
        """Process id of the worker."""
        return self._process.pid

    def ask(self, do: str, *, timeout_s: float = ANSWER_TIMEOUT_S, **arguments: Any) -> dict[str, Any]:
        """Sends one request and waits for its answer.

        Raises:
            EdgekitError: What the worker refused; a worker that crashed, was killed or does not answer is `Refused`.
        """
        self.tell(do, **arguments)
        return self.wait(timeout_s)

    def tell(self, do: str, **arguments: Any) -> None:
        """Sends one request without waiting."""
        try:
            self._stdin.write(msgspec.json.encode({"do": do, **arguments}) + b"\n")
            self._stdin.flush()
        except BrokenPipeError:
            raise self._ended() from None

    def wait(self, timeout_s: float = ANSWER_TIMEOUT_S) -> dict[str, Any]:
        """The answer to the request sent before. See `ask`."""
        end = time.monotonic() + timeout_s
        while b"\n" not in self._pending:
            self._watch_memory()
            if time.monotonic() > end:
                self._process.kill()
                raise Refused(
                    f"{self.label} gave no answer within {timeout_s:.0f} s and was stopped",
                    remedy="try a smaller input, or `edgekit verify` to see whether the graph runs at all",
                )
            if self._selector.select(_POLL_S if self._limit else 1.0):
                chunk = os.read(self._stdout.fileno(), 1 << 20)
                if not chunk:
                    raise self._ended()
                self._pending += chunk
        line, _, self._pending = self._pending.partition(b"\n")
        return self._checked(msgspec.json.decode(line))

    def close(self) -> None:
        """Ends the process and frees its pipes."""
        if self._process.poll() is None:
            self._process.kill()
        self._process.wait()
        self._selector.close()
        self._stdout.close()
        with contextlib.suppress(BrokenPipeError):  # a request was still in the buffer of a process that is gone
            self._stdin.close()

    def _checked(self, body: dict[str, Any]) -> dict[str, Any]:
        if "error" in body:
            error = body["error"]
            raise _KINDS.get(error["kind"], Refused)(error["message"], remedy=error["remedy"])
        if "crash" in body:
            raise Refused(
                f"{self.label} failed in the engine: {body['crash'].strip().splitlines()[-1]}",
                remedy="run `edgekit verify`; if the graph is sound, report this with the graph and `edgekit doctor`",
            )
        return body

    def _watch_memory(self) -> None:
        if self._limit is None:
            return
        try:
            used = psutil.Process(self._process.pid).memory_info().rss
        except psutil.NoSuchProcess:
            return
        if used > self._limit:
            self._process.kill()
            raise OverBudget(self.label, used, self._limit)

    def _ended(self) -> Refused:
        code = self._process.wait()
        tail = " / ".join(self._stderr_path.read_text(errors="replace").strip().splitlines()[-3:])
        why = f"ended with status {code}"
        remedy = "run `edgekit verify` to see whether the graph is sound; `edgekit doctor` tells the engine's version"
        if code < 0:
            name = signal.Signals(-code).name
            why = f"was killed by {name}"
            if name == "SIGKILL":
                why += " (usually the system, when memory runs out)"
                remedy = "free memory or use a smaller graph, batch or length; --memory-limit finds out what it needs"
        return Refused(f"the process that ran {self.label} {why}{': ' + tail if tail else ''}", remedy=remedy)
