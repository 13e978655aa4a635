"""One request that may be sent: the device's part, the call, and the local run as its net or its rival.

way.begin ── answered already ────────────────────────────────► answer
   └── encode ── send ── answer valid? ──► joined ─────────────► answer
                   └── late, error, wrong: the local run ──────► answer      the first valid one wins

The request's own thread sends and reads. An alarm starts the local run in another thread when the answer is overdue;
where that is first, it gives the call up, and the request's thread wakes. Races and probes send in a thread beside.
"""

from __future__ import annotations

import queue
import time
from collections.abc import Callable, Mapping
from typing import Any

import msgspec

from edgekit_runtime.adaptive import ActionCost, Outcome
from edgekit_runtime.adaptive.controller import Plan
from edgekit_runtime.engines.base import Arrays
from edgekit_runtime.errors import EdgekitError, InputMismatch
from edgekit_runtime.remote.answers import Result, Timing, accepted
from edgekit_runtime.remote.call import Call, Reply
from edgekit_runtime.remote.grpc_errors import Late
from edgekit_runtime.remote.line import Line
from edgekit_runtime.remote.offer import Offer
from edgekit_runtime.remote.ways import Begun, joined

_LONGEST_CALL_S = 30.0
_SLACK = 0.05  # of the local run


class _Sent(msgspec.Struct, eq=False):
    """A request that is out."""

    call: Call
    offer: Offer
    begun: Begun
    flight: int
    head_ms: float
    encode_ms: float
    given_up: bool = False


class _Event(msgspec.Struct, frozen=True, eq=False):
    """Something has ended: the server's answer, or the run here beside it."""

    there: bool
    outputs: Arrays | None = None
    error: BaseException | None = None
    reply: Reply | None = None


def run_here(line: Line, offer: Offer, inputs: Mapping[str, Any]) -> tuple[Arrays, float, str]:
    """Answers on the device.

    Returns:
        The outputs, the time of the run in ms, and why it was the full local run after all (empty: it was not).

    Raises:
        InputMismatch: The inputs do not fit the student.
    """
    try:
        return (*_run(line, offer, inputs), "")
    except EdgekitError as error:
        if offer is line.local:
            raise
        return (*_run(line, line.local, inputs), error.message)  # which says whether the inputs are to blame


def _run(line: Line, offer: Offer, inputs: Mapping[str, Any]) -> tuple[Arrays, float]:
    with line.lock:
        line.controller.running(time.monotonic(), offer.cost.id, line.samples(inputs))
    start = time.perf_counter()
    try:
        begun = offer.way.begin(inputs)
    finally:
        took_ms = since(start)
        with line.lock:
            line.controller.stopped()
    _learn(line, offer.cost, begun, took_ms, line.samples(inputs))
    if line.watch is not None:
        line.watch.saw(offer, inputs, begun)
    return begun.outputs, took_ms


def _learn(line: Line, cost: ActionCost, begun: Begun, took_ms: float, samples: int) -> None:
    """The device's time, in terms of the action's: a request that left early took less than the action does."""
    idle_ms = cost.head_ms + cost.encode_ms
    scale = idle_ms / begun.idle_ms if begun.idle_ms else 1.0
    with line.lock:
        line.controller.observe(time.monotonic(), Outcome(cost.id, device_ms=took_ms * scale, samples=samples))


