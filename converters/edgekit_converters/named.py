"""`package.module:name`: what a person names on the command line, imported."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from edgekit_runtime.errors import Refused


def see_current_folder() -> None:
    """Lets modules of the current folder be imported, as `python -m` does and an installed script does not."""
    if not {"", str(Path.cwd())} & set(sys.path):
        sys.path.insert(0, str(Path.cwd()))


def find_named(text: str) -> Callable[..., Any]:
    """The function that `package.module:name` names; modules of the current folder are found too.

    Raises:
        Refused: The module does not import, has no such name, or the name is no function.
    """
    module, _, name = text.rpartition(":")
    see_current_folder()
    try:
        found = getattr(importlib.import_module(module), name)
    except Exception as error:  # the person's own code: whatever it raises is shown to them
        raise Refused(
            f"{text} cannot be imported: {type(error).__name__}: {error}", remedy="give package.module:function"
        ) from error
    if not callable(found):
        raise Refused(f"{text} is a {type(found).__name__}, not a function", remedy="give package.module:function")
    return found
