"""Requests that are out, and what their waiting says of the link while no answer has come.

An answer that is overdue is no measurement: its time is at least what it has waited, and nothing tells whether the
link, the server or a scheduler holds it. So it is laid to the link as long as it is out, which keeps the next request
here, and when it is given up the estimate takes it for a stall that a look may refute (`Controller.gave_up`).
"""

from __future__ import annotations

import msgspec

from edgekit_runtime.adaptive.state import Link

OVERDUE = 1.5  # times what it was expected to take; and the longer it has taken, the longer it will (Lindy)


class Flight(msgspec.Struct, frozen=True):
    """A request that is out.

    Attributes:
        sent_s: When it left, monotonic.
        bytes_up: Of its message, those on the wire.
        bytes_down: Those that its answer is expected to have.
        network_ms: What the way there was expected to take.
        residence_ms: What the server was expected to take.
    """

    sent_s: float
    bytes_up: int
    bytes_down: int
    network_ms: float
    residence_ms: float

    def waited_ms(self, now_s: float) -> float:
        """On the network, if the server took as long as expected."""
        return (now_s - self.sent_s) * 1e3 - self.residence_ms


class Flights:
    """All that are out, by number. Not thread-safe: the session holds a lock."""

    def __init__(self) -> None:
        self._out: dict[int, Flight] = {}
        self._count = 0

    def __bool__(self) -> bool:
        return bool(self._out)

    def add(self, flight: Flight) -> int:
        """Takes one; returns its number."""
        self._count += 1
        self._out[self._count] = flight
        return self._count

    def pop(self, number: int) -> Flight | None:
        """It is over; None: it was before."""
        return self._out.pop(number, None)

    def seen(self, now_s: float, link: Link) -> Link:
        """The link as it looks with these on their way: what they still take of it, and how overdue they are."""
        if not self._out:
            return link
        out = self._out.values()
        backlog_ms = sum(max(f.network_ms - (now_s - f.sent_s) * 1e3 - link.rtt_ms, 0.0) for f in out)
        mbps = link.uplink_mbps
        for flight in out:
            waited_ms = flight.waited_ms(now_s)
            if waited_ms > OVERDUE * flight.network_ms and flight.bytes_up:
                mbps = min(mbps, flight.bytes_up * 8e-3 / max(OVERDUE * waited_ms - link.rtt_ms, 1e-3))
        return msgspec.structs.replace(link, backlog_ms=backlog_ms, uplink_mbps=mbps)
