"""edgekit: a trained student model, taken to edge devices.

The few verbs a person needs are loaded on first use, so that `import edgekit` costs nothing.
"""

from __future__ import annotations

import importlib
from typing import Any

__version__ = "0.1.0"
__all__ = ["__version__", "check", "compare", "convert", "open_bundle", "profile", "runtime"]

_VERBS = {
    "check": ("edgekit_converters.check", "check"),
    "convert": ("edgekit.converting", "convert"),
    "profile": ("edgekit.profiler", "profile"),
    "compare": ("edgekit.profiler", "compare"),
    "open_bundle": ("edgekit_runtime.bundle", "open_bundle"),
    "runtime": ("edgekit_runtime", None),
}


def __getattr__(name: str) -> Any:
    if name not in _VERBS:
        raise AttributeError(f"module 'edgekit' has no attribute {name!r}; it offers {', '.join(sorted(_VERBS))}")
    module, attribute = _VERBS[name]
    loaded = importlib.import_module(module)
    return loaded if attribute is None else getattr(loaded, attribute)
