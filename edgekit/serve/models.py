"""What a server holds: the full model of each bundle under its name, and each tail under NAME.tail.SPLITPOINT."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

import edgekit_runtime as er
from edgekit_runtime import engines as registry
from edgekit_runtime.bundle import Bundle, open_bundle
from edgekit_runtime.chain import Chain
from edgekit_runtime.engines.base import Arrays
from edgekit_runtime.errors import InputMismatch, Refused, UsageError
from edgekit_runtime.manifest import Graph, SplitPoint, Tensor
from edgekit_runtime.remote.pieces import Piece, batch_axis, runner, tail_sha256
from edgekit_runtime.tensors import convert

_MAX_FITTING = 256


@dataclasses.dataclass
class Model:
    """One thing that can be called.

    Attributes:
        name: As clients call it.
        version: As the manifest says.
        inputs: What it takes; symbols are free sizes, -1 on the wire.
        outputs: What it gives.
        sha256: Of its graph, or of the hashes of its segments.
        known: Hashes that a client may mean by it: of a full model those of all its full graphs, as the device may run
            another one than the server.
        batch: Symbol of the batch axis that stands first in every tensor; empty: requests cannot be joined.
        piece: Runs it.
    """

    name: str
    version: str
    inputs: tuple[Tensor, ...]
    outputs: tuple[Tensor, ...]
    sha256: str
    batch: str
    piece: Piece
    known: frozenset[str] = frozenset()
    # Names, dtypes and shapes that were checked, and fit as they are.
    _fitting: set[tuple[object, ...]] = dataclasses.field(default_factory=set)

    def run(self, tensors: Mapping[str, np.ndarray]) -> Arrays:
        """Runs one request or a batch of them."""
        return self.piece.run(tensors)

    def taken(self, tensors: Arrays) -> Arrays:
        """The tensors of a request as the graph takes them: names, dtypes and shapes are checked.

        Integers of another width become its own, as in a session: a device that runs the ONNX graph sends int64 to a
        server that runs the TFLite one, which takes int32.

        Raises:
            InputMismatch: What was got and what is allowed.
        """
        if _key(tensors) in self._fitting:
            return tensors
        for tensor in self.inputs:
            given = tensors.get(tensor.name)
            if given is not None and given.dtype.name != tensor.dtype and given.dtype.kind in "iu":
                array, problem = convert(tensor, given)
                if array is None:
                    raise InputMismatch(problem, remedy=f"{tensor.dtype} {list(tensor.shape)}")
                tensors = {**tensors, tensor.name: array}
        self._check(tensors)
        return tensors

    def _check(self, tensors: Arrays) -> None:
        wanted = {tensor.name: tensor for tensor in self.inputs}
        if set(tensors) != set(wanted):
            raise InputMismatch(f"{self.name} got {sorted(tensors)}", remedy=f"it takes {sorted(wanted)}")
        sizes: dict[str, int] = {}
        for name, array in tensors.items():
            tensor = wanted[name]
            fits = array.dtype.name == tensor.dtype and array.ndim == len(tensor.shape)
            for symbol, size in zip(tensor.shape, array.shape, strict=False):
                known = sizes.setdefault(symbol, size) if isinstance(symbol, str) else symbol
                fits = fits and size == known and size > 0
            if not fits:
                raise InputMismatch(
                    f"{name} is {array.dtype} {list(array.shape)}", remedy=f"{tensor.dtype} {list(tensor.shape)}"
                )
        if len(self._fitting) >= _MAX_FITTING:  # shapes come from outside: not as many as somebody likes
            self._fitting.clear()
        self._fitting.add(_key(tensors))

    def close(self) -> None:
        """Frees the engines."""
        self.piece.close()


def _key(tensors: Arrays) -> tuple[object, ...]:
    return tuple([(name, array.dtype, array.shape) for name, array in tensors.items()])


class Models:
    """All models of all bundles."""

    def __init__(self, paths: Sequence[Path], threads: int = 1) -> None:
        """Opens bundles and checks their files.

        Raises:
            UsageError: Two bundles have one name.
            Refused: A bundle cannot be taken.
        """
        self._bundles: list[Bundle] = []
        self._models: dict[str, Model] = {}
        self._by_path: dict[Path, list[str]] = {}
        try:
            for path in paths:
                self._add(path, threads)
        except BaseException:
            self.close()
            raise

    def __iter__(self):  # type: ignore[no-untyped-def]  # of Model
        return iter(self._models.values())

    def get(self, name: str, version: str = "") -> Model:
        """A model by its name.

        Raises:
            Refused: It is not here, or not in that version.
        """
        found = self._models.get(name)
        if found is None or version not in ("", found.version):
            wanted = f"{name[:100]!r}" + (f" in version {version[:20]!r}" if version else "")
            raise Refused(f"there is no model {wanted}", remedy=f"there are: {', '.join(self._models)}")
        return found

    def of(self, path: Path) -> list[Model]:
        """The models of one of the bundles, the full one first."""
        return [self._models[name] for name in self._by_path[path]]

    def free(self) -> None:
        """Frees the engines of all models; what they take and give is still known, `run` no longer works."""
        for model in self._models.values():
            model.close()

    def _add(self, path: Path, threads: int) -> None:
        bundle = open_bundle(path)
        self._bundles.append(bundle)
        bundle.check_files()
        manifest = bundle.manifest
        with er.open(path, threads=threads) as session:  # the best graph for this machine, chosen as on a device
            graph, engine = session.graph, session.engine_name
        before = set(self._models)
        self._put(self._full(bundle, graph, engine, threads))
        for point in manifest.split_points:
            if registry.for_format(bundle.graph(point.of).format):
                self._put(self._tail(bundle, point, threads))
        self._by_path[path] = [name for name in self._models if name not in before]

    def _put(self, model: Model) -> None:
        if model.name in self._models:
            model.close()
            raise UsageError(f"two bundles have the model {model.name!r}", remedy="convert one with another --name")
        self._models[model.name] = model

    def _full(self, bundle: Bundle, graph: Graph, engine: str, threads: int) -> Model:
        manifest = bundle.manifest
        step = runner(bundle, graph, engine, threads)
        return Model(
            name=manifest.name,
            version=str(manifest.version),
            inputs=step.inputs,
            outputs=step.outputs,
            sha256=graph.sha256,
            batch=batch_axis(bundle.manifest, (*step.inputs, *step.outputs)),
            piece=step,
            known=frozenset(row.sha256 for row in manifest.graphs if row.role == "full"),
        )

    def _tail(self, bundle: Bundle, point: SplitPoint, threads: int) -> Model:
        tail = Chain(bundle, point.of, start=point.id, threads=threads)
        return Model(
            name=f"{bundle.manifest.name}.tail.{point.id}",
            version=str(bundle.manifest.version),
            inputs=tail.inputs,
            outputs=tail.outputs,
            sha256=tail_sha256(bundle, point),
            batch=batch_axis(bundle.manifest, (*tail.inputs, *tail.outputs)),
            piece=tail,
            known=frozenset({tail_sha256(bundle, point)}),
        )

    def close(self) -> None:
        """Frees everything."""
        self.free()
        for bundle in self._bundles:
            bundle.close()
