"""edgekit's runtime: opens a bundle on a device and runs it.

    import edgekit_runtime as er

    with er.open("student.edge") as session:
        outputs = session.run({"image": x})

Needs numpy, msgspec, psutil and one engine; never torch, never onnx.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from edgekit_runtime.bundle import Bundle, open_bundle, pack
from edgekit_runtime.errors import (
    BundleInvalid,
    EdgekitError,
    EngineMissing,
    GateFailed,
    InputMismatch,
    Refused,
    Unreachable,
    UsageError,
)
from edgekit_runtime.machine import Machine, this_machine
from edgekit_runtime.selection import Choice, Reason
from edgekit_runtime.session import Session, open

if TYPE_CHECKING:
    from edgekit_runtime.adaptive import Decision, Policy
    from edgekit_runtime.remote.session import Result, Timing

__all__ = [
    "Bundle",
    "BundleInvalid",
    "Choice",
    "Decision",
    "EdgekitError",
    "EngineMissing",
    "GateFailed",
    "InputMismatch",
    "Machine",
    "Policy",
    "Reason",
    "Refused",
    "Result",
    "Session",
    "Timing",
    "Unreachable",
    "UsageError",
    "open",
    "open_bundle",
    "pack",
    "this_machine",
]

# What only a session with a server needs is loaded when it is asked for.
_LAZY = {
    "Decision": "edgekit_runtime.adaptive",
    "Policy": "edgekit_runtime.adaptive",
    "Result": "edgekit_runtime.remote.session",
    "Timing": "edgekit_runtime.remote.session",
}


def __getattr__(name: str) -> Any:
    if name not in _LAZY:
        raise AttributeError(f"module 'edgekit_runtime' has no attribute {name!r}")
    import importlib

    return getattr(importlib.import_module(_LAZY[name]), name)
