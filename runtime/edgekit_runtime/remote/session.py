"""A session that chooses for each request, leans on a server, and never loses a request.

    plan ── local ─────────────────────────────► answer
       └─── head ── encode ── send ── answer valid? ──► answer        a hedge starts the local run when the answer is
                                 └── late, error, wrong: local run    overdue; the first valid answer wins

A local answer is always possible, so no failure of the other side is an error of the request: it is told in
`timing.fallback`. What comes back is checked: the request's id, the graph's hash, names, dtypes, shapes, and that
numbers are numbers.
"""

from __future__ import annotations

import dataclasses
import queue
import threading
import time
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from edgekit_runtime.adaptive import Controller, Decision, Outcome, Policy, journal
from edgekit_runtime.adaptive.controller import Plan, Settings
from edgekit_runtime.engines.base import Arrays
from edgekit_runtime.errors import EdgekitError, Refused, UsageError
from edgekit_runtime.remote.client import Call, Client, Credentials, Late, Reply
from edgekit_runtime.remote.offers import Offer, offers
from edgekit_runtime.remote.pieces import first_sample
from edgekit_runtime.remote.probe import LoadProbe, SystemProbe

if TYPE_CHECKING:
    from edgekit_runtime.session import Session

_LONGEST_CALL_S = 30.0


@dataclasses.dataclass(frozen=True)
class Timing:
    """Where the time of a request went, ms. Parts that did not happen are 0.

    Attributes:
        total_ms: From call to answer.
        local_ms: Runs on the device.
        encode_ms: Serialising and encoding.
        uplink_ms: Share of the network's time that went up, by the link's estimate.
        server_ms: In the server, waiting left out.
        queue_ms: Waiting in the server.
        downlink_ms: Share of the network's time that came down.
        fallback: Why the answer came from the local run after all; empty: it did not.
    """

    total_ms: float
    local_ms: float = 0.0
    encode_ms: float = 0.0
    uplink_ms: float = 0.0
    server_ms: float = 0.0
    queue_ms: float = 0.0
    downlink_ms: float = 0.0
    fallback: str = ""


@dataclasses.dataclass(frozen=True)
class Result:
    """Outputs by name, the decision and where the time went."""

    outputs: Arrays
    decision: Decision
    timing: Timing


@dataclasses.dataclass
class _Sent:
    """A request that is out."""

    call: Call
    offer: Offer
    flight: int
    head_ms: float
    encode_ms: float


@dataclasses.dataclass(frozen=True)
class _Event:
    """Something has ended: the server's answer (`sent`), or the local run beside it."""

    sent: _Sent | None
    outputs: Arrays | None = None
    error: BaseException | None = None


