"""The engines: one explicit table, each loaded by name when it is used.

Other packages add engines by an entry point of the group `edgekit.engines` that names a class with the shape of
`base.Engine`; tests and applications by `register`. A name can be taken once.
"""

from __future__ import annotations

import functools
import importlib
import importlib.util
import threading
from collections.abc import Callable
from typing import TYPE_CHECKING

from edgekit_runtime.engines.base import Engine, LoadedGraph
from edgekit_runtime.errors import EngineMissing, UsageError

if TYPE_CHECKING:
    from importlib.metadata import EntryPoint

__all__ = ["Engine", "LoadedGraph", "available", "for_format", "get", "names", "register", "unregister"]

# Name -> (module that must be importable, our module, class in it, formats, pip line). In order of preference.
TABLE: dict[str, tuple[str, str, str, tuple[str, ...], str]] = {
    "onnxruntime": ("onnxruntime", "onnxruntime", "OnnxRuntime", ("onnx",), "pip install 'edgekit[onnxruntime]'"),
    "litert": ("ai_edge_litert", "litert", "LiteRT", ("tflite",), "pip install 'edgekit[litert]'"),
    "tflite-runtime": (
        "tflite_runtime",
        "litert",
        "TfliteRuntime",
        ("tflite",),
        "pip install 'edgekit[tflite-runtime]' (Python 3.11 or older, numpy below 2)",
    ),
}
# Engines that are used only when a person names them: no bundle is put on a card unasked.
ON_REQUEST: dict[str, tuple[str, str, str, tuple[str, ...], str]] = {
    "onnxruntime-gpu": ("onnxruntime", "gpu", "OnnxRuntimeGpu", ("onnx",), "pip install 'edgekit[onnxruntime-gpu]'"),
    "torch": ("torch", "torch_cuda", "TorchCuda", ("onnx",), "pip install 'edgekit[torch]'"),
}
GROUP = "edgekit.engines"
# The wheels that all bring the package `onnxruntime`.
_WHEELS = ("onnxruntime", "onnxruntime-gpu", "onnxruntime-directml", "onnxruntime-openvino")

_loaded: dict[str, Engine] = {}
_registered: dict[str, Engine] = {}
_lock = threading.Lock()


def register(engine: Engine) -> None:
    """Adds an engine of this process under its own name.

    Raises:
        UsageError: The name is taken.
    """
    with _lock:
        if (
            engine.name in TABLE
            or engine.name in ON_REQUEST
            or engine.name in _registered
            or engine.name in _entry_points()
        ):
            raise UsageError(f"an engine called {engine.name!r} exists already", remedy="give the engine another name")
        _registered[engine.name] = engine


def unregister(name: str) -> None:
    """Takes away an engine that `register` added."""
    with _lock:
        _registered.pop(name, None)


def names() -> tuple[str, ...]:
    """Every engine edgekit knows of, installed or not: its own first."""
    return (*TABLE, *ON_REQUEST, *_entry_points(), *_registered)


def available() -> tuple[str, ...]:
    """The engines that are installed, in order of preference, less those on request. Imports none of edgekit's own."""
    own = (name for name, row in TABLE.items() if importlib.util.find_spec(row[0]) is not None)
    return (*own, *_entry_points(), *_registered)


def for_format(graph_format: str) -> tuple[str, ...]:
    """The installed engines that run a format, in order of preference."""
    return tuple(name for name in available() if graph_format in formats(name))


def formats(name: str) -> tuple[str, ...]:
    """The formats an engine runs."""
    row = _row(name)
    return row[3] if row else get(name).formats


def installed_version(name: str) -> str:
    """Version of an installed engine, without importing it where its wheel tells; empty where nothing does."""
    from importlib import metadata

    if name not in TABLE:
        return get(name).version
    for distribution in (TABLE[name][0].replace("_", "-"), *(_WHEELS if name == "onnxruntime" else ())):
        try:
            return metadata.version(distribution)
        except metadata.PackageNotFoundError:
            continue
    return ""


def _row(name: str) -> tuple[str, str, str, tuple[str, ...], str] | None:
    return TABLE.get(name) or ON_REQUEST.get(name)


def pip_lines(graph_formats: set[str]) -> str:
    """What to install to run one of these formats."""
    lines = (row[4] for row in TABLE.values() if graph_formats.intersection(row[3]))
    return " or ".join(dict.fromkeys(lines))


def get(name: str) -> Engine:
    """The engine of this name, imported now.

    Raises:
        UsageError: No engine has this name.
        EngineMissing: The engine is not installed, does not import, or two onnxruntime wheels overwrite each other.
    """
    with _lock:
        if name in _registered:
            return _registered[name]
        if name not in _loaded:
            _loaded[name] = _load(name)
        return _loaded[name]


def _load(name: str) -> Engine:
    row = _row(name)
    if row is not None:
        package, module, kind, _, pip_line = row
        if importlib.util.find_spec(package) is None:
            raise EngineMissing(f"the engine {name} is not installed", remedy=pip_line)
        if package == "onnxruntime":
            refuse_two_wheels(_installed)
        return _make(name, getattr(importlib.import_module(f"{__name__}.{module}"), kind), pip_line)
    points = _entry_points()
    if name in points:
        return _make(name, points[name].load(), f"repair or remove the package that brings the engine {name}")
    known = ", ".join((*TABLE, *ON_REQUEST, *points, *_registered))
    raise UsageError(f"there is no engine called {name!r}", remedy=f"the engines are: {known}")


def _make(name: str, kind: Callable[[], Engine], remedy: str) -> Engine:
    try:
        return kind()
    except (ImportError, OSError) as error:  # a wheel for another system or numpy: missing libraries, wrong ABI
        raise EngineMissing(f"the engine {name} is installed but does not import: {error}", remedy=remedy) from error


def refuse_two_wheels(installed: Callable[[str], bool]) -> None:
    """Refuses to start when two onnxruntime wheels are installed: they overwrite each other's files.

    Args:
        installed: Tells whether a distribution is installed.

    Raises:
        EngineMissing: Two are; names the lines that mend it.
    """
    found = [wheel for wheel in _WHEELS if installed(wheel)]
    if len(found) > 1:
        raise EngineMissing(
            f"{' and '.join(found)} are installed together; they overwrite each other's files",
            remedy=f"pip uninstall -y {' '.join(found)} && pip install {found[0]}   (or {found[1]}: one of them)",
        )


def _installed(distribution: str) -> bool:
    from importlib import metadata

    try:
        metadata.distribution(distribution)
    except metadata.PackageNotFoundError:
        return False
    return True


@functools.cache
def _entry_points() -> dict[str, EntryPoint]:
    """Engines that other packages bring. Looked for once a process: it reads the metadata of every package.

    Raises:
        UsageError: Two packages bring the same name, or one that edgekit has.
    """
    from importlib import metadata  # 14 ms of import that `import edgekit_runtime` does not owe

    found: dict[str, EntryPoint] = {}
    for point in metadata.entry_points(group=GROUP):
        if point.name in found or _row(point.name) is not None:
            raise UsageError(
                f"two packages bring an engine called {point.name!r} ({point.value})", remedy="uninstall one of them"
            )
        found[point.name] = point
    return found
