"""Measures graphs on this machine: latency, memory, operators, with a verdict on every number.

    edgekit.profiler.profile("student.edge")                       -> list of measurement documents
    edgekit.profiler.compare("a.edge:onnx.int8", "b.edge:onnx.int8") -> a verdict with an interval

Both are loaded on first use.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from edgekit.profiler.api import profile
    from edgekit.profiler.comparison import compare

__all__ = ["compare", "profile"]

_HOME = {"compare": "comparison", "profile": "api"}


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'edgekit.profiler' has no attribute {name!r}; it offers {', '.join(__all__)}")
    return getattr(importlib.import_module(f"edgekit.profiler.{_HOME[name]}"), name)
