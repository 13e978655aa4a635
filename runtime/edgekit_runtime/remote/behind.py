"""A request sent a second time, in a larger form, to learn the uplink; its answer is not used."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

import msgspec

from edgekit_runtime.adaptive.controller import Plan
from edgekit_runtime.errors import EdgekitError
from edgekit_runtime.remote.answers import Result
from edgekit_runtime.remote.exchange import Exchange
from edgekit_runtime.remote.line import Line
from edgekit_runtime.remote.offer import Offer


def send_behind(line: Line, inputs: Mapping[str, Any], plan: Plan, offer: Offer) -> None:
    """Sends a request by `plan.probe` and learns what it took. In a thread beside the request's own.

    It is given up where the request's own answer would be overdue. What fails says nothing of the server: the request
    itself tells that.

    Args:
        line: Of the session.
        inputs: Of the request.
        plan: What was decided for it.
        offer: Of the action `plan.probe`.
    """
    limited = msgspec.structs.replace(plan, race=plan.probe, race_limit_ms=plan.hedge_ms or 0.0)
    exchange = Exchange(line, inputs, limited, offer, line.local, time.perf_counter())
    try:
        sent = exchange.send()
    except EdgekitError:
        return
    if isinstance(sent, Result):
        return
    sent.given_up = True
    exchange.ask(sent)
    with line.lock:
        line.controller.gave_up(time.monotonic(), sent.flight)  # nothing, where the answer came
