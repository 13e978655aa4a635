"""Ids of actions that come from a bundle's manifest: the same in a session, in `edgekit plan` and in the simulator.

    exit:RISK                       early exits of one student, certified for this risk
    exit:RISK:split:PLACE[:CODEC]   exits up to a place, the tail on the server for the rest
    cascade:RISK                    a cheaper student first, certified for this risk
    cascade:RISK:offload[:CODEC]    the cheaper student here, the full one on the server for the rest
    cascade:NAME:RISK[...]          the same where a graph has cascades with several cheaper students
    split:PLACE[:CODEC]             the head here, the tail on the server

What does not belong to the graph of `local` says so: `exit:RISK@GRAPH`.
"""

from __future__ import annotations

from edgekit_runtime.manifest import OperatingPoint, SplitPoint


def certified(point: OperatingPoint, local: str, *, named: bool = False) -> str:
    """Id of the action that answers on the device at an operating point.

    Args:
        point: Of exits, or of a cascade.
        local: Id of the graph that the action `local` runs.
        named: Tell the cheaper student's name: there are several.
    """
    kind = "exit" if point.first is None else f"cascade:{point.first.name}" if named else "cascade"
    return f"{kind}:{point.risk:g}{_of(point.of, local)}"


def cut(point: SplitPoint, local: str) -> str:
    """Id of the action that sends what crosses a split point, as it is."""
    return f"split:{place(point)}{_of(point.of, local)}"


def handed_over(point: OperatingPoint, local: str, at: SplitPoint | None = None, *, named: bool = False) -> str:
    """Id of the action that hands over who is not sure: to the tail behind a split point, or to the full student."""
    return f"{certified(point, local, named=named)}:" + ("offload" if at is None else f"split:{place(at)}")


def place(point: SplitPoint) -> str:
    """Name of a split point within its graph."""
    return point.place or point.id


def _of(graph: str, local: str) -> str:
    return "" if graph in ("", local) else f"@{graph}"
