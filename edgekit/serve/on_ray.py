"""Replicas of a bundle on Ray Serve behind our gRPC front: `edgekit serve --backend ray`.

    clients ── gRPC ──► front (this process: checks, token, admission, metrics)
                          │ deployment handle, tensors as numpy
                          ├──► replica: every model of the bundle, Ray's batching for each model
                          └──► replica …                     as many as Ray's autoscaling finds worth their while

One application and one deployment a bundle. No message of the protocol goes through Ray: replicas see arrays only, and
errors come back as data, since not every exception can be pickled.
"""

from __future__ import annotations

import asyncio
import dataclasses
import os
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from edgekit.serve.batcher import Answer, Overloaded, key_of, run_joined, samples_of
from edgekit.serve.models import Model, Models
from edgekit_runtime.engines.base import Arrays
from edgekit_runtime.errors import EdgekitError, Refused, Unreachable

_STORE_BYTES = 128 << 20  # of a local Ray: tensors of requests in flight are all it holds
_IN_FLIGHT = 64  # requests that one replica has at most; the front's admission refuses long before


@dataclasses.dataclass(frozen=True)
class Scale:
    """How many replicas of each bundle.

    Attributes:
        replicas: At the beginning, and the fewest.
        max_replicas: Most; more than `replicas`: Ray's autoscaling decides.
        threads: Of one run, and the cores a replica is given.
        most: Samples of one batch.
        wait_ms: A batch stays open for others at most this long.
        limit_ms: Longest wait that is admitted.
        ray_address: Of a running Ray cluster; empty: a local one is started.
    """

    replicas: int = 1
    max_replicas: int = 1
    threads: int = 1
    most: int = 8
    wait_ms: float = 2.0
    limit_ms: float = 1000.0
    ray_address: str = ""


class Replica:
    """One process with every model of one bundle."""

    def __init__(self, path: str, scale: Scale, graph: str) -> None:
        from ray import serve

        self._models = Models([Path(path)], scale.threads, graph)  # the front's choice, not this node's own

        class Batched:
            """Ray keeps a queue for each object that has a batched method: one a model."""

            def __init__(self, model: Model) -> None:
                self._model = model

            @serve.batch(max_batch_size=scale.most, batch_wait_timeout_s=scale.wait_ms / 1e3)  # type: ignore[untyped-decorator]
            async def run(self, requests: list[tuple[Arrays, float]]) -> list[Ran]:
                return await asyncio.to_thread(run_requests, self._model, requests)

        self._batched = {model.name: Batched(model) for model in self._models}

    async def infer(self, name: str, tensors: Arrays) -> Ran:
        """Runs one request, with others of its sizes when they are there."""
        found: Ran = await self._batched[name].run((tensors, time.monotonic()))
        return found


@dataclasses.dataclass(frozen=True)
class Ran:
    """What a replica says of one request.

    Attributes:
        tensors: The outputs; None: it failed.
        error: What was wrong and what to do.
        wait_ms: From its arrival in the replica to the start of its run.
        run_ms: Of the batch.
        batch: Samples of the batch.
    """

    tensors: Arrays | None
    error: tuple[str, str] = ("", "")
    wait_ms: float = 0.0
    run_ms: float = 0.0
    batch: int = 1


def run_requests(model: Model, requests: Sequence[tuple[Arrays, float]]) -> list[Ran]:
    """Runs what Ray has put together: those of the same sizes as one batch each.

    Args:
        model: What runs.
        requests: Tensors of each, and when it arrived (monotonic, s).
    """
    groups: dict[tuple[object, ...], list[int]] = {}
    for place, (tensors, _) in enumerate(requests):
        groups.setdefault(key_of(tensors) if model.batch else (place,), []).append(place)
    found: dict[int, Ran] = {}
    for places in groups.values():
        start = time.monotonic()
        rows = [requests[place][0] for place in places]
        samples = sum(samples_of(model, row) for row in rows)
        try:
            answers: list[Arrays | None] = list(run_joined(model, rows))
            error = ("", "")
        except EdgekitError as failure:
            answers, error = [None] * len(rows), (failure.message, failure.remedy)
        run_ms = (time.monotonic() - start) * 1e3
        for place, answer in zip(places, answers, strict=True):
            found[place] = Ran(answer, error, (start - requests[place][1]) * 1e3, run_ms, samples)
    return [found[place] for place in range(len(requests))]


