"""The agent's folder: what workstations brought, each content once, under the hash of what it holds."""

from __future__ import annotations

import errno
import hashlib
import shutil
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import msgspec

from edgekit.agent.wire import Offer, OfferedFile
from edgekit_runtime.errors import Refused
from edgekit_runtime.paths import check_name, sha256

MOST_FILES = 5000
_SPARE_BYTES = 64 << 20  # left free on the disk: the profile itself writes inputs and documents
_ABANDONED_S = 3600.0
_BARE = (".onnx", ".tflite", ".data")


class Store:
    """Contents under one folder.

    Args:
        folder: Exists; only the agent writes into it.
        most_bytes: All contents together; the oldest go when a new one needs the room.
    """

    def __init__(self, folder: Path, most_bytes: int) -> None:
        self._folder, self._most = folder, most_bytes

    def open(self, offer: Offer) -> tuple[str, tuple[OfferedFile, ...]]:
        """Makes room for what is offered.

        Returns:
            The content's name, and the files that are still missing.

        Raises:
            Refused: Unsafe names, more than is taken, or no room on the disk.
        """
        check(offer, self._most)
        name = content_id(offer)
        root = self._folder / name / offer.name if not offer.bare else self._folder / name
        missing = tuple(file for file in offer.files if not _same(root / file.path, file))
        self._make_room(name, sum(file.bytes for file in missing))
        root.mkdir(parents=True, exist_ok=True)
        return name, missing

    def path(self, content: str) -> Path:
        """What is to be profiled of a stored content.

        Raises:
            Refused: There is no such content.
        """
        marker = self._folder / f"{content}.json"
        if not content.isalnum() or not marker.is_file():
            raise Refused("the agent does not hold this content", remedy="offer it first")
        offer = msgspec.json.decode(marker.read_bytes(), type=Offer)
        return self._folder / content / (offer.name if not offer.bare else offer.files[0].path)

    def take(self, content: str, offer: Offer, file: OfferedFile, piece: Callable[[], bytes]) -> None:
        """Writes one file from its pieces and proves its hash.

        Raises:
            Refused: Too many bytes, another hash, or a full disk.
        """
        root = self._folder / content / offer.name if not offer.bare else self._folder / content
        path = root / check_name(file.path)
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with tempfile.NamedTemporaryFile(dir=path.parent, prefix=".part-", delete=False) as part:
                try:
                    _receive(part.write, file, piece)
                    part.flush()
                    Path(part.name).replace(path)
                except BaseException:
                    Path(part.name).unlink(missing_ok=True)
                    raise
        except OSError as error:
            raise disk_error(error) from error

    def finish(self, content: str, offer: Offer) -> None:
        """Marks a content as whole."""
        try:
            (self._folder / f"{content}.json").write_bytes(msgspec.json.encode(offer))
        except OSError as error:
            raise disk_error(error) from error

    def _forget_abandoned(self, keep: str) -> None:
        """Removes what was begun and not finished long ago: the workstation was lost."""
        for path in self._folder.iterdir():
            begun = path.is_dir() and path.name != keep and not path.with_name(f"{path.name}.json").is_file()
            if begun and time.time() - path.stat().st_mtime > _ABANDONED_S:
                shutil.rmtree(path, ignore_errors=True)

    def _make_room(self, keep: str, needed: int) -> None:
        self._forget_abandoned(keep)
        held = sorted(
            (path for path in self._folder.glob("*.json") if path.stem != keep), key=lambda p: p.stat().st_mtime
        )
        used = {path.stem: _size(self._folder / path.stem) for path in held}
        while held and (sum(used.values()) + needed > self._most or needed + _SPARE_BYTES > self._free()):
            oldest = held.pop(0)
            oldest.unlink()
            shutil.rmtree(self._folder / oldest.stem, ignore_errors=True)
            del used[oldest.stem]
        free = self._free()
        if needed + _SPARE_BYTES > free:
            raise Refused(
                f"the agent's disk has too little room: {needed / 1e6:.0f} MB are to come and {_SPARE_BYTES / 1e6:.0f} "
                f"MB stay free for the profile, {free / 1e6:.0f} MB are there",
                remedy="free room there, or start the agent with --folder on another disk",
            )

    def _free(self) -> int:
        return shutil.disk_usage(self._folder).free


def check(offer: Offer, most_bytes: int) -> None:
    """Refuses an offer that could leave the folder or is more than is taken (pure).

    Raises:
        Refused: It does.
    """
    check_name(offer.name)
    names = [check_name(file.path) for file in offer.files]
    if "/" in offer.name or offer.name.startswith(".") or len(set(names)) != len(names):
        raise Refused(f"{offer.name!r} is no name for a content, or lists a file twice")
    if not 0 < len(names) <= MOST_FILES:
        raise Refused(f"{len(names)} files are offered; 1 to {MOST_FILES} are taken")
    if offer.bare and (len(names) > 2 or any("/" in name or Path(name).suffix not in _BARE for name in names)):
        raise Refused("a bare graph is one .onnx or .tflite file, with its .data beside it")
    total = sum(file.bytes for file in offer.files)
    if total > most_bytes or any(file.bytes < 0 for file in offer.files):
        raise Refused(
            f"{total / 1e6:.0f} MB are offered, the agent takes {most_bytes / 1e6:.0f} MB",
            remedy="slim the bundle, or start the agent with a higher --most-mb",
        )


def content_id(offer: Offer) -> str:
    """Hash of names and contents of all files."""
    listed = sorted((file.path, file.bytes, file.sha256) for file in offer.files)
    return hashlib.sha256(msgspec.json.encode([offer.name, offer.bare, listed])).hexdigest()


def disk_error(error: OSError) -> Refused:
    """A failure of the disk, in words."""
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return Refused("the agent's disk is full", remedy="free room there, or start it with --folder on another disk")
    return Refused(f"the agent cannot write: {error.strerror}", remedy="look at the folder it was started with")


def _receive(write: Callable[[bytes], object], file: OfferedFile, piece: Callable[[], bytes]) -> None:
    digest, left = hashlib.sha256(), file.bytes
    while left:
        data = piece()
        if not data or len(data) > left:
            raise Refused(f"{file.path} came with more or fewer bytes than offered")
        write(data)
        digest.update(data)
        left -= len(data)
    if digest.hexdigest() != file.sha256:
        raise Refused(f"{file.path} came with another hash than offered", remedy="send the bundle again")


def _same(path: Path, file: OfferedFile) -> bool:
    return (
        path.is_file() and not path.is_symlink() and path.stat().st_size == file.bytes and sha256(path) == file.sha256
    )


def _size(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
