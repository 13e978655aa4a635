"""Paths inside a bundle: relative, forward slashes, and never out of the folder."""

from __future__ import annotations

import hashlib
import os
import stat
from pathlib import Path, PurePosixPath

from edgekit_runtime.errors import BundleInvalid


def check_name(name: str) -> str:
    """Gives back a path of a bundle that is safe to join to its folder.

    Raises:
        BundleInvalid: Absolute, empty, or with a part that leads out of the folder.
    """
    parts = name.split("/")
    bad = not name or "\\" in name or "\0" in name or ":" in parts[0] or any(part in ("", ".", "..") for part in parts)
    if bad or PurePosixPath(name).is_absolute():
        raise BundleInvalid(
            f"the bundle lists the path {name!r}, which leads out of its folder", remedy="do not use this bundle"
        )
    return name


def inside(folder: Path, name: str) -> Path:
    """The regular file of this name under `folder`.

    Raises:
        BundleInvalid: The name is unsafe, the file is missing, a link (symbolic or hard) or not a plain file.
    """
    path = folder / check_name(name)
    here = folder
    for part in PurePosixPath(name).parts:
        here = here / part
        if here.is_symlink():
            raise BundleInvalid(f"{name} is a symbolic link: it can lead anywhere", remedy="copy the file itself")
    try:
        status = os.lstat(path)
    except OSError as error:
        raise BundleInvalid(f"{name} is missing from the bundle", remedy="copy the bundle again, whole") from error
    if not stat.S_ISREG(status.st_mode):
        raise BundleInvalid(f"{name} is not a plain file", remedy="copy the bundle again")
    if status.st_nlink > 1:
        raise BundleInvalid(
            f"{name} is a hard link: another path can change it", remedy="copy the file itself (cp --no-preserve=links)"
        )
    return path


def sha256(path: Path) -> str:
    """Hash of a file, read in pieces."""
    digest = hashlib.sha256()
    with path.open("rb", buffering=0) as file:
        while piece := file.read(1 << 20):
            digest.update(piece)
    return digest.hexdigest()
