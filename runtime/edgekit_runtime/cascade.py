"""Two students, the cheaper one first: what it is not sure of goes to the full one, here or on a server.

    raw text ─ encode ─► first.ids ─► small ─ sure? ──yes──────────────────► answered
             └ encode ─► ids, mask          └ no: these rows ─► the full student ─► answered

Both answer the same question with the same classes in the same order; their inputs may differ. The operating point
(`OperatingPoint.first`) names the small student's bundle by its id: its certificate holds for these very files.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np

from edgekit_runtime.errors import InputMismatch, Refused, UsageError
from edgekit_runtime.manifest import Axis, First, Manifest, OperatingPoint, Tensor
from edgekit_runtime.tensors import Arrays, batch_place, check

if TYPE_CHECKING:
    from edgekit_runtime.bundle import Bundle
    from edgekit_runtime.session import Session

_MAX_KNOWN = 256
PREFIX = "first."  # of the small student's arrays beside the full student's


class Paired(dict[str, Any]):
    """The full student's inputs, checked; beside them, as attributes, what the small one takes.

    Attributes:
        first: Its inputs, in its names.
    """

    first: Arrays


def cascades_of(manifest: Manifest, graph: str) -> tuple[OperatingPoint, ...]:
    """The operating points of cascades whose full student is this graph, in the manifest's order."""
    return tuple(point for point in manifest.operating_points if point.first is not None and point.of == graph)


def digest(first: First, graph_sha256: str) -> str:
    """What `OperatingPoint.chain_sha256` is for a cascade: sha256 over the hashes of the two graphs."""
    return hashlib.sha256(f"{first.sha256}\n{graph_sha256}".encode()).hexdigest()


def check_identity(bundle: Bundle, first: First) -> None:
    """Refuses another bundle than the one that the cascade was certified with.

    Raises:
        Refused: The bundle's id is another.
    """
    if bundle.bundle_id != first.bundle_id:
        raise Refused(
            f"{bundle.root.name} is bundle {bundle.bundle_id[:16]}…, the cascade was certified with {first.name}, "
            f"bundle {first.bundle_id[:16]}…",
            remedy="give that bundle as it was, or certify anew: edgekit calibrate-exits BIG.edge --first SMALL.edge",
        )


def check_present(path: str | os.PathLike[str]) -> Path:
    """The path of the small student's bundle.

    Raises:
        Refused: Nothing is there.
    """
    found = Path(path)
    if not found.exists():
        raise Refused(f"the cheaper student {found} does not exist", remedy="give the path of its bundle")
    return found


def open_first(path: str | os.PathLike[str], local: Session) -> FirstStudent:
    """Opens the small student that the cascades of an open graph were certified with.

    Args:
        path: Its bundle.
        local: The full student, open.

    Raises:
        UsageError: The full student has no cascade, or none for its graph.
        Refused: The small bundle is absent, damaged, or another one.
    """
    from edgekit_runtime.session import open as open_session

    assert local.bundle is not None
    manifest = local.bundle.manifest
    points = cascades_of(manifest, local.graph.id)
    if not points:
        others = sorted({point.of for point in manifest.operating_points if point.first is not None})
        raise UsageError(
            f"no cascade is certified for {local.graph.id} of {local.bundle.root.name}",
            remedy=f"graph={others[0]!r}" if others else "edgekit calibrate-exits BIG.edge --first SMALL.edge",
        )
    first = points[0].first
    assert first is not None
    session = open_session(check_present(path), graph=first.graph, threads=local.threads)
    try:
        assert session.bundle is not None
        check_identity(session.bundle, first)
        return FirstStudent(session, first, local.inputs, manifest.axes)
    except BaseException:
        session.close()
        raise


