"""`--pack`: the finished folder becomes one file of the same name."""

from __future__ import annotations

import shutil
from pathlib import Path

from edgekit_runtime.bundle import Bundle, pack


def pack_in_place(bundle: Bundle) -> Path:
    """Replaces a bundle's folder by its packed file; the folder is removed only after the file is complete."""
    folder = bundle.root
    packed = folder.with_name(f".{folder.name}.packed")
    aside = folder.with_name(f".{folder.name}.folder")
    try:
        pack(bundle, packed)
        folder.rename(aside)
        packed.rename(folder)
    finally:
        if aside.exists() and not folder.exists():  # stopped between the two renames
            aside.rename(folder)
        packed.unlink(missing_ok=True)
        shutil.rmtree(aside, ignore_errors=True)
    return folder
