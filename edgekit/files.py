"""Files and folders that a command writes: whole or not at all, and an error of the disk in words.

FOLDER/.NAME.partial-PID      while it is written
FOLDER/NAME                   after it, all at once

Folders above that do not exist are made, and removed again where nothing comes of it.
"""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

from edgekit_runtime.errors import UsageError

_TRIAL_BYTES = 1 << 20  # about what a page takes


@contextlib.contextmanager
def whole_file(path: Path, option: str) -> Iterator[Path]:
    """Gives the path to write to; what lies there at the end takes the place of `path`.

    Args:
        path: Where the file shall be.
        option: As the person wrote it: `-o`, `--report`.

    Raises:
        UsageError: Nothing can be written there.
    """
    partial = _partial(path)
    with _told(path, option, "another file"), _made(path.parent) as made:
        try:
            yield partial
            partial.replace(path)
            made.clear()
        finally:
            _remove((partial,))


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
        partial = _partial(path)
        with _made(path.parent) as made:
            try:
                partial.mkdir()
                yield partial
                if path.exists():
                    path.rmdir()
                partial.rename(path)
                made.clear()
            finally:
                shutil.rmtree(partial, ignore_errors=True)


def write_text(path: Path, text: str, option: str) -> None:
    """Writes UTF-8 whole or not at all.

    Raises:
        UsageError: Nothing can be written there.
    """
    with whole_file(path, option) as partial:
        partial.write_text(text, encoding="utf-8")


def write_texts(folder: Path, texts: Mapping[str, str], option: str) -> tuple[Path, ...]:
    """Writes several UTF-8 files that belong together: all of them, or everything stays as it was.

    All texts lie on the disk before the first takes its place: a full disk or Ctrl-C meets no file that is read.

    Args:
        folder: Made if it does not exist.
        texts: By path below `folder`.
        option: As for `whole_file`.

    Returns:
        The files, in the order of `texts`.

    Raises:
        UsageError: Nothing can be written there.
    """
    paths = {folder / name: text for name, text in texts.items()}
    partials = {path: _partial(path) for path in paths}
    placed: list[Path] = []  # that were not there before
    with _told(folder, option, "another folder"), _made(*(path.parent for path in paths)) as made:
        try:
            for path, text in paths.items():
                if path.is_dir():
                    raise IsADirectoryError(errno.EISDIR, f"{path.name} there is a folder")
                partials[path].write_text(text, encoding="utf-8")
            for path, partial in partials.items():
                placed += [] if path.exists() else [path]
                partial.replace(path)
            placed.clear()
            made.clear()
        finally:
            _remove((*partials.values(), *placed))
    return tuple(paths)


def check_writable(folder: Path, option: str) -> None:
    """Says before long work what writing into a folder would say after it.

    Args:
        folder: Where files shall go; where it does not exist yet, the nearest one above it counts.
        option: As for `whole_file`.

    Raises:
        UsageError: Nothing can be written there.
    """
    with _told(folder, option, "another folder"):
        nearest = next(place for place in (folder, *folder.absolute().parents) if place.exists())
        with tempfile.TemporaryFile(dir=nearest) as trial:
            trial.write(bytes(_TRIAL_BYTES))


def _partial(path: Path) -> Path:
    return path.with_name(f".{path.name}.partial-{os.getpid()}")


@contextlib.contextmanager
def _made(*folders: Path) -> Iterator[list[Path]]:
    """Makes folders with those above them. Yields the new ones, which go with the block unless the list is emptied."""
    new = sorted({place for folder in folders for place in (folder, *folder.parents) if not place.exists()})
    try:
        for folder in folders:
            if folder.is_file():
                raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR))
            folder.mkdir(parents=True, exist_ok=True)
        yield new
    finally:
        _remove(reversed(new))


def _remove(places: Iterable[Path]) -> None:
    """Files, and folders where they are empty: one in which somebody else has written stays."""
    for place in places:
        with contextlib.suppress(OSError):  # on a disk that takes nothing, removing fails like writing did
            if place.is_dir():
                place.rmdir()
            else:
                place.unlink()


@contextlib.contextmanager
def _told(path: Path, option: str, remedy: str) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        why = error.strerror or error
        raise UsageError(f"{option} {path} cannot be written: {why}", remedy=f"name {remedy}") from error
