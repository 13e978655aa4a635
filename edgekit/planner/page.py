"""The picture of a plan: for each load a map of round trip and bandwidth, coloured by the action that wins."""

from __future__ import annotations

from collections import Counter
from html import escape
from importlib import resources

from edgekit.planner.plan import Plan

# Told apart by people who do not see red and green (Okabe and Ito), then again lighter.
_COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#f0e442", "#7f7f7f")
_CELL, _LEFT, _TOP = 18, 70, 4


def page(found: Plan, title: str) -> str:
    """The whole page as HTML; one file that needs no network."""
    style = resources.files("edgekit.report").joinpath("templates/style.css").read_text(encoding="utf-8")
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
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        "<meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'\">"
        f"<title>{escape(title)}</title><style>{style}</style></head><body><main><h1>{escape(title)}</h1>"
        f"<p>{escape(found.verdict)}</p><p>Each map: round trip downwards, uplink from left to right; a cell tells its "
        f'action and time.</p><ul class="keys">{legend}</ul><div class="maps">{maps}</div>'
        "</main></body></html>\n"
    )


def share(found: Plan, place: int) -> str:
    """Of the links and loads looked at, how many an action wins."""
    won = int((found.winners == place).sum())
    return f"{won} of {found.winners.size}"


def _map(found: Plan, k: int, m: int, colours: dict[int, str]) -> str:
    grid = found.grid
    width = _LEFT + _CELL * len(grid.bandwidth_mbps) + 10
    height = _TOP + _CELL * len(grid.rtt_ms) + 22
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
    bottom = _TOP + _CELL * len(grid.rtt_ms) + 14
    last = len(grid.bandwidth_mbps) - 1
    for j, anchor in {0: "start", last // 2: "middle", last: "end"}.items():
        x = _LEFT + _CELL * j + {"start": 0, "middle": _CELL // 2, "end": _CELL}[anchor]
        parts.append(f'<text x="{x}" y="{bottom}" text-anchor="{anchor}">{grid.bandwidth_mbps[j]:g} Mbit/s</text>')
    label = (
        f"Best action by round trip and bandwidth, device {grid.device_load[k]:g}, server {grid.server_load[m]:g} busy"
    )
    return f'<svg viewBox="0 0 {width} {height}" role="img" aria-label="{escape(label)}">{"".join(parts)}</svg>'
