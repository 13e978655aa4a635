"""Decisions in a log: a line of JSON each, from which the choice can be made again.

    {"schema": "edgekit.journal/1", "bundle_id": …, "actions": [ActionCost …], "power": Power}      the first line
    {"request": 0, "at_s": 12.3, "action": "offload", "link": …, "load": …, "policy": …, "timing": …}

Nothing is logged that can be worked out again: the reasons of a decision are those that `choose` gives for the logged
estimates, so that a log proves its own choices.
"""

from __future__ import annotations

import contextlib
import errno
import logging
import os
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Literal

import msgspec

from edgekit_runtime.adaptive.actions import ActionCost, ActionSet, Power
from edgekit_runtime.adaptive.choose import Decision, choose
from edgekit_runtime.adaptive.state import Link, Load, Policy
from edgekit_runtime.errors import Refused, UsageError
from edgekit_runtime.manifest import Base

SCHEMA = "edgekit.journal/1"
_log = logging.getLogger(__name__)


class Head(Base, frozen=True, kw_only=True):
    """First line: what was chosen from."""

    schema: Literal["edgekit.journal/1"] = "edgekit.journal/1"
    bundle_id: str = ""
    actions: tuple[ActionCost, ...]
    power: Power = Power()


class Entry(Base, frozen=True, kw_only=True):
    """One request.

    Attributes:
        request: Its number.
        at_s: Monotonic.
        action: What was chosen.
        predicted_ms: Of the whole request.
        link: As believed.
        load: As believed.
        policy: As wanted.
        total_ms: What it took; None: not known.
        fallback: Why the answer came from the local run after all; empty: it did not.
    """

    request: int
    at_s: float
    action: str
    predicted_ms: float
    link: Link
    load: Load
    policy: Policy
    total_ms: float | None = None
    fallback: str = ""


class Writer:
    """Appends decisions to a file. Safe from several threads.

    A disk that fills up ends the log with its last whole line, and is told once: no request fails for its record.
    """

    def __init__(self, path: Path, profile: ActionSet, bundle_id: str = "") -> None:
        """Begins the file, in place of one that is there.

        Raises:
            UsageError: Nothing can be written there.
        """
        try:
            self._file: IO[bytes] = path.open("wb", buffering=0)  # a line is there when it is written
        except OSError as error:
            raise UsageError(
                f"the log {path} cannot be written: {error.strerror}", remedy="name another file"
            ) from error
        self._lock = threading.Lock()
        self._path, self._count, self._bytes, self._ended = path, 0, 0, False
        try:
            self._write(Head(bundle_id=bundle_id, actions=profile.actions, power=profile.power))
        except OSError as error:
            self._file.close()
            raise UsageError(
                f"the log {path} cannot be written: {error.strerror}", remedy="name another file"
            ) from error

    def add(self, decision: Decision, at_s: float, total_ms: float | None = None, fallback: str = "") -> None:
        """Appends one request, unless the disk was full before."""
        with self._lock:
            if self._ended:
                return
            entry = Entry(
                request=self._count,
                at_s=at_s,
                action=decision.action,
                predicted_ms=decision.predicted_ms,
                link=decision.link,
                load=decision.load,
                policy=decision.policy,
                total_ms=total_ms,
                fallback=fallback,
            )
            self._count += 1
            try:
                self._write(entry)
            except OSError as error:
                self._ended = True
                with contextlib.suppress(OSError):
                    self._file.truncate(self._bytes)
                _log.warning("the log %s ends after %d requests: %s", self._path, self._count - 1, error.strerror)

    def close(self) -> None:
        """Ends the file."""
        self._file.close()

    def _write(self, line: Base) -> None:
        data = msgspec.json.encode(line) + b"\n"
        if self._file.write(data) != len(data):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        self._bytes += len(data)


def read(path: Path) -> tuple[Head, list[Entry]]:
    """A whole log.

    Raises:
        Refused: It is none, or a line of it is damaged.
    """
    return read_head(path), list(entries(path))


def read_head(path: Path) -> Head:
    """The first line of a log.

    Raises:
        Refused: It is no log.
    """
    try:
        with path.open("rb") as file:
            return msgspec.json.decode(file.readline(), type=Head)
    except OSError as error:
        raise Refused(f"{path} cannot be read: {error.strerror}", remedy="check the path") from error
    except msgspec.MsgspecError as error:
        raise Refused(
            f"{path} is not a log of decisions: {error}",
            remedy="er.open(..., log=FILE) writes one",
        ) from error


def entries(path: Path) -> Iterator[Entry]:
    """The requests of a log, in order.

    Raises:
        Refused: A line is damaged (which one).
    """
    with path.open("rb") as file:
        file.readline()
        for number, line in enumerate(file, start=2):
            try:
                yield msgspec.json.decode(line, type=Entry)
            except msgspec.MsgspecError as error:
                raise Refused(f"{path}, line {number}: {error}", remedy="cut the log off before this line") from error


def again(head: Head, entry: Entry, profile: ActionSet | None = None) -> Decision:
    """The decision made again from what was logged.

    Args:
        head: The log's first line.
        entry: One request.
        profile: `ActionSet(head.actions, head.power)`, when it is there already.
    """
    actions = profile or ActionSet(head.actions, head.power)
    return choose(actions, entry.link, entry.load, entry.policy)