class AdaptiveSession:
    """A local session and a server. A context manager; safe to call from several threads.

    Attributes:
        local: The session that answers here.
        controller: Decides; its estimates can be read.
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

        Raises:
            UsageError: A bare file, an address or a policy that cannot be.
            Refused: The bundle has no golden inputs, or gRPC is not installed.
        """
        if local.bundle is None:
            raise UsageError("a bare file has no name on a server", remedy="convert it: edgekit convert FILE -o X.edge")
        golden = first_sample(local.bundle.manifest, local.bundle.golden_inputs())
        if not golden:
            raise Refused("the bundle has no golden inputs to measure its actions with", remedy="convert it again")
        self.local = local
        self._client = Client(server, credentials)
        dtypes = {tensor.name: tensor.dtype for tensor in local.inputs}
        golden = {name: np.asarray(array, dtypes.get(name, array.dtype)) for name, array in golden.items()}
        made = offers(
            local.bundle,
            local.graph.id,
            local.run,
            golden,
            ours=ours,
            engine=local.engine_name,
            threads=local.threads,
        )
        self._offers = {offer.cost.id: offer for offer in made}
        self.controller = Controller([offer.cost for offer in made], policy or Policy(), settings=settings)
        self._log = journal.Writer(log, self.controller.actions, local.bundle.bundle_id) if log else None
        self._ours = ours
        self._probe: LoadProbe = probe or SystemProbe(local.threads)
        self._lock = threading.Lock()
        self._workers = ThreadPoolExecutor(4, thread_name_prefix="edgekit-hedge")
        self._closed = False

    def infer(self, inputs: Mapping[str, Any]) -> Result:
        """Answers a request, here or there.

        Args:
            inputs: Arrays by name, as `Session.run` takes them.

        Raises:
            InputMismatch: The inputs do not fit the student.
        """
        start = time.perf_counter()
        now = time.monotonic()
        with self._lock:
            if self._closed:
                raise UsageError("the session is closed", remedy="open it again")
            self.controller.load.see_device(*self._probe.read())
            plan = self.controller.plan(now)
        if plan.ping:
            self._workers.submit(self._ping)
        offer = self._offers[plan.decision.action]
        if not offer.model and not plan.race:
            outputs, local_ms = self._run_local(inputs)
            result = Result(outputs, plan.decision, Timing(_since(start), local_ms=local_ms))
        else:
            result = self._together(inputs, plan, offer, start)
        if self._log is not None:
            self._log.add(plan.decision, now, result.timing.total_ms, result.timing.fallback)
        return result

    async def infer_async(self, inputs: Mapping[str, Any]) -> Result:
        """`infer` beside an event loop."""
        import asyncio

        return await asyncio.get_running_loop().run_in_executor(None, self.infer, inputs)

    def run(self, inputs: Mapping[str, Any]) -> Arrays:
        """Outputs only."""
        return self.infer(inputs).outputs

    def close(self) -> None:
        """Ends the channel and the local session; what is on its way is given up."""
        with self._lock:
            self._closed = True
        self._client.close()
        self._workers.shutdown(wait=True)
        for offer in self._offers.values():
            if offer.head is not None:
                offer.head.close()
        if self._log is not None:
            self._log.close()
        self.local.close()

    def __enter__(self) -> AdaptiveSession:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _run_local(self, inputs: Mapping[str, Any]) -> tuple[Arrays, float]:
        with self._lock:
            self.controller.running(time.monotonic(), "local")
        start = time.perf_counter()
        try:
            outputs = self.local.run(inputs)
        finally:
            took_ms = _since(start)
            with self._lock:
                self.controller.stopped()
        with self._lock:
            self.controller.observe(time.monotonic(), Outcome("local", device_ms=took_ms))
        return outputs, took_ms

    def _together(self, inputs: Mapping[str, Any], plan: Plan, offer: Offer, start: float) -> Result:
        """A request that is sent, with the local run as its net or its rival."""
        ended: queue.SimpleQueue[_Event] = queue.SimpleQueue()
        remote = offer if offer.model else self._offers[plan.race]
        racing = bool(plan.race) and (not offer.model or not self._offers[plan.race].model)
        try:
            sent = self._send(inputs, remote, plan, start, ended)
        except EdgekitError as error:  # the head or a codec failed: the local run says whether the inputs are to blame
            outputs, local_ms = self._run_local(inputs)
            return Result(outputs, plan.decision, Timing(_since(start), local_ms=local_ms, fallback=error.message))
        local = racing
        if racing:
            self._workers.submit(self._local_into, inputs, ended)
        fallback, failed = "", False
        while True:
            wait = None if local else max((plan.hedge_ms or 0.0) - _since(start), 0.0) / 1e3
            try:
                event = ended.get(timeout=wait)
            except queue.Empty:
                local, fallback = True, "the answer was overdue"
                self._workers.submit(self._local_into, inputs, ended)
                continue
            if event.sent is not None and event.outputs is None:
                failed, fallback = True, _told(event.error)
                if not local:
                    local = True
                    self._workers.submit(self._local_into, inputs, ended)
                continue
            if event.error is not None:
                sent.call.cancel()
                raise event.error
            return self._answer(event, plan, sent, start, fallback, failed)

    def _answer(self, event: _Event, plan: Plan, sent: _Sent, start: float, fallback: str, failed: bool) -> Result:
        """The first valid answer."""
        assert event.outputs is not None
        here = event.sent is None
        raced = bool(plan.race)
        with self._lock:
            if raced:
                self.controller.race_over(time.monotonic(), here == bool(self._offers[plan.decision.action].model))
            elif not here:
                self.controller.answered(hedged=bool(fallback))
            elif not failed:
                self.controller.gave_up(time.monotonic(), sent.flight)
        if here and not failed and not raced:
            sent.flight = 0
            sent.call.cancel()
        total = _since(start)
        if here:
            chosen_here = not self._offers[plan.decision.action].model
            timing = Timing(
                total, local_ms=total, fallback="" if chosen_here else fallback or "the local run was first"
            )
            return Result(event.outputs, plan.decision, timing)
        reply = sent.call.result(0)
        link = plan.decision.link
        up = reply.bytes_up / link.uplink_mbps if link.up else 1.0
        share = up / (up + (reply.bytes_down / link.downlink_mbps if link.up else 1.0))
        queue_ms = reply.number("queue_ms")
        return Result(
            event.outputs,
            plan.decision,
            Timing(
                total,
                local_ms=sent.head_ms,
                encode_ms=sent.encode_ms,
                uplink_ms=reply.network_ms * share,
                server_ms=max(reply.number("residence_ms") - queue_ms, 0.0),
                queue_ms=queue_ms,
                downlink_ms=reply.network_ms * (1 - share),
            ),
        )

    def _send(
        self, inputs: Mapping[str, Any], offer: Offer, plan: Plan, start: float, ended: queue.SimpleQueue[_Event]
    ) -> _Sent:
        head_start = time.perf_counter()
        values = offer.head.run(inputs) if offer.head else inputs
        head_ms = _since(head_start) if offer.head else 0.0
        tensors = {name: np.ascontiguousarray(values[name]) for name in offer.sends}
        parameters: dict[str, Any] = {}
        deadline_ms = self.controller.policy.deadline_ms
        if self._ours and offer.sha256:
            parameters["sha256"] = offer.sha256
        if self._ours and deadline_ms is not None:
            parameters["deadline_ms"] = max(deadline_ms - _since(start), 1.0)
        limit_s = plan.race_limit_ms / 1e3 if plan.race else _LONGEST_CALL_S
        encode_start = time.perf_counter()
        call = self._client.infer(
            offer.model,
            tensors,
            parameters=parameters,
            codec=dict.fromkeys(tensors, offer.codec),
            timeout_s=limit_s,
        )
        encode_ms = _since(encode_start)
        with self._lock:
            flight = self.controller.sent(time.monotonic(), offer.cost.id)
        sent = _Sent(call, offer, flight, head_ms, encode_ms)
        call.then(lambda: self._returned(sent, dict(inputs), ended))
        return sent

    def _returned(self, sent: _Sent, inputs: Arrays, ended: queue.SimpleQueue[_Event]) -> None:
        """In a thread of gRPC: the call has ended in whatever way."""
        now = time.monotonic()
        try:
            reply = sent.call.result(0)
            self._check(reply, sent.offer, inputs)
        except EdgekitError as error:
            with self._lock:
                if sent.flight and not self._closed:
                    self.controller.failed(now, sent.flight, error.retry_after_s if isinstance(error, Late) else None)
            ended.put(_Event(sent, error=error))
            return
        with self._lock:
            self.controller.back(sent.flight)
            self.controller.observe(
                now,
                Outcome(
                    sent.offer.cost.id,
                    device_ms=sent.head_ms + sent.encode_ms,
                    network_ms=reply.network_ms,
                    bytes_up=reply.bytes_up,
                    bytes_down=reply.bytes_down,
                    queue_ms=reply.number("queue_ms") if self._ours else None,
                    server_ms=max(reply.number("residence_ms") - reply.number("queue_ms"), 0.0) if self._ours else None,
                ),
            )
        ended.put(_Event(sent, outputs=reply.tensors))

    def _check(self, reply: Reply, offer: Offer, inputs: Mapping[str, Any]) -> None:
        """Is it an answer to this request?

        Raises:
            Refused: Another graph's, a wrong name, dtype or shape, or numbers that are none.
        """
        meant = reply.parameters.get("sha256")
        if offer.sha256 and meant != offer.sha256:
            raise Refused("the answer is of another graph", remedy="serve the bundle that the device has")
        sizes = {
            symbol: size
            for tensor in self.local.inputs
            for symbol, size in zip(tensor.shape, np.shape(inputs[tensor.name]), strict=True)
            if isinstance(symbol, str)
        }
        for tensor in self.local.outputs:
            array = reply.tensors.get(tensor.name)
            if array is None or array.dtype.name != tensor.dtype or array.ndim != len(tensor.shape):
                raise Refused(f"the answer has no {tensor.name} {tensor.dtype}", remedy="look at the server")
            wanted = [sizes.get(size) if isinstance(size, str) else size for size in tensor.shape]
            if any(size is not None and size != got for size, got in zip(wanted, array.shape, strict=True)):
                raise Refused(f"{tensor.name} has shape {array.shape}, not {wanted}", remedy="look at the server")
            if array.dtype.kind == "f" and not np.isfinite(array).all():
                raise Refused(f"{tensor.name} holds what is no number", remedy="look at the server")

    def _local_into(self, inputs: Mapping[str, Any], ended: queue.SimpleQueue[_Event]) -> None:
        try:
            ended.put(_Event(None, outputs=self._run_local(inputs)[0]))
        except BaseException as error:  # noqa: BLE001 - handed to the thread that waits, which raises it
            ended.put(_Event(None, error=error))

    def _ping(self) -> None:
        try:
            round_trip_ms = self._client.ping()
        except EdgekitError:
            return  # a request will say what is wrong; a lost ping says nothing for sure
        with self._lock:
            self.controller.ponged(time.monotonic(), round_trip_ms)


def _since(start: float) -> float:
    return (time.perf_counter() - start) * 1e3


def _told(error: BaseException | None) -> str:
    return error.message if isinstance(error, EdgekitError) else str(error)
