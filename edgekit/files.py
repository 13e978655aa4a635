"""Files and folders that a command writes: whole or not at all, and an error of the disk in words.

FOLDER/.NAME.partial-PID      while it is written
FOLDER/NAME                   after it, all at once
"""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

from edgekit_runtime.errors import UsageError


@contextlib.contextmanager
def whole_file(path: Path, option: str) -> Iterator[Path]:
    """Gives the path to write to; what lies there at the end takes the place of `path`.

    Args:
        path: Where the file shall be.
        option: As the person wrote it: `-o`, `--report`.

    Raises:
        UsageError: Nothing can be written there.
    """
    partial = path.with_name(f".{path.name}.partial-{os.getpid()}")
    with _told(path, option, "another file"):
        try:
            yield partial
            partial.replace(path)
        finally:
            with contextlib.suppress(OSError):  # on a disk that takes nothing, removing fails like writing did
                partial.unlink(missing_ok=True)


@contextlib.contextmanager
def whole_folder(path: Path, option: str) -> Iterator[Path]:
    """As `whole_file`, for a folder that does not exist yet or is empty.

    Raises:
        UsageError: As for `whole_file`, or `path` holds something.
    """
    with _told(path, option, "a new folder elsewhere"):
        if path.exists() and (not path.is_dir() or any(path.iterdir())):
            raise UsageError(f"{option} {path} is there already", remedy="name a new or an empty folder")
        path = path.absolute()  # `.` has no name of its own
        partial = path.with_name(f".{path.name}.partial-{os.getpid()}")
        try:
            partial.mkdir(parents=True)
            yield partial
            if path.exists():
                path.rmdir()
            partial.rename(path)
        finally:
            shutil.rmtree(partial, ignore_errors=True)


def write_text(path: Path, text: str, option: str) -> None:
    """Writes UTF-8 whole or not at all.

    Raises:
        UsageError: Nothing can be written there.
    """
    with whole_file(path, option) as partial:
        partial.write_text(text, encoding="utf-8")


@contextlib.contextmanager
def _told(path: Path, option: str, remedy: str) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        why = error.strerror or error
        raise UsageError(f"{option} {path} cannot be written: {why}", remedy=f"name {remedy}") from error