class Exchange:
    """One request, from the plan to the first valid answer."""

    def __init__(
        self,
        line: Line,
        inputs: Mapping[str, Any],
        plan: Plan,
        remote: Offer,
        here: Offer,
        start: float,
        behind: Callable[[], object] | None = None,
    ) -> None:
        """Nothing is done yet.

        Args:
            line: Of the session.
            inputs: Of the request.
            plan: What was decided.
            remote: The action that sends.
            here: The action that answers on the device, as rival or as net.
            start: When the request came, by `time.perf_counter`.
            behind: Called when the request is ready to leave; must not wait.
        """
        self._line, self._inputs, self._plan = line, inputs, plan
        self._remote, self._here, self._start, self._behind = remote, here, start, behind
        self._samples = plan.decision.load.samples
        self._chosen_here = plan.decision.action == here.cost.id
        self._ended: queue.SimpleQueue[_Event] = queue.SimpleQueue()  # where two may answer
        # The call has ended; the local run was started before that. Both under the line's lock.
        self._back = self._hedged = False

    def result(self) -> Result:
        """The first valid answer.

        Raises:
            InputMismatch: The inputs do not fit the student.
        """
        line = self._line
        try:
            sent = self.send()
        except EdgekitError as error:  # the head or a codec failed: the local run says whether the inputs are to blame
            return self._here_after(error.message)
        if isinstance(sent, Result):
            return sent
        if self._behind is not None:
            self._behind()
        if self._plan.race:
            line.senders.submit(self._ask_beside, sent)
            line.workers.submit(self._run_beside, self._here, sent)
            return self._first(sent, "")
        due_s = self._start + (self._plan.hedge_ms or 0.0) / 1e3
        # A deadline is kept to the point; else a hedge may be later by what is little beside the run that it starts.
        slack_s = 0.0 if line.controller.policy.deadline_ms is not None else _SLACK * line.local.cost.head_ms / 1e3
        alarm = line.alarms.at(due_s, lambda: self._overdue(sent), slack_s)
        event = self.ask(sent)
        alarm.off()
        if self._hedged:
            self._ended.put(event)
            return self._first(sent, "the answer was overdue")
        if event.reply is None or event.outputs is None:
            return self._here_after(_said(event.error))
        return self._there(event.outputs, event.reply, sent)

    def _first(self, sent: _Sent, fallback: str) -> Result:
        """The first valid answer of two that are on their way, or have come."""
        failed = False
        lost: BaseException | None = None
        while True:
            event = self._ended.get()
            if event.outputs is not None:
                return self._answer(event, sent, fallback, failed)
            if event.there:
                failed, fallback = True, _said(event.error)
                if lost is not None:
                    raise lost
            else:
                assert event.error is not None
                if failed or isinstance(event.error, InputMismatch):  # what does not fit here fits nowhere
                    sent.call.cancel()
                    raise event.error
                lost = event.error  # the server may still answer; its call ends by itself

    def _here_after(self, fallback: str) -> Result:
        outputs, local_ms, _ = run_here(self._line, self._line.local, self._inputs)
        return self._told(outputs, local_ms, fallback)

    def _overdue(self, sent: _Sent) -> None:
        """In the alarms' thread."""
        with self._line.lock:
            if self._back:
                return
            try:
                self._line.workers.submit(self._run_beside, self._line.local, sent)
            except RuntimeError:  # the session is being closed, which ends the call: the request answers itself
                return
            self._hedged = True

    def send(self) -> _Sent | Result:
        """The device's part, and what is left of it to the server; a `Result` where nothing is left.

        Raises:
            EdgekitError: The device's part, or a codec, failed.
        """
        line, cost = self._line, self._remote.cost
        head_start = time.perf_counter()
        begun = self._remote.way.begin(self._inputs)
        head_ms = since(head_start) if cost.head_ms else 0.0
        if line.watch is not None:
            line.watch.saw(self._remote, self._inputs, begun)
        if not begun.tensors:
            _learn(line, cost, begun, head_ms, self._samples)
            if self._plan.race:
                with line.lock:
                    line.controller.race_over(time.monotonic(), False)
            return self._told(begun.outputs, head_ms, "")
        parameters: dict[str, Any] = {}
        deadline_ms = line.controller.policy.deadline_ms
        if line.ours and self._remote.sha256:
            parameters["sha256"] = self._remote.sha256
        if line.ours and deadline_ms is not None:
            parameters["deadline_ms"] = max(deadline_ms - since(self._start), 1.0)
        encode_start = time.perf_counter()
        call = line.client.request(
            self._remote.model,
            begun.tensors,
            parameters=parameters,
            codec=self._remote.codecs,
            timeout_s=self._plan.race_limit_ms / 1e3 if self._plan.race else _LONGEST_CALL_S,
        )
        encode_ms = since(encode_start)
        with line.lock:
            rest = None if begun.rest is None else len(begun.rest)
            link = self._plan.decision.link
            flight = line.controller.sent(time.monotonic(), cost.id, self._samples, link, call.bytes_up, rest)
        return _Sent(call, self._remote, begun, flight, head_ms, encode_ms)

    def ask(self, sent: _Sent) -> _Event:
        """Sends, and waits until the call has ended in whatever way."""
        line, controller = self._line, self._line.controller
        rest = sent.begun.rest
        expected = line.expected(self._inputs, self._remote.sha256, None if rest is None else len(rest))
        try:
            reply = sent.call.result()
            now = time.monotonic()
            outputs = joined(sent.begun, accepted(reply.tensors, reply.parameter("sha256"), expected))
        except EdgekitError as error:
            with line.lock:
                self._back = True
                if not sent.given_up and not line.closed:
                    retry_after_s = error.retry_after_s if isinstance(error, Late) else None
                    controller.failed(time.monotonic(), sent.flight, retry_after_s)
            return _Event(True, error=error)
        outcome = self._outcome(sent, reply)
        with line.lock:
            self._back = True
            controller.back(sent.flight)
            controller.observe(now, outcome)
            if not self._hedged and not self._plan.race:  # else it has to be the first of two: `_first`
                controller.answered(hedged=False)
        return _Event(True, outputs=outputs, reply=reply)

    def _ask_beside(self, sent: _Sent) -> None:
        self._ended.put(self.ask(sent))

    def _outcome(self, sent: _Sent, reply: Reply) -> Outcome:
        cost, ours = sent.offer.cost, self._line.ours
        own_ms = sent.begun.idle_ms
        scale = 1.0 if own_ms is None else (cost.head_ms + cost.encode_ms) / (own_ms + cost.encode_ms)
        return Outcome(
            cost.id,
            device_ms=(sent.head_ms + sent.encode_ms) * scale,
            network_ms=reply.network_ms,
            bytes_up=reply.bytes_up,
            bytes_down=reply.bytes_down,
            queue_ms=reply.queue_ms if ours else None,
            server_ms=reply.server_ms if ours else None,
            samples=self._samples,
            sent_samples=None if sent.begun.rest is None else len(sent.begun.rest),
        )

    def _answer(self, event: _Event, sent: _Sent, fallback: str, failed: bool) -> Result:
        """The first valid answer of two, and what is learned from it."""
        assert event.outputs is not None
        here, raced = not event.there, bool(self._plan.race)
        with self._line.lock:
            if raced:
                self._line.controller.race_over(time.monotonic(), here != self._chosen_here)
            elif not here:
                self._line.controller.answered(hedged=True)
            elif not failed:
                self._line.controller.gave_up(time.monotonic(), sent.flight)
        if event.reply is not None:
            return self._there(event.outputs, event.reply, sent)
        total_ms = since(self._start)
        told = "" if self._chosen_here else fallback or "the local run was first"
        return Result(event.outputs, self._plan.decision, Timing(total_ms, local_ms=total_ms, fallback=told))

    def _there(self, outputs: Arrays, reply: Reply, sent: _Sent) -> Result:
        """The server's answer, with where its time went."""
        link = self._plan.decision.link
        up, down = (reply.bytes_up * link.downlink_mbps, reply.bytes_down * link.uplink_mbps) if link.up else (1.0, 1.0)
        share = up / (up + down)
        network_ms = reply.network_ms
        timing = Timing(
            since(self._start),
            local_ms=sent.head_ms,
            encode_ms=sent.encode_ms,
            uplink_ms=network_ms * share,
            server_ms=reply.server_ms,
            queue_ms=reply.queue_ms,
            downlink_ms=network_ms * (1 - share),
        )
        return Result(outputs, self._plan.decision, timing)

    def _told(self, outputs: Arrays, local_ms: float, fallback: str) -> Result:
        timing = Timing(since(self._start), local_ms=local_ms, fallback=fallback)
        return Result(outputs, self._plan.decision, timing)

    def _run_beside(self, offer: Offer, sent: _Sent) -> None:
        """A run on the device while a call is out. A hedge that is first, or that the inputs do not fit, ends it."""
        try:
            event = _Event(False, outputs=run_here(self._line, offer, self._inputs)[0])
        except BaseException as error:  # noqa: BLE001 - handed to the thread that waits, which raises it
            event = _Event(False, error=error)
        self._ended.put(event)
        if not self._plan.race and (event.outputs is not None or isinstance(event.error, InputMismatch)):
            sent.given_up = True
            sent.call.cancel()


def since(start: float) -> float:
    """Milliseconds since `time.perf_counter()` said `start`."""
    return (time.perf_counter() - start) * 1e3


def _said(error: BaseException | None) -> str:
    return error.message if isinstance(error, EdgekitError) else str(error)