class FirstStudent:
    """The small student of a cascade, open. Safe to call from several threads.

    Attributes:
        session: It, on the graph that was certified.
        first: What the full student's manifest says of it.
    """

    def __init__(self, session: Session, first: First, own: Sequence[Tensor], axes: Iterable[Axis]) -> None:
        """Wraps an open session.

        Args:
            session: Of the small student.
            first: What it was certified as.
            own: Inputs of the full student.
            axes: Dynamic axes of the full student.
        """
        self.session, self.first = session, first
        self._own, self._own_axes = tuple(own), {axis.symbol: axis for axis in axes}
        assert session.bundle is not None
        self._axes = {axis.symbol: axis for axis in session.bundle.manifest.axes}
        prefix = "" if first.shared else PREFIX
        self.inputs = tuple(msgspec.structs.replace(t, name=prefix + t.name) for t in session.inputs)
        self._prefix, self._names = len(prefix), tuple(tensor.name for tensor in self.inputs)
        self._known: set[tuple[object, ...]] = set()
        self._places = {tensor.name: batch_place(tensor, self._own_axes.values()) for tensor in self._own}

    def golden(self, own: Mapping[str, np.ndarray]) -> Arrays:
        """An example of one sample in its names: the full student's where it takes the same arrays, else its own."""
        if self.first.shared:
            return {tensor.name: np.asarray(own[tensor.name], tensor.dtype) for tensor in self.session.inputs}
        assert self.session.bundle is not None
        found = self.session.bundle.golden_inputs()
        if not found:
            raise Refused(f"{self.first.name} has no golden inputs to measure its time with", remedy="convert it again")
        places = {tensor.name: batch_place(tensor, self._axes.values()) for tensor in self.session.inputs}
        return {
            name: np.asarray(_rows(found[name], place, np.zeros(1, np.int64)), self._dtype(name))
            for name, place in places.items()
        }

    def paired(self, inputs: Mapping[str, Any]) -> Paired:
        """A request's inputs taken apart and checked.

        Raises:
            InputMismatch: Those of either student are missing or do not fit, or they hold different numbers of samples.
        """
        key = tuple([(name, getattr(v, "dtype", None), getattr(v, "shape", None)) for name, v in inputs.items()])
        known = key in self._known  # names, dtypes and shapes seen before are not checked again
        mine = {name: inputs[name] for name in self._names if name in inputs}
        own = {name: array for name, array in inputs.items() if self.first.shared or name not in mine}
        checked, arrays = (own, mine) if known else self._checked(own, mine)
        same = all(array is own[name] for name, array in checked.items())
        if not known and same and all(array is mine[name] for name, array in arrays.items()):
            if len(self._known) >= _MAX_KNOWN:
                self._known.clear()
            self._known.add(key)
        request = Paired(checked)
        request.first = {name[self._prefix :]: array for name, array in arrays.items()}
        return request

    def _checked(self, own: Mapping[str, Any], mine: Mapping[str, Any]) -> tuple[Arrays, Arrays]:
        absent = sorted(set(self._names) - set(mine))
        if absent:
            raise InputMismatch(
                f"the request lacks {', '.join(absent)}, which the cascade's first student takes",
                remedy="session.encode(text=...) makes the inputs of both, or give these arrays beside the others",
            )
        checked, own_sizes = check(self._own, self._own_axes, own)
        arrays, sizes = check(self.inputs, self._axes, mine)
        counts = [_batch(own_sizes, self._own_axes), _batch(sizes, self._axes)]
        if counts[0] != counts[1]:
            raise InputMismatch(
                f"{counts[0]} samples for the student, {counts[1]} for the one that is asked first",
                remedy="the same samples for both, in the same order",
            )
        return checked, arrays

    def scores(self, request: Paired) -> np.ndarray:
        """What it says: [samples, ..., classes]."""
        return self.session.run(request.first)[self.first.output]

    def rest(self, request: Paired, rows: np.ndarray | None) -> Arrays:
        """The full student's inputs of some samples; None: of all."""
        if rows is None:
            return dict(request)
        return {name: _rows(array, self._places[name], rows) for name, array in request.items()}

    def encode(self, items: Mapping[str, object]) -> Arrays:
        """Raw items as its inputs, named as a request names them; nothing where it takes the full student's."""
        if self.first.shared:
            return {}
        return {f"{PREFIX}{name}": array for name, array in self.session.encode(**items).items()}

    def close(self) -> None:
        """Frees the engine's memory."""
        self.session.close()

    def _dtype(self, name: str) -> str:
        return next(tensor.dtype for tensor in self.session.inputs if tensor.name == name)


def _rows(array: np.ndarray, place: int | None, rows: np.ndarray) -> np.ndarray:
    return array if place is None else np.take(array, rows, axis=place)


def _batch(sizes: Mapping[str, int], axes: Mapping[str, Axis]) -> int:
    """Samples of a request: 1 where there is no batch axis."""
    return next((size for symbol, size in sizes.items() if symbol in axes and axes[symbol].role == "batch"), 1)
