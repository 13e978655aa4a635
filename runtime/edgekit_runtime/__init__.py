"""edgekit's runtime: opens a bundle on a device and runs it.

    import edgekit_runtime as er

    with er.open("student.edge") as session:
        outputs = session.run({"image": x})

Needs numpy, msgspec, psutil and one engine; never torch, never onnx.
"""

from __future__ import annotations

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

__all__ = [
    "Bundle",
    "BundleInvalid",
    "Choice",
    "EdgekitError",
    "EngineMissing",
    "GateFailed",
    "InputMismatch",
    "Machine",
    "Reason",
    "Refused",
    "Session",
    "Unreachable",
    "UsageError",
    "open",
    "open_bundle",
    "pack",
    "this_machine",
]
