"""The bundle on disk: opened, checked, read, packed.

    NAME.edge/
    ├── manifest.json      everything a device must know; its sha256 is the bundle's identity
    ├── graphs/            every graph beside the weights it shares
    ├── golden/            inputs.npz, and GRAPHID.npz with what each graph answers on them
    ├── assets/            tokenizer/, labels.txt, preprocess.toml
    ├── measurements/      outside the identity: one document a file
    └── reports/           outside the identity

Paths are checked before they are followed, hashes before a graph is opened.
"""

from __future__ import annotations

import contextlib
import dataclasses
import difflib
import hashlib
import os
import re
import tempfile
import threading
from pathlib import Path

import msgspec
import numpy as np

from edgekit_runtime import manifest as schema
from edgekit_runtime import measurement as documents
from edgekit_runtime.errors import BundleInvalid, Refused, UsageError
from edgekit_runtime.manifest import Graph, Manifest
from edgekit_runtime.measurement import Measurement
from edgekit_runtime.paths import check_name, inside, sha256

Arrays = dict[str, np.ndarray]

# Folders in which every file must be listed in the manifest.
_LISTED_FOLDERS = ("graphs", "golden", "assets")
_MAX_DOCUMENT_BYTES = 64 << 20
_MAX_ARRAYS_BYTES = 1 << 30


@dataclasses.dataclass(frozen=True)
class Bundle:
    """An opened bundle. Its folder is only read, except for `add_measurement`.

    Attributes:
        root: Folder with the files.
        manifest: What `manifest.json` says.
        bundle_id: sha256 of `manifest.json`, which lists the sha256 of every other file.
        unpacked: The temporary folder a packed file was unpacked to; None for a folder.
    """

    root: Path
    manifest: Manifest
    bundle_id: str
    unpacked: tempfile.TemporaryDirectory[str] | None = dataclasses.field(default=None, repr=False, compare=False)

    def close(self) -> None:
        """Removes the temporary folder of a packed bundle; nothing to do for a folder."""
        if self.unpacked is not None:
            self.unpacked.cleanup()

    def __enter__(self) -> Bundle:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def graph(self, graph_id: str) -> Graph:
        """The graph of this id.

        Raises:
            UsageError: There is none (names the nearest, and all there are).
        """
        known = [graph.id for graph in self.manifest.graphs]
        if graph_id in known:
            return self.manifest.graphs[known.index(graph_id)]
        near = difflib.get_close_matches(graph_id, known, n=1)
        hint = f"did you mean {near[0]!r}? " if near else ""
        raise UsageError(f"the bundle has no graph {graph_id!r}", remedy=f"{hint}it has: {', '.join(known)}")

    def graph_path(self, graph: Graph | str) -> Path:
        """Path of a graph's file."""
        found = self.graph(graph) if isinstance(graph, str) else graph
        return inside(self.root, found.path)

    def file(self, name: str) -> Path | None:
        """A listed file of the bundle; None when the bundle has none of this name."""
        return inside(self.root, name) if name in self.manifest.files else None

    def golden_inputs(self) -> Arrays:
        """Example inputs, named as the student's; empty when the bundle carries none."""
        return self._arrays("golden/inputs.npz")

    def golden(self) -> dict[str, Arrays]:
        """What each graph answered on the golden inputs when it was made, by graph id."""
        found = {graph.id: self._arrays(f"golden/{graph.id}.npz") for graph in self.manifest.graphs}
        return {graph_id: arrays for graph_id, arrays in found.items() if arrays}

    def _arrays(self, name: str) -> Arrays:
        path = self.file(name)
        return read_arrays(path) if path else {}

    def measurements(self) -> tuple[Measurement, ...]:
        """Every measurement kept beside the bundle, in the order of the files' names.

        Raises:
            BundleInvalid: A document is damaged or newer than this edgekit.
        """
        folder = self.root / "measurements"
        paths = sorted(folder.glob("*.json")) if folder.is_dir() else []
        return tuple(read_measurement(path) for path in paths)

    def add_measurement(self, measurement: Measurement) -> Path:
        """Keeps a measurement beside the bundle, in place of an older one of the same graph, device, engine, threads
        and shapes. The bundle's identity does not change.

        Returns:
            The file written.

        Raises:
            UsageError: The bundle is a packed file.
            OSError: The disk says no; what was there is kept.
        """
        if self.unpacked is not None:
            raise UsageError("a packed bundle cannot keep measurements", remedy="unpack it to a folder first")
        shapes = hashlib.sha256(repr(sorted(measurement.inputs.items())).encode()).hexdigest()[:8]
        parts = (measurement.device, measurement.graph, measurement.engine, f"t{measurement.threads}", shapes)
        kind = "predicted." if measurement.predicted else ""
        name = kind + "-".join(re.sub(r"[^\w.]+", "_", part) for part in parts) + ".json"
        folder = self.root / "measurements"
        folder.mkdir(exist_ok=True)
        data = msgspec.json.format(msgspec.json.encode(measurement, order="sorted"), indent=1) + b"\n"
        partial = folder / f".{name}.partial-{os.getpid()}-{threading.get_ident()}"
        try:
            partial.write_bytes(data)
            return partial.replace(folder / name)
        finally:
            with contextlib.suppress(OSError):
                partial.unlink(missing_ok=True)

    def check_files(self) -> tuple[str, ...]:
        """Proves that every file is the one the manifest lists.

        Returns:
            The names checked, sorted.

        Raises:
            BundleInvalid: Names the first file that is missing, changed, linked, unlisted, or outside the folder.
        """
        self._check_graphs()
        for folder in _LISTED_FOLDERS:
            self._check_unlisted(folder)
        for name, entry in sorted(self.manifest.files.items()):
            path = inside(self.root, name)
            size = path.stat().st_size
            if size != entry.bytes:
                raise _changed(name, f"{size} bytes, the manifest lists {entry.bytes}")
            digest = sha256(path)
            if digest != entry.sha256:
                raise _changed(name, f"sha256 {digest[:12]}…, the manifest lists {entry.sha256[:12]}…")
        return tuple(sorted(self.manifest.files))

    def _check_graphs(self) -> None:
        for graph in self.manifest.graphs:
            check_name(graph.path)
            entry = self.manifest.files.get(graph.path)
            data = [self.manifest.files.get(name) for name in graph.data]
            size = sum(found.bytes for found in (entry, *data) if found is not None)
            if entry is None or None in data or (entry.sha256, size) != (graph.sha256, graph.bytes):
                raise BundleInvalid(
                    f"graph {graph.id}: {graph.path} or its data are not in the manifest's files with its own hash",
                    remedy="convert the student again",
                )

    def _check_unlisted(self, folder: str) -> None:
        for here, folders, files in os.walk(self.root / folder):
            for name in (*files, *(item for item in folders if (Path(here) / item).is_symlink())):
                path = (Path(here) / name).relative_to(self.root).as_posix()
                if path not in self.manifest.files:
                    raise BundleInvalid(
                        f"{path} is not listed in the manifest", remedy="remove the file, or copy the bundle again"
                    )


