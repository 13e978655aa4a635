"""A session that chooses for each request, leans on a server, and never loses a request.

    plan ── local, or exits here ──────────────► answer
       └─── head ── encode ── send ── answer valid? ──► answer        a hedge starts the local run when the answer is
                                 └── late, error, wrong: local run    overdue; the first valid answer wins

A local answer is always possible, so no failure of the other side is an error of the request: it is told in
`timing.fallback`. What comes back is checked: the request's id, the graph's hash, names, dtypes, shapes, and that
numbers are numbers (`answers`). How one request goes is in `exchange`, what can be done at all in `offers`.
"""

from __future__ import annotations

import functools
import threading
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from edgekit_runtime.adaptive import Controller, Policy, journal
from edgekit_runtime.adaptive.controller import Settings
from edgekit_runtime.bundle import Bundle
from edgekit_runtime.cascade import FirstStudent, FirstStudents
from edgekit_runtime.engines.base import Arrays
from edgekit_runtime.errors import EdgekitError, Refused, UsageError
from edgekit_runtime.exits import CHECK_FRACTION
from edgekit_runtime.manifest import Manifest
from edgekit_runtime.remote.alarms import Alarms
from edgekit_runtime.remote.answers import Result, Timing
from edgekit_runtime.remote.behind import send_behind
from edgekit_runtime.remote.client import Client, Credentials
from edgekit_runtime.remote.exchange import Exchange, run_here, since
from edgekit_runtime.remote.line import Line
from edgekit_runtime.remote.offer import Given
from edgekit_runtime.remote.offers import Offered, offers
from edgekit_runtime.remote.pieces import batch_symbol, first_sample
from edgekit_runtime.remote.probe import LoadProbe, SystemProbe
from edgekit_runtime.remote.watch import Watch

if TYPE_CHECKING:
    from edgekit_runtime.session import Session

__all__ = ["AdaptiveSession", "Result", "Timing"]

_SENDERS = 128  # most calls of races, probes and pings that are out at one time; threads are made when they are needed


