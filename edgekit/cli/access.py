"""The options with which a command enters an agent."""

from __future__ import annotations

from pathlib import Path

from edgekit.profiler.where import Access
from edgekit_runtime.errors import UsageError


def access_of(token_file: Path | None, ca: Path | None, cert: Path | None, key: Path | None, python: str) -> Access:
    """How an agent is entered, from the options of a command.

    Raises:
        UsageError: A file that is not there, or half of a pair.
    """
    for option, path in (("--token-file", token_file), ("--ca", ca), ("--cert", cert), ("--key", key)):
        if path is not None and not path.is_file():
            raise UsageError(f"{option}: there is no file {path}", remedy="check the path")
    if (cert is None) != (key is None):
        raise UsageError("--cert and --key belong together", remedy="give both, or neither")
    token = token_file.read_text(encoding="utf-8").strip() if token_file is not None else ""
    return Access(token=token, ca=ca, cert=cert, key=key, python=python)
