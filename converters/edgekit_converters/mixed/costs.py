"""The cost table: every timing that a conversion decided by, so that the same decisions can be made again.

    {"schema": "edgekit.costs/1", "machine": "...", "versions": {...},
     "duels": {"onnx.fp32 / onnx.int8:3f2a...": {"before_ms": 0.41, "after_ms": 0.15, ...}, ...}}

A key names two graphs by format and by what their operators do. With `--costs
FILE` a table that exists is replayed: nothing is timed. One that does not is written.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Literal

import msgspec

from edgekit_converters.draft import Draft
from edgekit_converters.versions import tool_versions
from edgekit_runtime import this_machine
from edgekit_runtime.errors import Refused, UsageError
from edgekit_runtime.manifest import Base


class Duel(Base, frozen=True, kw_only=True):
    """Two graphs timed against each other: medians, and the ratio before / after with its interval (over 1: faster)."""

    before_ms: float
    after_ms: float
    ratio: float
    interval_95: tuple[float, float]


class CostTable(Base, frozen=True, kw_only=True):
    """What was timed, on which machine, with which engines."""

    schema: Literal["edgekit.costs/1"] = "edgekit.costs/1"
    machine: str
    versions: dict[str, str]
    duels: dict[str, Duel]


class Costs:
    """Answers from a table that was given, or times and remembers.

    Args:
        given: Table to replay; None: time.
        path: Where it was read from, for the message.
    """

    def __init__(self, given: CostTable | None = None, path: Path | None = None) -> None:
        self._given, self._path = given, path
        self._duels: dict[str, Duel] = {}

    @classmethod
    def of(cls, path: Path | None) -> Costs:
        """For `--costs`: replays a file that exists.

        Raises:
            Refused: The file is no cost table.
        """
        if path is None or not path.exists():
            return cls()
        try:
            return cls(msgspec.json.decode(path.read_bytes(), type=CostTable), path)
        except msgspec.MsgspecError as error:
            raise Refused(
                f"--costs {path} is no cost table: {error}",
                remedy="give the reports/costs.json of a bundle, or a new name to have one written",
            ) from error

    def duel(self, key: str, run: Callable[[], Duel]) -> Duel:
        """The timing of that name, replayed or made now.

        Raises:
            UsageError: The table given does not hold it.
        """
        if self._given is None:
            self._duels[key] = run()
        elif key not in self._given.duels:
            raise UsageError(
                f"--costs {self._path} was recorded for another student, other data or other versions: it lacks {key}",
                remedy="leave --costs out, or give a new name to record it again",
            )
        else:
            self._duels[key] = self._given.duels[key]
        return self._duels[key]

    def table(self) -> CostTable:
        """What was asked so far; of a replay, the machine that was timed."""
        if self._given is not None:
            return msgspec.structs.replace(self._given, duels=self._duels)
        return CostTable(machine=this_machine().id, versions=tool_versions(), duels=self._duels)

    @property
    def machine(self) -> str:
        """Whose timings these are."""
        return self._given.machine if self._given is not None else this_machine().id


def name_of(draft: Draft) -> str:
    """A draft's name in the table: the same for the same decisions, whatever bytes the exporter wrote."""
    if draft.recipe is None:
        return draft.id
    told = repr([(op.op, op.scheme) for op in draft.recipe.ops]).encode()
    return f"{draft.id}:{hashlib.sha256(told).hexdigest()[:12]}"


def dump(table: CostTable) -> bytes:
    """The file."""
    return msgspec.json.format(msgspec.json.encode(table, order="sorted"), indent=1) + b"\n"
