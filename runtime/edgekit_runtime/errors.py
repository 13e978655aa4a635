"""Every exception edgekit raises on purpose, and the exit code each one ends a command with.

    EdgekitError               1   (raised as such: never; anything else that escapes is a bug)
    ├── UsageError             2   the person asked for something that does not exist or does not fit together
    ├── Refused                3   the student, bundle or file cannot be taken: what, where, what to do
    │   ├── BundleInvalid          a changed byte, a missing file, an unknown schema, a path that leaves the folder
    │   ├── InputMismatch          names, dtypes or shapes of the tensors given do not fit the graph
    │   └── EngineMissing          no engine installed that can run the graph (names the pip line)
    ├── GateFailed             4   a quality, speed or significance gate said no
    └── Unreachable            5   a device or server could not be reached

Errors of onnxruntime, LiteRT, torch and gRPC are translated where they happen, with the original as `__cause__`.
"""

from __future__ import annotations


class EdgekitError(Exception):
    """Base of all errors that edgekit raises on purpose.

    Attributes:
        message: What was got and what is allowed, in one or two sentences.
        remedy: What the person can do about it; may be empty.
    """

    exit_code = 1
    kind = "error"

    def __init__(self, message: str, *, remedy: str = "") -> None:
        super().__init__(message if not remedy else f"{message}\n  -> {remedy}")
        self.message = message
        self.remedy = remedy

    @property
    def told(self) -> str:
        """Message and remedy on one line."""
        return f"{self.message} -> {self.remedy}" if self.remedy else self.message


class UsageError(EdgekitError):
    """The person asked for something that does not exist or does not fit together."""

    exit_code = 2
    kind = "usage"


class Refused(EdgekitError):
    """The student, bundle or file cannot be taken."""

    exit_code = 3
    kind = "refused"


class BundleInvalid(Refused):
    """A bundle that is damaged, incomplete, unsafe, or newer than this edgekit understands."""

    kind = "bundle_invalid"


class InputMismatch(Refused):
    """Tensors whose names, dtypes or shapes do not fit the graph."""

    kind = "input_mismatch"


class EngineMissing(Refused):
    """No installed engine can run the graph."""

    kind = "engine_missing"


class GateFailed(EdgekitError):
    """A quality, speed or significance gate said no."""

    exit_code = 4
    kind = "gate_failed"


class Unreachable(EdgekitError):
    """A device or server could not be reached."""

    exit_code = 5
    kind = "unreachable"
