"""What a server holds: of each bundle the full model under its name, and each tail under NAME.tail.SPLITPOINT.

A bundle has several full graphs, which answer a little differently. The quickest here has the bundle's name; the others
stand under NAME.graph.ID, and run for clients that mean them by their hash.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType

import numpy as np

import edgekit_runtime as er
from edgekit_runtime import engines as registry
from edgekit_runtime.bundle import Bundle, open_bundle
from edgekit_runtime.chain import Chain
from edgekit_runtime.engines.base import Arrays
from edgekit_runtime.errors import EdgekitError, InputMismatch, Refused, UsageError
from edgekit_runtime.manifest import Graph, SplitPoint, Tensor
from edgekit_runtime.remote.pieces import Piece, batch_axis, runner, tail_sha256
from edgekit_runtime.tensors import convert

_MAX_FITTING = 256


class WrongGraph(Refused):
    """The client means a graph that is not here, or that does not run here."""


@dataclasses.dataclass
class Model:
    """One thing that can be called.

    Attributes:
        name: As clients call it.
        version: As the manifest says.
        inputs: What it takes; symbols are free sizes, -1 on the wire.
        outputs: What it gives.
        sha256: Of its graph, or of the hashes of its segments.
        graph: Id of the full graph it runs; of a tail, of the graph it is cut from.
        known: By the hash of each full graph of its bundle, the name of the model that runs it here; empty: no engine
            of this machine does. A tail has none.
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
    graph: str = ""
    known: Mapping[str, str] = dataclasses.field(default_factory=dict)
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

    def __init__(self, paths: Sequence[Path], threads: int = 1, graph: str | None = None) -> None:
        """Opens bundles and checks their files.

        Args:
            paths: Of the bundles.
            threads: Of one run.
            graph: That has the bundles' names; None: the best for this machine, chosen as on a device.

        Raises:
            UsageError: Two bundles have one name.
            Refused: A bundle cannot be taken.
        """
        self._bundles: list[Bundle] = []
        self._models: dict[str, Model] = {}
        self._aliases: dict[str, str] = {}  # NAME.graph.ID of the graph that has the bundle's name
        self._by_path: dict[Path, list[str]] = {}
        try:
            for path in paths:
                self._add(path, threads, graph)
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
        found = self._models.get(self._aliases.get(name, name))
        if found is None or version not in ("", found.version):
            wanted = f"{name[:100]!r}" + (f" in version {version[:20]!r}" if version else "")
            raise Refused(f"there is no model {wanted}", remedy=f"there are: {', '.join(self._models)}")
        return found

    def meant(self, model: Model, sha256: str) -> Model:
        """The model of a graph's hash, for a client that asked for a bundle by its name.

        Raises:
            WrongGraph: The bundle here has no such graph, or this machine no engine for it.
        """
        if sha256 == model.sha256:
            return model
        if sha256 not in model.known:
            raise WrongGraph("another version of this graph is here", remedy="serve the bundle that the device has")
        if not (name := model.known[sha256]):
            raise WrongGraph(
                f"the server has no engine for the graph that the device runs, it runs {model.graph}",
                remedy=f"install its engine on the server, or open the device's session with graph={model.graph!r}",
            )
        return self._models[name]

    def of(self, path: Path) -> list[Model]:
        """The models of one of the bundles, the full one first."""
        return [self._models[name] for name in self._by_path[path]]

    def free(self) -> None:
        """Frees the engines of all models; what they take and give is still known, `run` no longer works."""
        for model in self._models.values():
            model.close()

    def _add(self, path: Path, threads: int, wanted: str | None) -> None:
        bundle = open_bundle(path)
        self._bundles.append(bundle)
        bundle.check_files()
        manifest = bundle.manifest
        with er.open(path, graph=wanted, threads=threads) as session:
            best, engine = session.graph, session.engine_name
        before = set(self._models)
        known = {best.sha256: manifest.name}
        others = {}
        for graph in manifest.graphs:
            if graph.role == "full" and graph.sha256 not in known:
                runs = others[graph.id] = _engine(path, graph, threads)
                known[graph.sha256] = f"{manifest.name}.graph.{graph.id}" if runs else ""
        self._put(self._full(bundle, manifest.name, best, engine, threads, known))
        self._aliases[f"{manifest.name}.graph.{best.id}"] = manifest.name
        for name, runs in others.items():
            if runs:
                full = self._full(bundle, f"{manifest.name}.graph.{name}", bundle.graph(name), runs, threads)
                self._put(full)
        for point in manifest.split_points:
            if registry.for_format(bundle.graph(point.of).format):
                self._put(self._tail(bundle, point, threads))
        self._by_path[path] = [name for name in self._models if name not in before]

    def _put(self, model: Model) -> None:
        if model.name in self._models:
            model.close()
            raise UsageError(f"two bundles have the model {model.name!r}", remedy="convert one with another --name")
        self._models[model.name] = model

    def _full(
        self,
        bundle: Bundle,
        name: str,
        graph: Graph,
        engine: str,
        threads: int,
        known: Mapping[str, str] = MappingProxyType({}),
    ) -> Model:
        manifest = bundle.manifest
        step = runner(bundle, graph, engine, threads)
        return Model(
            name=name,
            version=str(manifest.version),
            inputs=step.inputs,
            outputs=step.outputs,
            sha256=graph.sha256,
            batch=batch_axis(bundle.manifest, (*step.inputs, *step.outputs)),
            piece=step,
            graph=graph.id,
            known=known,
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
            graph=point.of,
        )

    def close(self) -> None:
        """Frees everything."""
        self.free()
        for bundle in self._bundles:
            bundle.close()


def _engine(path: Path, graph: Graph, threads: int) -> str:
    """The engine that runs a full graph on this machine; empty: none."""
    if not registry.for_format(graph.format):
        return ""
    try:
        with er.open(path, graph=graph.id, threads=threads) as session:
            return session.engine_name
    except EdgekitError:  # engines of its format are here, too old for it or without what it needs
        return ""
