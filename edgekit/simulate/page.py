"""The pictures of a study in one file that needs no network: link and choices over time, latency, regret."""

from __future__ import annotations

import math
from collections.abc import Sequence
from html import escape

import numpy as np

from edgekit.report import plain
from edgekit.report.numbers import significant
from edgekit.simulate.engine import Answered
from edgekit.simulate.policies import NAMES
from edgekit.simulate.study import Study
from edgekit.simulate.traces import Series

_WIDTH, _LEFT, _RIGHT = 640, 60, 10
# One colour an action or policy, told apart by people who do not see red and green (Okabe and Ito).
_COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#7f7f7f", "#f0e442")


def page(study: Study, title: str) -> str:
    """The whole page as HTML.

    Args:
        study: What was simulated.
        title: Of the page.
    """
    document = study.document()
    regret = document["regret_fraction"]
    told = "nothing was answered" if regret is None else f"adaptive is {100 * regret:.1f} % over the oracle"
    parts = [
        f"<h1>{escape(title)}</h1>",
        f'<p class="soft">{document["requests"]} requests, {document["lost"]} lost; {told}; the best fixed action is '
        f"{escape(study.best_fixed)}.</p>",
        _table(study),
        "<h2>Link and choices over time</h2>",
        _wide(over_time(study)),
        "<h2>Latency: share of requests answered within a time</h2>",
        _wide(distribution(study)),
        "<h2>Time lost against the oracle, mean</h2>",
        _wide(regrets(study)),
    ]
    return plain.document(title, "".join(parts))


def over_time(study: Study) -> str:
    """The first day's uplink on a logarithmic scale, and beneath it a row for each action with what was chosen when."""
    trace, rows = study.setting.traces[0], study.answers["adaptive"][0]
    end_s = rows[-1].arrival_s
    top, base, left = 20, 160, 180  # room for the ids of actions
    points = _resampled(trace.up, end_s)
    values = [max(value, 1e-3) for _, value in points]
    low, high = math.log10(min(values)) - 0.1, math.log10(max(values)) + 0.1

    def x(seconds: float) -> float:
        return left + seconds / end_s * (_WIDTH - left - _RIGHT)

    def y(mbps: float) -> float:
        return base - (math.log10(max(mbps, 1e-3)) - low) / (high - low) * (base - top)

    line = " ".join(f"{x(seconds):.1f},{y(value):.1f}" for seconds, value in points)
    parts = [
        f'<polyline points="{line}" fill="none" stroke="currentColor" stroke-width="1.2"/>',
        _text(left, 12, "uplink, Mbit/s (logarithmic)"),
        _text(left - 4, y(max(values)) + 8, f"{max(values):.3g}", "end"),
    ]
    if y(min(values)) - y(max(values)) > 24:  # else the two figures would cover each other
        parts.append(_text(left - 4, y(min(values)), f"{min(values):.3g}", "end"))
    used = _used(rows)
    for lane, place in enumerate(used):
        height = base + 18 + 16 * lane
        colour = _COLOURS[lane % len(_COLOURS)]
        marks = "".join(
            f'<rect x="{x(row.arrival_s):.1f}" y="{height - 8}" width="1.4" height="10" fill="{colour}"/>'
            for row in rows
            if row.place == place
        )
        parts += [marks, _text(left - 4, height, _shortened(study.setting.actions[place].id), "end")]
    bottom = base + 18 + 16 * len(used)
    parts += [_text(left, bottom + 10, "0 s"), _text(_WIDTH - _RIGHT, bottom + 10, f"{end_s:.0f} s", "end")]
    return _svg(parts, bottom + 16, f"Uplink of {trace.name} and the actions chosen over {end_s:.0f} seconds")