class AdaptiveSession:
    """A local session and a server. A context manager; safe to call from several threads.

    Attributes:
        local: The session that answers here.
        controller: Decides; its estimates can be read.
        left_out: Id of each action that is not offered, or no longer, and why.
    """

    def __init__(
        self,
        local: Session,
        server: str,
        policy: Policy | None = None,
        *,
        credentials: Credentials | None = None,
        ours: bool = True,
        settings: Settings | None = None,
        probe: LoadProbe | None = None,
        log: Path | None = None,
        first: FirstStudent | Sequence[FirstStudent] = (),
        check_fraction: float = CHECK_FRACTION,
    ) -> None:
        """Opens a channel; nothing is sent before the first request.

        Args:
            local: Open on a bundle with golden inputs.
            server: `grpc://HOST:PORT` or `grpcs://HOST:PORT`.
            policy: What the person wants.
            credentials: For TLS and the token.
            ours: The server is `edgekit serve`; False: any V2 server, which gets plain tensors only.
            settings: Limits of the controller.
            probe: Reads the device; None: from the system.
            log: Every decision is written there (`edgekit why`).
            first: The cheaper students of the bundle's cascades; closed with the session.
            check_fraction: Share of early answers that the full student checks beside the requests (`watch`).

        Raises:
            UsageError: A bare file, an address or a policy that cannot be.
            Refused: The bundle has no golden inputs, or gRPC is not installed.
        """
        if not 0 <= check_fraction <= 1:
            raise UsageError(f"check_fraction is {check_fraction}", remedy="a share from 0 (never) to 1")
        bundle, golden = _measurable(local)
        self.local, policy = local, policy or Policy()
        self._first = FirstStudents((first,) if isinstance(first, FirstStudent) else first)
        client = Client(server, credentials, streams=ours)
        try:
            made = _offered(local, bundle, golden, ours, policy, self._first)
        except BaseException:
            client.close()
            raise
        self._offers = {offer.cost.id: offer for offer in made.offers}
        self._opened, self.left_out = made.opened, dict(made.left_out)
        self.controller = Controller([offer.cost for offer in made.offers], policy, settings=settings)
        self._log = journal.Writer(log, self.controller.actions, bundle.bundle_id) if log else None
        self._probe: LoadProbe = probe or SystemProbe(local.threads)
        self._line = _line(client, self.controller, local, made, bundle.manifest, ours)
        self._line.watch = self._watch(made, bundle.manifest, check_fraction)

    def infer(self, inputs: Mapping[str, Any]) -> Result:
        """Answers a request, here or there. A student with exits answers with its full answer's name only.

        Args:
            inputs: Arrays by name, as `Session.run` takes them; with a cascade also those of its first student,
                `first.NAME` (of several `first.STUDENT.NAME`), unless it takes the same. `encode` makes all of them.

        Raises:
            InputMismatch: The inputs do not fit the student.
        """
        start = time.perf_counter()
        now = time.monotonic()
        inputs = self._first.paired(inputs)
        line = self._line
        with line.lock:
            if line.closed:
                raise UsageError("the session is closed", remedy="open it again")
            self.controller.load.see_device(*self._probe.read())
            plan = self.controller.plan(now, line.samples(inputs))
        if plan.ping:
            line.senders.submit(self._ping)
        offer = self._offers[plan.decision.action]
        rival = self._offers[plan.race] if plan.race else line.local
        if offer.model or rival.model:
            remote, here = (offer, rival) if offer.model else (rival, offer)
            behind = None
            if plan.probe:
                behind = functools.partial(
                    line.senders.submit, send_behind, line, inputs, plan, self._offers[plan.probe]
                )
            result = Exchange(line, inputs, plan, remote, here, start, behind).result()
        else:
            outputs, local_ms, why = run_here(line, offer, inputs)
            result = Result(outputs, plan.decision, Timing(since(start), local_ms=local_ms, fallback=why))
        if self._log is not None:
            self._log.add(plan.decision, now, result.timing.total_ms, result.timing.fallback)
        return result

    async def infer_async(self, inputs: Mapping[str, Any]) -> Result:
        """`infer` beside an event loop."""
        import asyncio

        return await asyncio.get_running_loop().run_in_executor(None, self.infer, inputs)

    def encode(self, **items: object) -> Arrays:
        """Raw items as the inputs of a request, those of a cascade's first student among them (`Session.encode`).

        Raises:
            Refused: A bundle does not say how, or an item cannot be read.
        """
        return self.local.encode(**items) | self._first.encode(items)

    def run(self, inputs: Mapping[str, Any]) -> Arrays:
        """Outputs only."""
        return self.infer(inputs).outputs

    def stream(self, **options: Any) -> Any:
        """A sequence of steps (`Session.stream`), always here: a state does not travel, and no policy changes that."""
        return self.local.stream(**options)

    def close(self) -> None:
        """Ends the channel and the local session; what is on its way is given up."""
        with self._line.lock:
            self._line.closed = True
        self._line.alarms.close()
        self._line.client.close()
        self._line.senders.shutdown(wait=True)
        self._line.workers.shutdown(wait=True)
        for piece in self._opened:
            piece.close()
        self._first.close()
        if self._log is not None:
            self._log.close()
        self.local.close()

    def __enter__(self) -> AdaptiveSession:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _watch(self, made: Offered, manifest: Manifest, fraction: float) -> Watch:
        line = self._line
        return Watch(
            made.offers,
            line.inputs,
            manifest.axes,
            fraction=fraction,
            full=lambda inputs: run_here(line, line.local, inputs)[0],
            submit=line.workers.submit,
            close=self._closed_by_alarm,
        )

    def _closed_by_alarm(self, ids: Sequence[str], why: str) -> None:
        with self._line.lock:
            self.controller.close(ids)
            self.left_out.update(dict.fromkeys(ids, why))

    def _ping(self) -> None:
        try:
            round_trip_ms = self._line.client.ping()
        except EdgekitError:
            return  # a request will say what is wrong; a lost ping says nothing for sure
        with self._line.lock:
            self.controller.ponged(time.monotonic(), round_trip_ms)


def _measurable(local: Session) -> tuple[Bundle, Arrays]:
    """The bundle, and one golden sample as the engines take it: what actions are measured with.

    Raises:
        UsageError: A bare file.
        Refused: The bundle has no golden inputs.
    """
    if local.bundle is None:
        raise UsageError("a bare file has no name on a server", remedy="convert it: edgekit convert FILE -o X.edge")
    golden = first_sample(local.bundle.manifest, local.bundle.golden_inputs())
    if not golden:
        raise Refused("the bundle has no golden inputs to measure its actions with", remedy="convert it again")
    dtypes = {tensor.name: tensor.dtype for tensor in local.inputs}
    return local.bundle, {name: np.asarray(array, dtypes.get(name, array.dtype)) for name, array in golden.items()}


def _offered(
    local: Session, bundle: Bundle, golden: Arrays, ours: bool, policy: Policy, first: FirstStudents
) -> Offered:
    given = Given(
        bundle,
        local.graph.id,
        golden,
        ours,
        engine=local.engine_name,
        threads=local.threads,
        policy=policy,
        first=first,
    )
    return offers(given, local.run)


def _line(
    client: Client, controller: Controller, local: Session, made: Offered, manifest: Manifest, ours: bool
) -> Line:
    return Line(
        client=client,
        controller=controller,
        lock=threading.Lock(),
        workers=ThreadPoolExecutor(4, thread_name_prefix="edgekit-hedge"),
        senders=ThreadPoolExecutor(_SENDERS, thread_name_prefix="edgekit-race"),
        alarms=Alarms(),
        local=made.offers[0],
        inputs=local.inputs,
        outputs=tuple(tensor for tensor in local.outputs if tensor.name in made.answer),
        batch=batch_symbol(manifest),
        ours=ours,
    )
