"""A bundle in the making: a hidden folder beside the target that becomes the bundle in one rename, or vanishes.

    OUT's folder/.NAME.edge.partial-PID/    while converting
    OUT                                      after `publish`, all at once

Whatever ends the conversion before (an error, Ctrl-C, a full disk) removes the hidden folder; a bundle that stood at
OUT before stays as it was until the new one is complete.
"""

from __future__ import annotations

import contextlib
import errno
import io
import os
import re
import shutil
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from edgekit_converters.draft import Draft
from edgekit_runtime.errors import Refused, UsageError
from edgekit_runtime.manifest import FileEntry, Graph, Manifest, dump
from edgekit_runtime.paths import sha256

SUFFIX = ".edge"


class Staging:
    """The hidden folder. `work` is scratch space that never becomes part of the bundle."""

    def __init__(self, root: Path, out: Path) -> None:
        self.root = root
        self.out = out
        self.work = root.with_name(root.name + "-work")
        for folder in (self.work, root / "graphs", root / "golden", root / "assets"):
            folder.mkdir(parents=True)

    def add_graph(self, draft: Draft, recipe_path: str = "") -> Graph:
        """Copies a converted graph in and describes it; fractions and reasons come later."""
        target = self.root / "graphs" / f"{draft.id}{draft.path.suffix}"
        shutil.copyfile(draft.path, target)
        data = [target.parent / extra.relative_to(draft.path.parent) for extra in draft.extra_files]
        for extra, beside in zip(draft.extra_files, data, strict=True):
            beside.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(extra, beside)
        return Graph(
            id=draft.id,
            format=draft.format,
            precision=draft.precision,
            variant=draft.variant,
            role=draft.role,
            targets=draft.targets,
            path=target.relative_to(self.root).as_posix(),
            bytes=sum(file.stat().st_size for file in (target, *data)),
            sha256=sha256(target),
            data=tuple(file.relative_to(self.root).as_posix() for file in data),
            inputs=draft.inputs,
            outputs=draft.outputs,
            signatures=draft.signatures,
            engine=draft.engine,
            min_engine_version=draft.min_engine_version,
            recipe=recipe_path,
            ships_because=draft.why,
        )

    def discard(self, graphs: Sequence[Graph]) -> None:
        """Removes graphs that do not ship, with their recipes."""
        for graph in graphs:
            for name in (graph.path, *graph.data):
                (self.root / name).unlink()
            if graph.recipe:
                (self.root / graph.recipe).unlink()

    def write(self, relative: str, data: bytes) -> str:
        """Writes one file of the bundle and returns its path within."""
        path = self.root / relative
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
        return relative

    def write_arrays(self, relative: str, arrays: Mapping[str, np.ndarray]) -> str:
        """Writes named arrays as an `.npz`."""
        buffer = io.BytesIO()
        np.savez(buffer, **dict[str, Any](arrays))
        return self.write(relative, buffer.getvalue())

    def files(self) -> dict[str, FileEntry]:
        """Size and hash of every file so far, the manifest apart."""
        found = sorted(p for p in self.root.rglob("*") if p.is_file() and p.name != "manifest.json")
        return {p.relative_to(self.root).as_posix(): FileEntry(bytes=p.stat().st_size, sha256=sha256(p)) for p in found}

    def write_manifest(self, manifest: Manifest) -> None:
        """Writes manifest.json."""
        (self.root / "manifest.json").write_bytes(dump(manifest))

    def publish(self) -> Path:
        """Moves the folder to its place; an older bundle there is removed only after."""
        for folder in ("golden", "assets"):
            with contextlib.suppress(OSError):  # an empty folder says nothing
                (self.root / folder).rmdir()
        old = self.root.with_name(self.root.name + "-old")
        if self.out.exists():
            self.out.rename(old)
        try:
            self.root.rename(self.out)
        except OSError:
            if old.exists():
                old.rename(self.out)
            raise
        _remove(old)
        return self.out


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path, ignore_errors=True)
    else:
        with contextlib.suppress(OSError):  # where nothing can be written, removing what is not there fails too
            path.unlink(missing_ok=True)


def check_target(out: Path, *, force: bool) -> None:
    """Refuses a target that exists, or that is not a bundle.

    Raises:
        UsageError: OUT has another suffix, lies below a file, exists without --force, or exists and is no bundle.
    """
    if out.suffix != SUFFIX or not out.stem.strip("."):
        raise UsageError(f"-o {out}: a bundle's name ends with {SUFFIX}", remedy=f"-o {out.with_suffix(SUFFIX)}")
    above = next((folder for folder in out.absolute().parents if folder.exists()), out.absolute().parent)
    if not above.is_dir():
        raise UsageError(f"-o {out}: {above.name} is a file, not a folder", remedy="choose another place")
    if not out.exists():
        return
    if not force:
        raise UsageError(f"{out} exists", remedy="choose another name, or replace it with --force")
    if out.is_dir() and not (out / "manifest.json").is_file() and any(out.iterdir()):
        raise UsageError(
            f"{out} is a folder but no bundle; --force replaces bundles only", remedy="choose another name"
        )


def clear_stale(out: Path) -> None:
    """Removes what a conversion to `out` left when its process was killed (no process of that number lives).

    A bundle that the process had moved aside and not yet replaced goes back to its place.
    """
    import psutil

    form = re.compile(re.escape(f".{out.name}.partial-") + r"(\d+)(-work|-old)?")
    for path in sorted(out.parent.iterdir()) if out.parent.is_dir() else ():
        match = form.fullmatch(path.name)
        if match is None or (int(match[1]) != os.getpid() and psutil.pid_exists(int(match[1]))):
            continue
        if match[2] == "-old" and not out.exists():
            path.rename(out)
        else:
            _remove(path)


@contextlib.contextmanager
def staging(out: Path, *, force: bool = False) -> Iterator[Staging]:
    """Opens a staging folder for `out`; removes it whatever happens.

    Raises:
        UsageError: See `check_target`.
        Refused: No disk space, or no permission to write there.
    """
    clear_stale(out.absolute())
    check_target(out, force=force)
    out = out.absolute()
    root = out.parent / f".{out.name}.partial-{os.getpid()}"
    created = [folder for folder in out.parents if not folder.exists()]
    begun = False
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        stage = Staging(root, out)
        begun = True
        yield stage
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise Refused(
                f"no disk space left in {out.parent}", remedy="free some space or choose another place"
            ) from error
        if not begun or error.errno in (errno.EACCES, errno.EROFS, errno.EPERM):
            raise Refused(f"cannot write in {out.parent}: {error.strerror}", remedy="choose another place") from error
        raise
    finally:
        for leftover in (root, root.with_name(root.name + "-work")):
            _remove(leftover)
        for folder in created:  # deepest first; those that hold the bundle stay
            with contextlib.suppress(OSError):
                folder.rmdir()
