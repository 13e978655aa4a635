"""The picture of a plan: for each load a map of round trip and bandwidth, coloured by the action that wins."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from html import escape

from edgekit.planner.plan import Plan
from edgekit.report import plain

# Told apart by people who do not see red and green (Okabe and Ito), then again lighter.
_COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#f0e442", "#7f7f7f")
_CELL, _LEFT, _TOP = 18, 70, 4
_LEFT_OUT = ("Action", "Why")


def page(found: Plan, title: str, notes: Sequence[str] = (), left_out: Mapping[str, str] | None = None) -> str:
    """The whole page as HTML; one file that needs no network.

    Args:
        found: The plan.
        title: Of the page.
        notes: What the plan rests on, a line each.
        left_out: Actions that are not among the plan's, with the reason.
    """
    used = [place for place, _ in Counter(found.winners.ravel().tolist()).most_common()]
    colours = {place: _COLOURS[number % len(_COLOURS)] for number, place in enumerate(used)}
    legend = "".join(
        f'<li><svg viewBox="0 0 12 12"><rect width="12" height="12" fill="{colours[place]}"/></svg> '
        f"{escape(found.actions.actions[place].id)}, {share(found, place)}</li>"
        for place in used
    )
    maps = "".join(
        f"<section><h3>device {100 * on_device:.0f} % and server {100 * on_server:.0f} % busy</h3>"
        + _map(found, k, m, colours)
        + "</section>"
        for k, on_device in enumerate(found.grid.device_load)
        for m, on_server in enumerate(found.grid.server_load)
    )
    verdict = found.verdict[:1].upper() + found.verdict[1:]
    body = f"<h1>{escape(title)}</h1><p><strong>{escape(verdict)}.</strong></p>"
    body += "".join(f'<p class="soft">{escape(note)}</p>' for note in notes)
    body += "<h2>What wins where</h2><p>Each map: round trip downwards, uplink from left to right.</p>"
    body += f'<ul class="keys">{legend}</ul><div class="maps">{maps}</div>{_figures(found)}'
    if left_out:
        rows = [(name, reason) for name, reason in left_out.items()]
        body += "<h2>Left out</h2>" + plain.table("Actions that take no part, and why", _LEFT_OUT, rows, _LEFT_OUT)
    return plain.document(title, body)


def _figures(found: Plan) -> str:
    """The same in figures: every action at one link, and where another one takes over."""
    told = found.document()
    at = told["at"]
    rows = [
        (
            row["id"],
            f"{row['predicted_ms']:.2f}",
            f"{row['bytes_up']:,}",
            "not measured" if row["accuracy_drop"] is None else f"{row['accuracy_drop']:.4f}",
            "; ".join(row["reasons"]),
        )
        for row in told["actions"]
    ]
    where = (
        f"At {at['rtt_ms']:g} ms round trip, {at['bandwidth_mbps']:g} Mbit/s, device {100 * at['device_load']:.0f} % "
        f"and server {100 * at['server_load']:.0f} % busy with others; drop: of accuracy against the device's own graph"
    )
    columns = ("Action", "Expected ms", "Bytes up", "Accuracy drop", "Why")
    made = "<h2>One link in figures</h2>" + plain.table(where, columns, rows, ("Action", "Why"))
    if not found.crossovers:
        return made + '<p class="soft">No bandwidth that was looked at changes the best action.</p>'
    changes = [
        (
            f"{row.bandwidth_mbps:.3g}",
            row.above,
            row.below,
            f"{row.rtt_ms:g}",
            f"{100 * row.device_load:.0f}",
            f"{100 * row.server_load:.0f}",
        )
        for row in found.crossovers
    ]
    titles = ("From Mbit/s", "Action", "Instead of", "Round trip ms", "Device busy %", "Server busy %")
    shown = plain.table("Bandwidths from which another action is expected to be best", titles, changes, titles[1:3])
    return f"{made}<h2>Where another action takes over</h2>{shown}"


def share(found: Plan, place: int) -> str:
    """Of the links and loads looked at, how many an action wins."""
    won = int((found.winners == place).sum())
    return f"{won} of {found.winners.size}"


def _map(found: Plan, k: int, m: int, colours: dict[int, str]) -> str:
    grid = found.grid
    width = _LEFT + _CELL * len(grid.bandwidth_mbps) + 10
    height = _TOP + _CELL * len(grid.rtt_ms) + 26
    parts = []
    for i, rtt in enumerate(grid.rtt_ms):
        y = _TOP + _CELL * i
        parts.append(f'<text x="{_LEFT - 6}" y="{y + 13}" text-anchor="end">{rtt:g} ms</text>')
        for j, mbps in enumerate(grid.bandwidth_mbps):
            place = int(found.winners[i, j, k, m])
            told = (
                f"{found.actions.actions[place].id}, {found.times_ms[i, j, k, m]:.1f} ms at {mbps:g} Mbit/s, {rtt:g} ms"
            )
            parts.append(
                f'<rect x="{_LEFT + _CELL * j}" y="{y}" width="{_CELL - 1}" height="{_CELL - 1}" '
                f'fill="{colours[place]}"><title>{escape(told)}</title></rect>'
            )
    bottom = _TOP + _CELL * len(grid.rtt_ms) + 17
    last = len(grid.bandwidth_mbps) - 1
    for j, anchor in {0: "start", last // 2: "middle", last: "end"}.items():
        x = _LEFT + _CELL * j + {"start": 0, "middle": _CELL // 2, "end": _CELL}[anchor]
        parts.append(f'<text x="{x}" y="{bottom}" text-anchor="{anchor}">{grid.bandwidth_mbps[j]:g} Mbit/s</text>')
    label = (
        f"Best action by round trip and bandwidth, device {grid.device_load[k]:g}, server {grid.server_load[m]:g} busy"
    )
    return f'<svg viewBox="0 0 {width} {height}" role="img" aria-label="{escape(label)}">{"".join(parts)}</svg>'
