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
    """The full student's inputs, checked; beside them, as attributes, what the small ones take.

    Attributes:
        first: By bundle id of a small student its inputs, in its names.
    """

    first: dict[str, Arrays]


def cascades_of(manifest: Manifest, graph: str) -> tuple[OperatingPoint, ...]:
    """The operating points of cascades whose full student is this graph, in the manifest's order."""
    return tuple(point for point in manifest.operating_points if point.first is not None and point.of == graph)


def digest(first: First, graph_sha256: str) -> str:
    """What `OperatingPoint.chain_sha256` is for a cascade: sha256 over the hashes of the two graphs."""
    return hashlib.sha256(f"{first.sha256}\n{graph_sha256}".encode()).hexdigest()


def check_present(path: str | os.PathLike[str]) -> Path:
    """The path of the small student's bundle.

    Raises:
        Refused: Nothing is there.
    """
    found = Path(path)
    if not found.exists():
        raise Refused(f"the cheaper student {found} does not exist", remedy="give the path of its bundle")
    return found


def open_first(path: str | os.PathLike[str], local: Session, *, several: bool = False) -> FirstStudent:
    """Opens a small student that cascades of an open graph were certified with.

    Args:
        path: Its bundle.
        local: The full student, open.
        several: Other small students are at hand: a request names its inputs `first.STUDENT.NAME`.

    Raises:
        UsageError: The full student has no cascade, or none for its graph.
        Refused: The small bundle is absent, damaged, or another one.
    """
    from edgekit_runtime.bundle import open_bundle
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
    with open_bundle(check_present(path)) as small:
        first = find_first(points, small)
    session = open_session(path, graph=first.graph, threads=local.threads)
    try:
        return FirstStudent(session, first, local.inputs, manifest.axes, several=several)
    except BaseException:
        session.close()
        raise


def find_first(points: Iterable[OperatingPoint], small: Bundle) -> First:
    """What cascades say of a small bundle.

    Raises:
        Refused: None of them was certified with it.
    """
    known = [point.first for point in points if point.first is not None]
    found = next((first for first in known if first.bundle_id == small.bundle_id), None)
    if found is not None:
        return found
    told = dict.fromkeys(f"{first.name}, bundle {first.bundle_id[:16]}…" for first in known)
    raise Refused(
        f"{small.root.name} is bundle {small.bundle_id[:16]}…, the cascade was certified with {' or '.join(told)}",
        remedy="give that bundle as it was, or certify anew: edgekit calibrate-exits BIG.edge --first SMALL.edge",
    )


class FirstStudent:
    """The small student of a cascade, open. Safe to call from several threads.

    Attributes:
        session: It, on the graph that was certified.
        first: What the full student's manifest says of it.
    """

    def __init__(
        self, session: Session, first: First, own: Sequence[Tensor], axes: Iterable[Axis], *, several: bool = False
    ) -> None:
        """Wraps an open session.

        Args:
            session: Of the small student.
            first: What it was certified as.
            own: Inputs of the full student.
            axes: Dynamic axes of the full student.
            several: Its inputs carry its name: `first.STUDENT.NAME`.
        """
        self.session, self.first = session, first
        self._own, self._own_axes = tuple(own), {axis.symbol: axis for axis in axes}
        assert session.bundle is not None
        self._axes = {axis.symbol: axis for axis in session.bundle.manifest.axes}
        prefix = "" if first.shared else f"{PREFIX}{first.name}." if several else PREFIX
        self.inputs = tuple(msgspec.structs.replace(t, name=prefix + t.name) for t in session.inputs)
        self._prefix, self._names = prefix, tuple(tensor.name for tensor in self.inputs)
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
        request.first = {self.first.bundle_id: {n.removeprefix(self._prefix): a for n, a in arrays.items()}}
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
        return self.session.run(request.first[self.first.bundle_id])[self.first.output]

    def rest(self, request: Paired, rows: np.ndarray | None) -> Arrays:
        """The full student's inputs of some samples; None: of all."""
        if rows is None:
            return dict(request)
        return {name: _rows(array, self._places[name], rows) for name, array in request.items()}

    def encode(self, items: Mapping[str, object]) -> Arrays:
        """Raw items as its inputs, named as a request names them; nothing where it takes the full student's."""
        if self.first.shared:
            return {}
        return {f"{self._prefix}{name}": array for name, array in self.session.encode(**items).items()}

    def close(self) -> None:
        """Frees the engine's memory."""
        self.session.close()

    def _dtype(self, name: str) -> str:
        return next(tensor.dtype for tensor in self.session.inputs if tensor.name == name)


class FirstStudents:
    """All small students of a session, by the id of their bundles. Safe to call from several threads.

    Attributes:
        students: They.
    """

    def __init__(self, students: Sequence[FirstStudent] = ()) -> None:
        """Takes open students; `close` closes them.

        Raises:
            UsageError: One twice, or two whose inputs have the same names.
        """
        self.students = tuple(students)
        self._by_id = {student.first.bundle_id: student for student in self.students}
        own = [tensor.name for student in self.students if not student.first.shared for tensor in student.inputs]
        twice = sorted({name for name in own if own.count(name) > 1})
        if len(self._by_id) < len(self.students) or twice:
            told = ", ".join(student.first.name for student in self.students)
            raise UsageError(
                f"the first students {told} are not told apart" + (f": each takes {', '.join(twice)}" if twice else ""),
                remedy="name each bundle once, and convert with different --name",
            )
        self._own = frozenset(own)

    def __getitem__(self, bundle_id: str) -> FirstStudent:
        return self._by_id[bundle_id]

    @property
    def certified(self) -> tuple[tuple[str, str], ...]:
        """Bundle id and graph id of each."""
        return tuple((student.first.bundle_id, student.first.graph) for student in self.students)

    def paired(self, inputs: Mapping[str, Any]) -> Mapping[str, Any]:
        """A request's inputs taken apart and checked; as they are where there is no small student.

        Raises:
            InputMismatch: As `FirstStudent.paired`.
        """
        if len(self.students) < 2:
            return self.students[0].paired(inputs) if self.students else inputs
        requests = []
        for student in self.students:
            others = self._own.difference(tensor.name for tensor in student.inputs)
            requests.append(student.paired({name: array for name, array in inputs.items() if name not in others}))
        requests[0].first = {bundle_id: arrays for request in requests for bundle_id, arrays in request.first.items()}
        return requests[0]

    def encode(self, items: Mapping[str, object]) -> Arrays:
        """Raw items as the inputs of each, named as a request names them."""
        return {name: array for student in self.students for name, array in student.encode(items).items()}

    def close(self) -> None:
        """Frees the engines' memory."""
        for student in self.students:
            student.close()


def _rows(array: np.ndarray, place: int | None, rows: np.ndarray) -> np.ndarray:
    return array if place is None else np.take(array, rows, axis=place)


def _batch(sizes: Mapping[str, int], axes: Mapping[str, Axis]) -> int:
    """Samples of a request: 1 where there is no batch axis."""
    return next((size for symbol, size in sizes.items() if symbol in axes and axes[symbol].role == "batch"), 1)