def _changed(name: str, how: str) -> BundleInvalid:
    return BundleInvalid(f"{name} is not the file that was converted: {how}", remedy="copy the bundle again, whole")


def open_bundle(path: str | os.PathLike[str], unpack_to: str | os.PathLike[str] | None = None) -> Bundle:
    """Opens a bundle: a folder, or a packed file.

    Hashes are not checked here (`Bundle.check_files`, which `edgekit_runtime.open` calls).

    Args:
        path: The folder `NAME.edge/` or the file that `--pack` wrote.
        unpack_to: New or empty folder for a packed file; None: a temporary folder, removed by `close` or at exit.

    Raises:
        Refused: Nothing is there, or it is no bundle.
        BundleInvalid: The manifest is missing, damaged, newer than this edgekit, or names unsafe paths.
    """
    path = Path(path)
    if path.is_dir():
        return _read(path)
    import zipfile  # 4 ms of import that a folder does not owe

    from edgekit_runtime import packed

    if not path.is_file():
        raise Refused(f"{path} does not exist", remedy="check the path; a bundle is a folder or a file NAME.edge")
    if not zipfile.is_zipfile(path):
        raise Refused(f"{path.name} is not a bundle", remedy="make one: edgekit convert SOURCE -o NAME.edge")
    if unpack_to is not None:
        packed.unpack(path, Path(unpack_to))
        return _read(Path(unpack_to))
    folder = tempfile.TemporaryDirectory(prefix="edgekit-bundle-")
    try:
        packed.unpack(path, Path(folder.name))
        return dataclasses.replace(_read(Path(folder.name)), unpacked=folder)
    except BaseException:
        folder.cleanup()
        raise


def _read(root: Path) -> Bundle:
    if not (root / "manifest.json").exists():
        raise BundleInvalid(f"{root.name} has no manifest.json", remedy="check the path, or convert the student again")
    path = inside(root, "manifest.json")
    if path.stat().st_size > _MAX_DOCUMENT_BYTES:
        raise BundleInvalid("manifest.json is larger than 64 MiB", remedy="do not use this bundle")
    data = path.read_bytes()
    manifest = schema.load(data)
    for name in manifest.files:
        check_name(name)
    return Bundle(root, manifest, schema.bundle_id(data))


def pack(bundle: Bundle, path: str | os.PathLike[str]) -> Path:
    """Writes a bundle as one file. Equal bundles give equal bytes; measurements and reports stay outside."""
    from edgekit_runtime import packed

    target = Path(path)
    packed.write(bundle.root, ["manifest.json", *bundle.manifest.files], target)
    return target


def read_arrays(path: Path) -> Arrays:
    """Reads an `.npz`; never unpickles.

    Raises:
        BundleInvalid: Not an npz, an array of objects, or larger than 1 GiB.
    """
    import zipfile

    try:
        with zipfile.ZipFile(path) as archive:
            if sum(entry.file_size for entry in archive.infolist()) > _MAX_ARRAYS_BYTES:
                raise BundleInvalid(f"{path.name} unpacks to more than 1 GiB", remedy="do not use this bundle")
        with np.load(path, allow_pickle=False) as arrays:
            return {name: arrays[name] for name in arrays.files}
    except (OSError, ValueError, zipfile.BadZipFile) as error:
        raise BundleInvalid(
            f"{path.name} is not a readable npz: {error}",
            remedy="copy it again, or write it with numpy.savez(FILE, NAME=array, ...); arrays of objects are not read",
        ) from error


def read_measurement(path: Path) -> Measurement:
    """Reads one measurement document.

    Raises:
        BundleInvalid: Damaged, or of a schema this edgekit does not know.
    """
    try:
        data = path.read_bytes()
        found = msgspec.json.decode(data, type=dict[str, object]).get("schema")
        if found == documents.SCHEMA:
            return msgspec.json.decode(data, type=Measurement)
    except (msgspec.MsgspecError, OSError) as error:
        raise BundleInvalid(
            f"measurements/{path.name} is not a measurement: {error}", remedy="remove it and profile again"
        ) from error
    raise BundleInvalid(
        f"measurements/{path.name} has schema {found!r}; this edgekit reads {documents.SCHEMA!r}",
        remedy="upgrade edgekit (pip install -U edgekit), or remove the file and profile again",
    )
