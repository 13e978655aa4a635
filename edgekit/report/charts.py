"""Small SVG charts, drawn as text: no script, no library, readable by a screen reader, coloured by the page's CSS."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from markupsafe import Markup, escape

from edgekit.report.numbers import significant

WIDTH = 640
_BINS = 48


def histogram(samples: Sequence[float], median: float | None, interval: tuple[float, float] | None) -> Markup:
    """Latency distribution from raw samples in ms, its longest tail cut off and counted.

    Args:
        samples: ms.
        median: Drawn as a line; None: withheld.
        interval: Drawn as a band.
    """
    values = np.asarray(samples)
    low, high = float(values.min()), float(np.quantile(values, 0.99))
    high = max(high + (high - low) * 0.05, low * 1.001)
    beyond = int((values > high).sum())
    counts, edges = np.histogram(values[values <= high], bins=min(_BINS, max(5, len(values) // 4)), range=(low, high))
    top, base, tallest = 24, 140, max(int(counts.max()), 1)

    def x(value: float) -> float:
        return 10 + (value - low) / (high - low) * (WIDTH - 20)

    parts = []
    if interval:
        left, right = x(max(interval[0], low)), x(min(interval[1], high))
        parts.append(
            f'<rect class="band" x="{left:.1f}" y="{top}" width="{max(right - left, 1):.1f}" height="{base - top}"/>'
        )
    for number, left, right in zip(counts, edges[:-1], edges[1:], strict=True):
        height = (base - top) * number / tallest
        width = max(x(right) - x(left) - 1, 0.5)
        parts.append(
            f'<rect class="bar" x="{x(left):.1f}" y="{base - height:.1f}" width="{width:.1f}" height="{height:.1f}"/>'
        )
    if median is not None:
        side = "end" if x(median) > WIDTH - 120 else "start"
        shift = -5 if side == "end" else 5
        parts.append(f'<line class="mark" x1="{x(median):.1f}" x2="{x(median):.1f}" y1="{top - 16}" y2="{base}"/>')
        parts.append(_text(x(median) + shift, top - 8, f"p50 {significant(median)} ms", side))
    parts += _axis(low, high, base, x, "ms")
    tail = f"; {beyond} longer samples up to {significant(float(values.max()))} ms are not drawn" if beyond else ""
    label = f"Distribution of {len(values)} samples between {significant(low)} and {significant(high)} ms{tail}"
    return _svg("".join(parts), 166, label)


def timeline(samples: Sequence[float], most: int = 600) -> Markup:
    """Samples in order of time, so that drift and interruptions show; at most `most` points, evenly chosen."""
    values = np.asarray(samples)
    chosen = np.unique(np.linspace(0, len(values) - 1, min(most, len(values))).astype(int))
    low, high = float(values.min()), float(np.quantile(values, 0.99))
    high = max(high, low * 1.001)
    top, base = 8, 92
    points = []
    for index in chosen:
        place = base - (min(values[index], high) - low) / (high - low) * (base - top)
        points.append(f"M{10 + index / max(len(values) - 1, 1) * (WIDTH - 20):.1f} {place:.1f}h0")
    parts = [
        f'<path class="dots" d="{"".join(points)}"/>',
        f'<line class="axis" x1="10" x2="{WIDTH - 10}" y1="{base + 4}" y2="{base + 4}"/>',
    ]
    parts += [_text(10, base + 18, "first sample"), _text(WIDTH - 10, base + 18, "last sample", "end")]
    return _svg("".join(parts), 116, f"The same samples in order of time, {significant(low)} to {significant(high)} ms")


def bars(rows: Sequence[tuple[str, float, str]], label: str) -> Markup:
    """Horizontal bars.

    Args:
        rows: Name, value, and the text at the bar's end.
        label: What a screen reader says.
    """
    largest = max((value for _, value, _ in rows), default=0.0) or 1.0
    parts = []
    for index, (name, value, text) in enumerate(rows):
        y = index * 24
        width = value / largest * (WIDTH - 420)
        parts.append(_text(232, y + 16, _shorten(name), "end"))
        parts.append(f'<rect class="bar" x="240" y="{y + 4}" width="{max(width, 0.5):.1f}" height="16"/>')
        parts.append(_text(240 + width + 6, y + 16, text))
    return _svg("".join(parts), max(len(rows) * 24, 24), label)


def scatter(points: Sequence[tuple[str, float, float, bool]], x_name: str, y_name: str) -> Markup:
    """Points on logarithmic x and linear y, each with its name; those on the Pareto front are filled.

    Args:
        points: Name, x (above 0), y, and whether nothing else is better in both.
        x_name: Axis title with unit.
        y_name: Axis title.
    """
    xs, ys = np.log10([point[1] for point in points]), np.array([point[2] for point in points])
    x_low, x_high = float(xs.min()) - 0.15, float(xs.max()) + 0.35
    margin = max(float(np.ptp(ys)) * 0.2, 1e-3)
    y_low, y_high = float(ys.min()) - margin, float(ys.max()) + margin
    base, top = 220, 24
    parts = [
        f'<line class="axis" x1="70" x2="{WIDTH - 10}" y1="{base}" y2="{base}"/>',
        f'<line class="axis" x1="70" x2="70" y1="{top}" y2="{base}"/>',
    ]
    taken: list[tuple[float, float]] = []
    for (name, value, quality, front), log in zip(points, xs, strict=True):
        px = 70 + (log - x_low) / (x_high - x_low) * (WIDTH - 80)
        py = base - (quality - y_low) / (y_high - y_low) * (base - top)
        text_y = py - 8
        while any(abs(text_y - other_y) < 13 and abs(px - other_x) < 150 for other_x, other_y in taken):
            text_y += 14
        taken.append((px, text_y))
        parts.append(f'<circle class="{"front" if front else "point"}" cx="{px:.1f}" cy="{py:.1f}" r="5"/>')
        side, shift = ("end", -8) if px > WIDTH - 170 else ("start", 8)
        parts.append(_text(px + shift, text_y, f"{name}, {significant(value)} ms", side))
    parts += [_text(WIDTH - 10, base + 18, x_name + " (logarithmic)", "end"), _text(70, 14, y_name)]
    parts += [_text(64, base, significant(y_low), "end"), _text(64, top + 8, significant(y_high), "end")]
    return _svg(
        "".join(parts),
        246,
        f"{y_name} against {x_name}: " + "; ".join(f"{n} {significant(v)}, {significant(q)}" for n, v, q, _ in points),
    )


def pareto(points: Sequence[tuple[float, float]]) -> list[bool]:
    """For each (cost, quality): whether no other point is at least as good in both and better in one."""
    return [
        not any(c <= cost and q >= quality and (c < cost or q > quality) for c, q in points) for cost, quality in points
    ]


def _axis(low: float, high: float, base: float, x: object, unit: str) -> list[str]:
    assert callable(x)
    parts = [f'<line class="axis" x1="10" x2="{WIDTH - 10}" y1="{base}" y2="{base}"/>']
    for step, side in ((0.0, "start"), (0.25, "middle"), (0.5, "middle"), (0.75, "middle"), (1.0, "end")):
        value = low + (high - low) * step
        parts.append(_text(x(value), base + 18, f"{significant(value)} {unit}", side))
    return parts


def _text(x: float, y: float, text: str, anchor: str = "start") -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{escape(text)}</text>'


def _shorten(name: str, most: int = 28) -> str:
    return name if len(name) <= most else "…" + name[-(most - 1) :]


def _svg(body: str, height: int, label: str) -> Markup:
    # Every text in `body` went through escape() in _text; the rest are numbers made here.
    return Markup(f'<svg viewBox="0 0 {WIDTH} {height}" role="img" aria-label="{escape(label)}">{body}</svg>')