def distribution(study: Study) -> str:
    """Latency of each policy as a cumulative distribution; those that answered all alike share a curve and a name."""
    alike: dict[bytes, list[str]] = {}
    for name in NAMES:
        alike.setdefault(np.sort(study.latencies_ms(name)).tobytes(), []).append(name)
    seen = {", ".join(names): np.sort(study.latencies_ms(names[0])) for names in alike.values()}
    finite = np.concatenate([rows[np.isfinite(rows)] for rows in seen.values()])
    low, high = float(finite.min()) * 0.9, float(np.quantile(finite, 0.99)) * 1.5
    base, top = 200, 16

    def x(ms: float) -> float:
        return _LEFT + math.log(max(ms, low) / low) / math.log(high / low) * (_WIDTH - _LEFT - _RIGHT)

    parts = [f'<line class="axis" x1="{_LEFT}" x2="{_WIDTH - _RIGHT}" y1="{base}" y2="{base}"/>']
    for number, (name, rows) in enumerate(seen.items()):
        shares = np.linspace(0, 1, 101)
        at = rows[np.minimum((shares * (len(rows) - 1)).astype(int), len(rows) - 1)]
        points = [(x(min(float(ms), high)), base - share * (base - top)) for share, ms in zip(shares, at, strict=True)]
        line = " ".join(f"{px:.1f},{py:.1f}" for px, py in points)
        colour = _COLOURS[number % len(_COLOURS)]
        parts.append(f'<polyline points="{line}" fill="none" stroke="{colour}" stroke-width="1.6"/>')
        # The key stands below: over the plane it would cover the curves.
        down = base + 40 + 16 * number
        parts.append(f'<rect x="{_LEFT}" y="{down - 6}" width="12" height="4" fill="{colour}"/>')
        parts.append(_text(_LEFT + 18, down, name))
    for ms in (low, math.sqrt(low * high), high):
        parts.append(_text(x(ms), base + 16, f"{significant(ms)} ms", "end" if ms == high else "start"))
    parts += [_text(_LEFT - 4, base, "0", "end"), _text(_LEFT - 4, top + 8, "1", "end")]
    return _svg(parts, base + 32 + 16 * len(seen), "Cumulative distribution of latency by policy")


def regrets(study: Study) -> str:
    """Mean latency of each policy over the oracle's, as bars."""
    means = {name: study.summary(name)["mean_ms"] for name in NAMES}
    oracle = means["oracle"]
    if not oracle:
        return "<p>nothing was answered</p>"
    rows = [(name, mean / oracle - 1) for name, mean in means.items() if mean is not None and name != "oracle"]
    widest = max(max(value for _, value in rows), 0.01)
    parts = []
    for number, (name, value) in enumerate(rows):
        height = 24 * number
        width = max(value, 0) / widest * (_WIDTH - 300)
        parts += [
            _text(170, height + 16, name, "end"),
            f'<rect class="bar" x="180" y="{height + 4}" width="{max(width, 0.5):.1f}" height="16"/>',
            _text(186 + width, height + 16, f"{100 * value:+.1f} %"),
        ]
    return _svg(
        parts, 24 * len(rows) + 4, "Mean latency over the oracle's: " + ", ".join(f"{n} {v:.2f}" for n, v in rows)
    )


def _table(study: Study) -> str:
    rows = []
    for name in NAMES:
        seen = study.summary(name)
        figures = (_figure(seen[key]) for key in ("mean_ms", "p50_ms", "p95_ms"))
        drop = "not measured" if seen["accuracy_drop"] is None else f"{seen['accuracy_drop']:.4f}"
        actions = ", ".join(f"{action} {count}" for action, count in seen["actions"].items())
        rows.append((name, *figures, str(seen["deadline_misses"]), str(seen["lost"]), drop, actions))
    columns = ("Policy", "Mean ms", "p50 ms", "p95 ms", "Late", "Lost", "Accuracy drop", "Actions")
    return plain.table("Each policy over the same links and loads", columns, rows, ("Policy", "Actions"))


def _wide(svg: str) -> str:
    return f'<div class="wide" tabindex="0" role="region" aria-label="Picture, scrolls sideways">{svg}</div>'


def _shortened(name: str, most: int = 26) -> str:
    return name if len(name) <= most else f"{name[: most - 1]}…"


def _figure(value: float | None) -> str:
    return "-" if value is None else f"{value:.1f}"


def _used(rows: Sequence[Answered]) -> list[int]:
    return sorted({row.place for row in rows if row.place >= 0})


def _resampled(series: Series, end_s: float, most: int = 400) -> list[tuple[float, float]]:
    times = np.linspace(0, end_s, most)
    return [(float(seconds), series.at(float(seconds))) for seconds in times]


def _text(x: float, y: float, text: str, anchor: str = "start") -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{escape(text)}</text>'


def _svg(parts: Sequence[str], height: float, label: str) -> str:
    return f'<svg viewBox="0 0 {_WIDTH} {height:.0f}" role="img" aria-label="{escape(label)}">{"".join(parts)}</svg>'
