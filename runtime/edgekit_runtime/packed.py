"""The single-file form of a bundle: a zip whose entries are stored, not compressed.

Equal bundles make equal files: entries in the order of their names, one date, one mode. Stored entries cannot grow on
unpacking, so that a small hostile file cannot fill the disk.
"""

from __future__ import annotations

import shutil
import stat
import zipfile
from pathlib import Path

from edgekit_runtime.errors import BundleInvalid, UsageError
from edgekit_runtime.paths import check_name

MAX_ENTRIES = 10_000
MAX_TOTAL_BYTES = 16 << 30
_DATE = (1980, 1, 1, 0, 0, 0)
_MODE = (stat.S_IFREG | 0o644) << 16
_COPY_BYTES = 1 << 20


def write(folder: Path, names: list[str], path: Path) -> None:
    """Packs the files `names` of `folder` into `path`; a half-written file is never left under that name.

    Raises:
        UsageError: `path` lies inside the folder.
    """
    if folder.resolve() in path.resolve().parents:
        raise UsageError(f"{path} lies inside the bundle itself", remedy="pack to another folder")
    part = path.with_name(path.name + ".part")
    try:
        with zipfile.ZipFile(part, "w", zipfile.ZIP_STORED) as archive:
            for name in sorted(names):
                entry = zipfile.ZipInfo(name, _DATE)
                entry.external_attr = _MODE
                entry.create_system = 3
                entry.file_size = (folder / name).stat().st_size
                with archive.open(entry, "w") as target, (folder / name).open("rb") as source:
                    shutil.copyfileobj(source, target, _COPY_BYTES)
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)


def unpack(path: Path, folder: Path) -> None:
    """Unpacks a packed bundle into an empty or new folder.

    Raises:
        BundleInvalid: Not a zip; an entry that is compressed, a link, listed twice, or leads out of the folder; too
            many or too large entries; a damaged entry.
        UsageError: The folder holds something already.
    """
    if folder.exists() and any(folder.iterdir()):
        raise UsageError(f"{folder} is not empty", remedy="unpack to a new folder")
    try:
        with zipfile.ZipFile(path) as archive:
            entries = archive.infolist()
            _check(path, entries)
            for entry in entries:
                if entry.is_dir():
                    continue
                target = folder / entry.filename
                target.parent.mkdir(parents=True, exist_ok=True)
                with archive.open(entry) as source, target.open("xb") as file:
                    shutil.copyfileobj(source, file, _COPY_BYTES)
    except (zipfile.BadZipFile, EOFError, FileExistsError, NotADirectoryError) as error:
        raise BundleInvalid(f"{path.name} is no whole packed bundle: {error}", remedy="copy the file again") from error


def _check(path: Path, entries: list[zipfile.ZipInfo]) -> None:
    if len(entries) > MAX_ENTRIES or sum(entry.file_size for entry in entries) > MAX_TOTAL_BYTES:
        raise BundleInvalid(
            f"{path.name} unpacks to more than {MAX_ENTRIES} files or {MAX_TOTAL_BYTES} bytes",
            remedy="do not use this bundle",
        )
    seen: set[str] = set()
    for entry in entries:
        name = check_name(entry.filename.removesuffix("/"))
        if stat.S_ISLNK(entry.external_attr >> 16):
            raise BundleInvalid(f"{path.name} holds a symbolic link: {name}", remedy="do not use this bundle")
        if entry.compress_type != zipfile.ZIP_STORED or entry.compress_size != entry.file_size:
            raise BundleInvalid(f"{name} in {path.name} is compressed", remedy="pack the bundle with `--pack`")
        if name in seen:
            raise BundleInvalid(f"{path.name} holds {name} twice", remedy="do not use this bundle")
        seen.add(name)
