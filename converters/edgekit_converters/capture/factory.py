"""`file.py:name` and `package.module:name`: a callable that returns an nn.Module, or one."""

from __future__ import annotations

import importlib
import importlib.util
import sys
from difflib import get_close_matches
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

from edgekit_converters.capture.source import SourceSpec
from edgekit_converters.named import see_current_folder
from edgekit_runtime.errors import Refused

if TYPE_CHECKING:
    import torch


def load_module(spec: SourceSpec) -> torch.nn.Module:
    """Imports the person's Python and builds the module, in eval mode on the CPU.

    Raises:
        Refused: The file does not import, has no such name, or the name gives something else than an nn.Module.
    """
    import torch

    python = _import(spec)
    if not hasattr(python, spec.attribute):
        names = [name for name in vars(python) if not name.startswith("_")]
        near = get_close_matches(spec.attribute, names, n=3) or names[:6]
        raise Refused(
            f"{spec.path} has no name {spec.attribute!r}", remedy=f"it has: {', '.join(near) or 'no public names'}"
        )
    found = getattr(python, spec.attribute)
    module = found if isinstance(found, torch.nn.Module) else _call(found, spec)
    if not isinstance(module, torch.nn.Module):
        raise Refused(
            f"{spec.text} gives a {type(module).__name__}, not an nn.Module",
            remedy="name an nn.Module, or a function without required arguments that returns one",
        )
    return module.eval().cpu()


def _call(found: Any, spec: SourceSpec) -> Any:
    if not callable(found):
        return found
    try:
        return found()
    except Exception as error:  # the person's own code: whatever it raises is shown to them
        raise Refused(
            f"{spec.text}() raised {type(error).__name__}: {error}",
            remedy="the factory must build the module without arguments; wrap it in a function that fills them in",
        ) from error


def _import(spec: SourceSpec) -> ModuleType:
    try:
        if spec.path.suffix == ".py":
            return _import_file(spec.path)
        see_current_folder()
        return importlib.import_module(str(spec.path))
    except ModuleNotFoundError as error:
        raise Refused(
            f"{spec.path} cannot be imported: no module named {error.name!r}",
            remedy="install it in this environment, or check the spelling",
        ) from error
    except Exception as error:  # the person's own code: whatever it raises is shown to them
        raise Refused(
            f"{spec.path} cannot be imported: {type(error).__name__}: {error}", remedy="mend the file and try again"
        ) from error


def _import_file(path: Path) -> ModuleType:
    folder = str(path.resolve().parent)
    if folder not in sys.path:  # the student's own neighbours must be importable, as when the file is run
        sys.path.insert(0, folder)
    described = importlib.util.spec_from_file_location(path.stem, path.resolve())
    if described is None or described.loader is None:
        raise Refused(f"{path} is not a Python file", remedy="name a .py file before the colon")
    module = importlib.util.module_from_spec(described)
    sys.modules.setdefault(path.stem, module)
    described.loader.exec_module(module)
    return module
