"""Small SVG charts, drawn as text: no script, no library, readable by a screen reader, coloured by the page's CSS.

They are 360 units wide, so that the text is as large as the page's own on a phone and on a desk, and every figure that
a chart shows is also in a table or a text beside it.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Sequence
from html import escape

import numpy as np

from edgekit.report.numbers import significant

WIDTH = 360
_BINS = 36
_LETTER = 6.4  # mean width of a letter at the charts' 12 units
_LEFT, _RIGHT, _TOP, _BASE = 46, 10, 30, 220  # the plane of a scatter chart

Scale = Callable[[float], float]


class Markup(str):
    """Text that a template takes as it is. Templates know it by `__html__`, so that figures on a terminal need none."""

    def __html__(self) -> str:
        return self


@dataclasses.dataclass(frozen=True)
class Point:
    """One point of a scatter chart.

    Attributes:
        name: What a label or a reader says.
        x: Above 0.
        y: As the axis says.
        kind: Precision: decides the colour.
        front: Nothing else is better in both: filled, named, joined by the line.
        doubtful: The figures are noisy or invalid: dashed.
    """

    name: str
    x: float
    y: float
    kind: str
    front: bool = False
    doubtful: bool = False


def histogram(
    samples: Sequence[float],
    median: float | None,
    interval: tuple[float, float] | None,
    *,
    over: Sequence[float] | None = None,
) -> Markup:
    """Latency distribution from raw samples in ms, its longest tail cut off and counted.

    Args:
        samples: ms.
        median: Drawn as a line; None: withheld.
        interval: Drawn as a band.
        over: Samples whose range is drawn, where several charts share one; None: these.
    """
    values, shared = np.asarray(samples), np.asarray(samples if over is None else over)
    low, most, high = float(shared.min()), *map(float, np.quantile(shared, (0.9, 0.97)))
    high = min(high, most + 3 * (most - low))  # a few interrupted runs would press all others into one bar
    high = max(high + (high - low) * 0.05, low * 1.001)
    beyond = int((values > high).sum())
    counts, edges = np.histogram(values[values <= high], bins=min(_BINS, max(5, len(values) // 4)), range=(low, high))
    top, base, tallest = 26, 140, max(int(counts.max()), 1)

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
        place = min(x(median), WIDTH - 10)
        side, shift = ("end", -5) if place > WIDTH - 120 else ("start", 5)
        parts.append(f'<line class="mark" x1="{place:.1f}" x2="{place:.1f}" y1="{top - 16}" y2="{base}"/>')
        parts.append(_text(place + shift, top - 8, f"p50 {significant(median)} ms", side))
    parts += _axis(low, high, base, x, "ms")
    if beyond:
        longest = f"{beyond} more up to {significant(float(values.max()))} ms"
        # On the side that the bars leave free.
        free = (WIDTH - 10, "end") if x(float(np.median(values))) < WIDTH / 2 else (10, "start")
        parts.append(_text(free[0], top + 14, longest, free[1]))
    tail = f"; {beyond} longer samples up to {significant(float(values.max()))} ms are not drawn" if beyond else ""
    label = f"Distribution of {len(values)} samples between {significant(low)} and {significant(high)} ms{tail}"
    return _svg("".join(parts), 166, label)


def ratios(rounds: Sequence[float], ratio: float, interval: tuple[float, float], margin: tuple[float, float]) -> Markup:
    """Ratios round by round on a logarithmic axis: a band for the interval, dashed lines for the margin.

    Args:
        rounds: Ratio of each round, in order.
        ratio: Of all.
        interval: Of `ratio`.
        margin: Ratios that do not count as a difference.
    """
    logs = [math.log(value) for value in (*rounds, ratio, *interval, *margin)]
    low, high = min(logs), max(logs)
    low, high = low - (high - low) * 0.06, high + (high - low) * 0.06
    top, base = 26, 40 + 14 * len(rounds)

    def x(value: float) -> float:
        return 10 + (math.log(value) - low) / (high - low) * (WIDTH - 20)

    left, right = x(interval[0]), x(interval[1])
    parts = [f'<rect class="band" x="{left:.1f}" y="{top}" width="{right - left:.1f}" height="{base - top}"/>']
    parts += [_line("limit", x(end), x(end), top, base) for end in margin]
    parts.append(_line("mark", x(ratio), x(ratio), top - 16, base))
    place, (side, shift) = x(ratio), (("end", -5) if x(ratio) > WIDTH - 120 else ("start", 5))
    parts.append(_text(place + shift, top - 8, f"A / B {ratio:.3f}", side))
    for number, value in enumerate(rounds):
        title = f"<title>round {number + 1}: {value:.3f}</title>"
        at = f'cx="{x(value):.1f}" cy="{top + 14 + 14 * number}"'
        parts.append(f'<circle class="dot int8 front" {at} r="4">{title}</circle>')
    parts += [_line("axis", 10, WIDTH - 10, base, base)]
    for place, side in ((low, "start"), ((low + high) / 2, "middle"), (high, "end")):
        parts.append(_text(x(math.exp(place)), base + 18, f"{math.exp(place):.3f}", side))
    told = ", ".join(f"{value:.3f}" for value in rounds)
    label = (
        f"Time of A over time of B: {ratio:.3f}, interval {interval[0]:.3f} to {interval[1]:.3f}, margin "
        f"{margin[0]:.3f} to {margin[1]:.3f}; rounds {told}"
    )
    return _svg("".join(parts), base + 26, label)


def timeline(samples: Sequence[float], processes: Sequence[int] = (), most: int = 600) -> Markup:
    """Samples in order of time, so that drift and interruptions show; fresh processes are divided by lines.

    Args:
        samples: ms, in order.
        processes: Samples of each fresh process; empty: not told.
        most: Points drawn, evenly chosen.
    """
    values = np.asarray(samples)
    chosen = np.unique(np.linspace(0, len(values) - 1, min(most, len(values))).astype(int))
    low, high = float(values.min()), float(np.quantile(values, 0.99))
    high = max(high, low * 1.001)
    top, base = 8, 92

    def x(index: float) -> float:
        return 10 + index / max(len(values) - 1, 1) * (WIDTH - 20)

    points = []
    for index in chosen:
        place = base - (min(values[index], high) - low) / (high - low) * (base - top)
        points.append(f"M{x(index):.1f} {place:.1f}h0")
    parts = [f'<path class="dots" d="{"".join(points)}"/>', _line("axis", 10, WIDTH - 10, base + 4, base + 4)]
    for border in np.cumsum(processes)[:-1]:
        parts.append(_line("divide", x(border - 0.5), x(border - 0.5), top - 4, base + 4))
    parts += [_text(10, base + 18, "first sample"), _text(WIDTH - 10, base + 18, "last sample", "end")]
    fresh = f", from {len(processes)} fresh processes" if len(processes) > 1 else ""
    label = f"The same samples in order of time{fresh}, {significant(low)} to {significant(high)} ms"
    return _svg("".join(parts), 116, label)


def bars(rows: Sequence[tuple[str, float, str, str]], label: str) -> Markup:
    """Horizontal bars, each with its name above it.

    Args:
        rows: Name, value, the text at the right end of the name's line, and the bar's class.
        label: What a screen reader says before the rows.
    """
    largest = max((value for _, value, _, _ in rows), default=0.0) or 1.0
    parts = []
    for index, (name, value, text, kind) in enumerate(rows):
        y = index * 30
        width = value / largest * (WIDTH - 8)
        parts.append(_text(4, y + 13, _shorten(name, max(8, int((WIDTH - 16) / _LETTER) - len(text)))))
        parts.append(_text(WIDTH - 4, y + 13, text, "end"))
        parts.append(f'<rect class="{kind}" x="4" y="{y + 18}" width="{max(width, 0.5):.1f}" height="7" rx="2"/>')
    told = "; ".join(f"{name} {text}" for name, _, text, _ in rows)
    return _svg("".join(parts), max(len(rows) * 30, 24), f"{label}: {told}")


def scatter(points: Sequence[Point], x_name: str, y_name: str, told: Callable[[float], str] = significant) -> Markup:
    """Points on logarithmic x and linear y; the front is filled, joined and named first, others where there is room.

    Args:
        points: At least one.
        x_name: Axis title with unit.
        y_name: Axis title.
        told: How a value of x is written.
    """
    xs, ys = [math.log10(point.x) for point in points], [point.y for point in points]
    margin = max(max(ys) - min(ys), 1e-3) * 0.25
    x_range = (min(xs) - 0.15, max(xs) + 0.15)
    x, y = _plane(x_range, (min(ys) - margin, max(ys) + margin))
    front = sorted((point for point in points if point.front), key=lambda point: point.x)
    path = " ".join(f"{x(math.log10(point.x)):.1f},{y(point.y):.1f}" for point in front)
    parts = [*_frame(x_name + ", logarithmic", y_name), f'<polyline class="path" points="{path}"/>']
    parts += _x_ticks(*x_range, x, told)
    parts += [_text(_LEFT - 4, y(value) + 4, significant(value), "end") for value in sorted({min(ys), max(ys)})]
    places = {id(point): (x(math.log10(point.x)), y(point.y)) for point in points}
    taken = [(px - 6, py - 6, px + 6, py + 6) for px, py in places.values()]
    for point in sorted(points, key=lambda point: not point.front):
        px, py = places[id(point)]
        kind = f"dot {point.kind}{' front' if point.front else ''}{' doubtful' if point.doubtful else ''}"
        title = f"<title>{escape(_told(point, told))}</title>"
        parts.append(f'<circle class="{kind}" cx="{px:.1f}" cy="{py:.1f}" r="5">{title}</circle>')
        parts.append(_name(point.name, px, py, taken))
    words = "; ".join(_told(point, told) for point in points)
    return _svg("".join(parts), _BASE + 38, f"{y_name} against {x_name}: {words}")


def log_log(
    points: Sequence[Point], lines: Sequence[tuple[str, Callable[[float], float]]], x_name: str, y_name: str
) -> Markup:
    """Points below roofs, both axes logarithmic.

    Args:
        points: At least one, x and y above 0.
        lines: Name of each roof, and its height at an x.
        x_name: Axis title with unit.
        y_name: Axis title with unit.
    """
    low, high = min(p.x for p in points) / 2, max(p.x for p in points) * 3
    tops = [height(high) for _, height in lines] + [p.y for p in points]
    bottom, top = min(p.y for p in points) / 2, max(tops) * 2
    x, y = _plane((math.log10(low), math.log10(high)), (math.log10(bottom), math.log10(top)))
    parts = [*_frame(x_name, y_name), *_x_ticks(math.log10(low), math.log10(high), x, significant)]
    for exponent in range(math.ceil(math.log10(bottom)), math.floor(math.log10(top)) + 1):
        parts.append(_text(_LEFT - 4, y(exponent) + 4, significant(10.0**exponent), "end"))
    for name, height in lines:
        steps = np.geomspace(low, high, 60)
        inside = [(at, height(at)) for at in steps if bottom <= height(at) <= top]
        path = " ".join(f"{x(math.log10(at)):.1f},{y(math.log10(value)):.1f}" for at, value in inside)
        parts.append(f'<polyline class="roof" points="{path}"/>')
        if inside:
            parts.append(_text(WIDTH - _RIGHT, y(math.log10(inside[-1][1])) - 5, name, "end"))
    for point in points:
        px, py = x(math.log10(point.x)), y(math.log10(point.y))
        title = f"<title>{escape(_told(point, significant))}</title>"
        parts.append(f'<circle class="dot {point.kind} front" cx="{px:.1f}" cy="{py:.1f}" r="4">{title}</circle>')
    words = "; ".join(_told(point, significant) for point in points)
    return _svg("".join(parts), _BASE + 38, f"{y_name} against {x_name}: {words}")


def pareto(points: Sequence[tuple[float, float]]) -> list[bool]:
    """For each (cost, quality): whether no other point is at least as good in both and better in one."""
    return [
        not any(c <= cost and q >= quality and (c < cost or q > quality) for c, q in points) for cost, quality in points
    ]


def _plane(x_range: tuple[float, float], y_range: tuple[float, float]) -> tuple[Scale, Scale]:
    def x(value: float) -> float:
        return _LEFT + (value - x_range[0]) / (x_range[1] - x_range[0]) * (WIDTH - _LEFT - _RIGHT)

    def y(value: float) -> float:
        return _BASE - (value - y_range[0]) / (y_range[1] - y_range[0]) * (_BASE - _TOP)

    return x, y


def _frame(x_name: str, y_name: str) -> list[str]:
    return [
        _line("axis", _LEFT, WIDTH - _RIGHT, _BASE, _BASE),
        _line("axis", _LEFT, _LEFT, _TOP, _BASE),
        _text(WIDTH - _RIGHT, _BASE + 30, x_name, "end"),
        _text(4, 14, y_name),
    ]


def _x_ticks(low: float, high: float, x: Scale, told: Callable[[float], str]) -> list[str]:
    """Marks at 1, 2 and 5 of each decade that lies in a range of logarithms, not more than six; else near its ends."""
    marks = [
        exponent + math.log10(step) for exponent in range(math.floor(low), math.ceil(high) + 1) for step in (1, 2, 5)
    ]
    inside = [mark for mark in marks if low <= mark <= high]
    if len(inside) > 6:
        inside = [mark for mark in inside if abs(mark - round(mark)) < 1e-9]
    if len(inside) < 2:  # one mark alone tells no scale
        inside = [low + (high - low) * part for part in (0.15, 0.85)]
    return [_text(x(mark), _BASE + 15, told(10**mark), "middle") for mark in inside]


Box = tuple[float, float, float, float]


def _name(name: str, px: float, py: float, taken: list[Box]) -> str:
    """A label beside a point, where it covers no other label or point and stays in the plane; else nothing."""
    width = len(name) * _LETTER
    for side, left in (("start", px + 9), ("end", px - 9 - width), ("middle", px - width / 2)):
        for shift in (4, -10, 18, -22, 30):
            if side == "middle" and shift == 4:
                continue
            box = (left, py + shift - 10, left + width, py + shift + 2)
            inside = box[0] >= _LEFT and box[2] <= WIDTH and box[1] >= _TOP - 12 and box[3] <= _BASE
            if inside and not any(_overlap(box, other) for other in taken):
                taken.append(box)
                return _text({"start": left, "end": left + width, "middle": px}[side], py + shift, name, side)
    return ""


def _overlap(a: Box, b: Box) -> bool:
    return a[0] < b[2] and b[0] < a[2] and a[1] < b[3] and b[1] < a[3]


def _told(point: Point, told: Callable[[float], str]) -> str:
    doubt = ", doubtful" if point.doubtful else ""
    return f"{point.name}: {told(point.x)}, {significant(point.y)}{doubt}"


def _axis(low: float, high: float, base: float, x: Scale, unit: str) -> list[str]:
    parts = [_line("axis", 10, WIDTH - 10, base, base)]
    for step, side in ((0.0, "start"), (0.5, "middle"), (1.0, "end")):
        value = low + (high - low) * step
        parts.append(_text(x(value), base + 18, f"{significant(value)} {unit}", side))
    return parts


def _line(kind: str, x1: float, x2: float, y1: float, y2: float) -> str:
    return f'<line class="{kind}" x1="{x1:.1f}" x2="{x2:.1f}" y1="{y1:.1f}" y2="{y2:.1f}"/>'


def _text(x: float, y: float, text: str, anchor: str = "start") -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{escape(text)}</text>'


def _shorten(name: str, most: int = 28) -> str:
    return name if len(name) <= most else "…" + name[-(most - 1) :]


def _svg(body: str, height: int, label: str) -> Markup:
    # Every text in `body` went through escape() in _text or <title>; the rest are numbers and class names made here.
    return Markup(f'<svg viewBox="0 0 {WIDTH} {height}" role="img" aria-label="{escape(label)}">{body}</svg>')
