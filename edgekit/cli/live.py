"""`edgekit run --watch`: what the session believes and does, as it changes."""

from __future__ import annotations

import statistics
from collections import Counter, deque
from collections.abc import Mapping
from typing import Any

from rich.console import Console
from rich.live import Live
from rich.table import Table
from rich.text import Text

_RECENT = 200
_A_SECOND = 8  # redraws
_ACTIONS = 4  # named; a student of many split points has dozens
_LONGEST = 120  # characters of a reason, so that the view stays on a small screen


def requests(session: Any, inputs: Mapping[str, Any], repeat: int, console: Console | None) -> list[Any]:
    """Sends the same request again and again.

    Args:
        session: An adaptive session.
        inputs: Of each request.
        repeat: How many.
        console: Where the view is drawn; None: nowhere.

    Returns:
        The results, in order.
    """
    if console is None:
        return [session.infer(inputs) for _ in range(repeat)]
    results: list[Any] = []
    recent: deque[Any] = deque(maxlen=_RECENT)
    with Live(console=console, refresh_per_second=_A_SECOND) as live:
        for _ in range(repeat):
            results.append(session.infer(inputs))
            recent.append(results[-1])
            live.update(view(recent, len(results)))
    return results


def view(recent: deque[Any], count: int) -> Table:
    """Estimates, choices, latency and fall-backs of the last requests."""
    last = recent[-1]
    link, load = last.decision.link, last.decision.load
    times = [result.timing.total_ms for result in recent]
    actions = Counter(result.decision.action for result in recent).most_common()
    others = sum(number for _, number in actions[_ACTIONS:])
    fallbacks = Counter(result.timing.fallback for result in recent if result.timing.fallback).most_common(3)
    table = Table(title=f"{count} requests", show_header=False)
    table.add_row(
        "last", f"{last.decision.action}: {last.timing.total_ms:.1f} ms, {last.decision.predicted_ms:.1f} expected"
    )
    table.add_row(
        "latency", f"median {statistics.median(times):.1f} ms, largest {max(times):.1f} of the last {len(times)}"
    )
    named = [f"{name} {number}" for name, number in actions[:_ACTIONS]]
    table.add_row("choices", ", ".join([*named, f"{len(actions) - _ACTIONS} others {others}"] if others else named))
    reached = f"{link.rtt_ms:.1f} ms, up {link.uplink_mbps:.3g}, down {link.downlink_mbps:.3g} Mbit/s"
    table.add_row("link", reached if link.up else "the server is left alone for a while after a failure")
    table.add_row(
        "load", f"device x{load.device_slowdown:.2f}, server x{load.server_slowdown:.2f}, queue {load.queue_ms:.1f} ms"
    )
    told = "\n".join(f"{_short(name)} ({number})" for name, number in fallbacks)
    table.add_row("fall-backs", Text(told or "none"))
    return table


def _short(text: str) -> str:
    return text if len(text) <= _LONGEST else text[: _LONGEST - 1] + "…"