class Handle:
    """One model behind a deployment handle; to the front it is what `Batcher` is."""

    def __init__(self, model: Model, handle: Any, scale: Scale) -> None:
        self.model = model
        self._handle, self._scale = handle, scale
        self._in_flight = 0
        self._sample_ms = 0.0

    @property
    def length(self) -> int:
        """Requests that are with Ray."""
        return self._in_flight

    def wait_ms(self) -> float:
        """Expected wait of a request that arrives now, with as many replicas as there are at least."""
        return self._in_flight * self._sample_ms / self._scale.replicas

    async def submit(self, tensors: Arrays, deadline_ms: float | None = None) -> Answer:
        """Waits for the answer. See `Batcher.submit`.

        Raises:
            Overloaded: It would wait too long.
            Refused: The engine failed.
            Unreachable: The replica died.
        """
        from ray.exceptions import RayError

        wait = self.wait_ms()
        late = deadline_ms is not None and wait + self._sample_ms > deadline_ms
        if late or wait > self._scale.limit_ms:
            raise Overloaded(wait, late)
        before, self._in_flight = self._in_flight, self._in_flight + 1
        start = time.monotonic()
        try:
            ran: Ran = await self._handle.infer.remote(self.model.name, tensors)
        except RayError as error:
            raise Unreachable(f"a replica of {self.model.name} died: {error}", remedy="Ray starts another") from error
        finally:
            self._in_flight -= 1
        if ran.tensors is None:
            raise Refused(ran.error[0], remedy=ran.error[1])
        took = ran.run_ms / ran.batch
        self._sample_ms = took if not self._sample_ms else 0.8 * self._sample_ms + 0.2 * took
        # Everything but the run is waiting: for Ray, for a replica, for a batch.
        queue_ms = max((time.monotonic() - start) * 1e3 - ran.run_ms, 0.0)
        return Answer(ran.tensors, queue_ms, before, ran.batch)

    async def close(self) -> None:
        """Nothing: the application is ended as a whole."""


class Application:
    """The deployments of all bundles, and the Ray they run on."""

    def __init__(self, paths: Sequence[Path], models: Models, scale: Scale) -> None:
        """Joins a cluster or starts a local one, and waits until the replicas are there. Blocks.

        Raises:
            Refused: ray is not installed.
            Unreachable: The cluster cannot be reached, or the replicas do not start.
        """
        ray, serve = _ray()
        self._ours = not ray.is_initialized()
        self._names: list[str] = []
        self.handles: dict[str, Handle] = {}
        try:
            if self._ours:
                _init(ray, scale.ray_address)
            serve.start(proxy_location="Disabled")
            for path in paths:
                self._add(serve, path, models, scale)
        except (ConnectionError, RuntimeError, TimeoutError) as error:
            self.close()
            raise Unreachable(f"Ray: {error}", remedy="see Ray's own logs, or leave --ray-address out") from error
        except BaseException:
            self.close()
            raise

    def _add(self, serve: Any, path: Path, models: Models, scale: Scale) -> None:
        held = models.of(path)
        name = f"edgekit-{held[0].name}"
        deployment = serve.deployment(**_deployment(name, scale))(Replica)
        self._names.append(name)
        handle = serve.run(deployment.bind(str(path.resolve()), scale, held[0].graph), name=name, route_prefix=None)
        for model in held:
            self.handles[model.name] = Handle(model, handle, scale)

    def close(self) -> None:
        """Ends the deployments, and the local Ray. Blocks."""
        ray, serve = _ray()
        if ray.is_initialized():
            for name in self._names:
                serve.delete(name)
            if self._ours:
                serve.shutdown()
                ray.shutdown()


def _deployment(name: str, scale: Scale) -> dict[str, Any]:
    row: dict[str, Any] = {
        "name": name,
        "max_ongoing_requests": _IN_FLIGHT,
        "ray_actor_options": {"num_cpus": scale.threads},
    }
    if scale.max_replicas > scale.replicas:
        row["autoscaling_config"] = {
            "min_replicas": scale.replicas,
            "initial_replicas": scale.replicas,
            "max_replicas": scale.max_replicas,
            "target_ongoing_requests": scale.most,  # as many as fill a batch
        }
    else:
        row["num_replicas"] = scale.replicas
    return row


def _init(ray: Any, address: str) -> None:
    quiet = {"log_to_driver": False, "logging_level": "ERROR"}
    if address:
        ray.init(address=address, **quiet)
        return
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # nothing is told to anybody
    ray.init(address="local", include_dashboard=False, object_store_memory=_STORE_BYTES, **quiet)


def _ray() -> tuple[Any, Any]:
    try:
        import ray
        from ray import serve
    except ModuleNotFoundError as error:
        raise Refused(f"--backend ray needs {error.name}", remedy="pip install 'edgekit[ray]'") from error
    return ray, serve
