"""The picture of docs/results/which_student.md: accuracy against latency, a panel a device. Pure."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from xml.sax.saxutils import escape

import msgspec

# Colours that stay apart for colour-blind readers (Okabe and Ito 2008).
COLOURS = ("#0072B2", "#009E73", "#E69F00", "#D55E00", "#CC79A7", "#56B4E9", "#000000")
ACROSS, WIDE, HIGH = 3, 250, 190
LEFT, TOP, RIGHT, BOTTOM = 40, 24, 10, 32
LEGEND = 46


class Point(msgspec.Struct, frozen=True):
    """One graph of one student: where it stands in a panel.

    Attributes:
        graph: `onnx.int8` and the like.
        ms: Milliseconds a sentence.
        accuracy: Share of right answers.
    """

    student: str
    graph: str
    ms: float
    accuracy: float


def front(points: Sequence[Point]) -> list[Point]:
    """Points that no other beats in both time and accuracy, the fastest first."""
    found: list[Point] = []
    for point in sorted(points, key=lambda point: (point.ms, -point.accuracy)):
        if not found or point.accuracy > found[-1].accuracy:
            found.append(point)
    return found


def picture(panels: Mapping[str, Sequence[Point]]) -> str:
    """SVG: circles are ONNX, squares TFLite; filled int8, hollow floating point; the line joins the front."""
    every = [point for points in panels.values() for point in points]
    students = list(dict.fromkeys(point.student for point in every))
    colours = {name: COLOURS[place % len(COLOURS)] for place, name in enumerate(students)}
    span = _padded([point.accuracy for point in every])
    parts = _legend(colours)
    for place, (title, points) in enumerate(panels.items()):
        x, y = place % ACROSS * WIDE, LEGEND + place // ACROSS * HIGH
        parts.append(f'<g transform="translate({x},{y})">{_panel(title, points, span, colours)}</g>')
    height = LEGEND + -(-len(panels) // ACROSS) * HIGH
    label = "Accuracy against latency of each student's graphs, by device"
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {ACROSS * WIDE} {height}" role="img" '
        f'aria-label="{label}" font-family="sans-serif" font-size="11"><title>{label}</title>'
        f'<rect width="100%" height="100%" fill="#fff"/>{"".join(parts)}</svg>\n'
    )


def _legend(colours: Mapping[str, str]) -> list[str]:
    parts = []
    for place, (name, colour) in enumerate(colours.items()):
        parts.append(f'<rect x="{10 + 140 * place}" y="6" width="10" height="10" fill="{colour}"/>')
        parts.append(f'<text x="{24 + 140 * place}" y="15">{escape(name)}</text>')
    told = "circle: ONNX, square: TFLite; filled: int8, hollow: fp32; line: nothing is faster and as often right"
    return [*parts, f'<text x="10" y="35">{told}</text>']


def _panel(title: str, points: Sequence[Point], span: tuple[float, float], colours: Mapping[str, str]) -> str:
    if not points:
        return f'<text x="{LEFT}" y="14">{escape(title)}: nothing runs there</text>'
    low, high = (10**end for end in _padded([math.log10(point.ms) for point in points]))
    bottom = HIGH - BOTTOM

    def x(ms: float) -> float:
        return LEFT + (math.log10(ms / low)) / math.log10(high / low) * (WIDE - LEFT - RIGHT)

    def y(accuracy: float) -> float:
        return bottom - (accuracy - span[0]) / (span[1] - span[0]) * (bottom - TOP)

    parts = [f'<text x="{LEFT}" y="14" font-weight="bold">{escape(title)}</text>']
    for value in _ticks(*span):
        parts.append(f'<line x1="{LEFT}" x2="{WIDE - RIGHT}" y1="{y(value):.1f}" y2="{y(value):.1f}" stroke="#ddd"/>')
        parts.append(f'<text x="{LEFT - 4}" y="{y(value) + 4:.1f}" text-anchor="end">{100 * value:.0f}</text>')
    for value in _round_ms(low, high):
        parts.append(f'<line x1="{x(value):.1f}" x2="{x(value):.1f}" y1="{TOP}" y2="{bottom}" stroke="#ddd"/>')
        parts.append(f'<text x="{x(value):.1f}" y="{bottom + 13}" text-anchor="middle">{value:g}</text>')
    parts.append(f'<text x="{(LEFT + WIDE) / 2}" y="{bottom + 26}" text-anchor="middle">ms a sentence; top-1, %</text>')
    path = " ".join(f"{x(point.ms):.1f},{y(point.accuracy):.1f}" for point in front(points))
    parts.append(f'<polyline points="{path}" fill="none" stroke="#888"/>')
    return "".join(
        [*parts, *(_mark(point, x(point.ms), y(point.accuracy), colours[point.student]) for point in points)]
    )


def _mark(point: Point, x: float, y: float, colour: str) -> str:
    look = f'fill="{colour if "int8" in point.graph else "#fff"}" stroke="{colour}" stroke-width="1.5"'
    told = f"<title>{escape(point.student)} {escape(point.graph)}: {point.ms:.3g} ms, {point.accuracy:.1%}</title>"
    if point.graph.startswith("onnx"):
        return f'<circle cx="{x:.1f}" cy="{y:.1f}" r="4" {look}>{told}</circle>'
    return f'<rect x="{x - 3.5:.1f}" y="{y - 3.5:.1f}" width="7" height="7" {look}>{told}</rect>'


def _padded(values: Sequence[float]) -> tuple[float, float]:
    """Least and largest with a tenth of their distance around, never nothing."""
    if not values:
        return 0.0, 1.0
    room = max(0.1 * (max(values) - min(values)), 1e-3)
    return min(values) - room, max(values) + room


def _ticks(low: float, high: float) -> list[float]:
    step = next(s for s in (0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5) if (high - low) / s <= 6 or s == 0.5)
    return [step * place for place in range(math.ceil(low / step), math.floor(high / step) + 1)]


def _round_ms(low: float, high: float) -> list[float]:
    decades = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    dense = (1, 2, 5) if high / low < 200 else (1,)
    return [digit * 10.0**decade for decade in decades for digit in dense if low <= digit * 10.0**decade <= high]
