"""docs/results/matrix.md and its picture from what was found. Pure."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from xml.sax.saxutils import escape

from benchmarks.cells import FORMATS, Cell, Row, verdict
from benchmarks.page import table

TOOLS = ("ORT quantize_dynamic", "ORT quantize_static", "litert-torch + AEQ", "OpenVINO + NNCF")
TITLES = {"onnx": "ONNX", "tflite": "TFLite"}


def body(rows: Sequence[Row], students: int) -> str:
    cells = [(row, kind, *verdict(row, kind)) for row in rows for kind in FORMATS]
    works = sum(ok for _, _, ok, _ in cells)
    gains = [
        row.speed.gain[kind][0]
        for row in rows
        for kind in FORMATS
        if row.speed and kind in row.speed.gain and row.speed.median_ms[f"{kind}.fp32"] >= 1.0
    ]
    drops = [c.quality.drop for row in rows for c in row.cells.values() if c.quality is not None]
    summary = [
        f"{works} of {len(cells)} cells work ({len(rows)} of {students} students were run).",
        f"Speed of int8 over fp32 where fp32 takes 1 ms or more: median {statistics.median(gains):.2f}x of "
        f"{len(gains)} cells."
        if gains
        else "No cell's fp32 takes a millisecond.",
        f"Loss of the metric: median {100 * statistics.median(drops):.2f} points, worst {100 * max(drops):.2f}."
        if drops
        else "",
    ]
    return "\n\n".join(
        [
            "Students at their full size. `works` is the definition of the reference students: fp32 equals torch, int8 "
            "within a point of its metric (seeded weights: 99 % agreement, or cosine 0.995, or 35 dB), 95 % of the "
            "weight bytes int8 (operators given back for speed counted apart), batch and padding change nothing, five "
            "sizes of each axis run, not slower than fp32.",
            " ".join(filter(None, summary)),
            "![int8 over fp32, and the tools underneath](matrix.svg)",
            "## Works",
            table(
                ("#", "student", "weights", *(TITLES[kind] for kind in FORMATS), "convert s"),
                [_works(row) for row in rows],
            ),
            "## int8",
            table(
                ("student", "format", "metric", "loss [95 %], points", "same label", "cosine min", "dB", "int8 bytes",
                 "int8 MACs", "of fp32", "batch 1-cos", "padding 1-cos", "given back quality / speed"),
                [_int8(row, kind, row.cells[kind]) for row in rows for kind in FORMATS if kind in row.cells],
            ),
            "## Speed, one thread, all in one alternation, median ms",
            table(
                ("student", "ONNX fp32", "int8", "gain", "TFLite fp32", "int8", "gain", *TOOLS),
                [_speed(row) for row in rows if row.speed is not None],
            ),
            "## The tools underneath, with their defaults",
            "Signal to noise of the int8 file against the student, or why there is none; `one size` where the file "
            "fails at other sizes of its axes.",
            table(("student", *TOOLS), [(row.name, *(row.stock.get(t, "-") for t in TOOLS)) for row in rows]),
        ]
    )  # fmt: skip


def _works(row: Row) -> tuple[object, ...]:
    told = []
    for kind in FORMATS:
        ok, reasons = verdict(row, kind)
        told.append(("works" if ok else "**does not**") + (f": {'; '.join(reasons)}" if reasons else ""))
    return (row.row, row.name, "trained" if row.trained else "seeded", *told, f"{row.seconds:.0f}")


def _int8(row: Row, kind: str, cell: Cell) -> tuple[object, ...]:
    seen = cell.quality
    if seen is None:
        return (row.name, TITLES[kind], cell.refused or cell.int8_refused, *["-"] * 10)
    low, high = seen.interval_95
    return (
        row.name,
        TITLES[kind],
        seen.metric.partition(" ")[0],
        f"{100 * seen.drop:+.2f} [{100 * low:+.2f}, {100 * high:+.2f}]",
        "-" if seen.agreement is None else f"{seen.agreement:.1%}",
        f"{seen.cosine:.4f}",
        "-" if seen.sqnr_db is None else f"{seen.sqnr_db:.0f}",
        f"{cell.weights:.1%}",
        f"{cell.macs:.0%}",
        f"{cell.size:.3f}x",
        "-" if cell.batch is None else f"{1 - cell.batch:.0e}",
        "-" if cell.padding is None else f"{1 - cell.padding:.0e}",
        f"{cell.back_for_quality} / {cell.back_for_speed}",
    )


def _speed(row: Row) -> tuple[object, ...]:
    assert row.speed is not None
    told: list[object] = [row.name]
    for kind in FORMATS:
        gain = row.speed.gain.get(kind)
        told += [_ms(row, f"{kind}.fp32"), _ms(row, f"{kind}.int8")]
        told.append(f"{gain[0]:.2f}x [{gain[1]:.2f}, {gain[2]:.2f}]" if gain else "-")
    return (*told, *(_ms(row, tool) for tool in TOOLS))


def _ms(row: Row, name: str) -> str:
    value = row.speed.median_ms.get(name) if row.speed else None
    return "-" if value is None else f"{value:.3f}"


# Colours that stay apart for colour-blind readers (Okabe and Ito 2008).
_BARS = (
    ("onnx.int8", "#0072B2", "edgekit ONNX int8"),
    ("tflite.int8", "#009E73", "edgekit TFLite int8"),
    ("ORT quantize_dynamic", "#E69F00", "ORT dynamic"),
    ("ORT quantize_static", "#D55E00", "ORT static"),
    ("litert-torch + AEQ", "#CC79A7", "litert-torch + AEQ"),
    ("OpenVINO + NNCF", "#999999", "OpenVINO + NNCF"),
)
_LEFT, _WIDE, _BAR = 170, 560, 7


def picture(rows: Sequence[Row]) -> str:
    """SVG: for each student how many times faster than the faster fp32 graph each int8 graph is."""
    timed = [row for row in rows if row.speed is not None and row.speed.median_ms]
    gains = [(row, _gains(row)) for row in timed]
    most = max((value for _, found in gains for value in found.values()), default=1.0)
    step = _BAR * len(_BARS) + 10
    top = 46
    height = top + step * len(gains) + 30

    def x(value: float) -> float:
        return _LEFT + value / most * _WIDE

    parts = []
    for number, (_, colour, title) in enumerate(_BARS):
        left = 10 + (number % 3) * 240
        parts.append(f'<rect x="{left}" y="{6 + 16 * (number // 3)}" width="10" height="10" fill="{colour}"/>')
        parts.append(f'<text x="{left + 14}" y="{15 + 16 * (number // 3)}">{escape(title)}</text>')
    for place, (row, found) in enumerate(gains):
        y = top + place * step
        parts.append(f'<text x="{_LEFT - 8}" y="{y + step / 2}" text-anchor="end">{escape(row.name)}</text>')
        for number, (name, colour, _) in enumerate(_BARS):
            value = found.get(name)
            if value is not None:
                at = y + number * _BAR
                parts.append(f'<rect x="{_LEFT}" y="{at}" width="{x(value) - _LEFT:.1f}" height="5" fill="{colour}"/>')
    for line in range(1, int(most) + 1):
        dash = "" if line == 1 else ' stroke-dasharray="2 4"'
        parts.append(
            f'<line x1="{x(line):.1f}" x2="{x(line):.1f}" y1="{top - 4}" y2="{height - 22}" stroke="#444"{dash}/>'
        )
        parts.append(f'<text x="{x(line):.1f}" y="{height - 8}" text-anchor="middle">{line}x</text>')
    label = "Speed of int8 graphs over the faster fp32 graph of each student"
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_LEFT + _WIDE + 20} {height}" role="img" '
        f'aria-label="{label}" font-family="sans-serif" font-size="11"><title>{label}</title>'
        f'<rect width="100%" height="100%" fill="#fff"/>{"".join(parts)}</svg>\n'
    )


def _gains(row: Row) -> dict[str, float]:
    assert row.speed is not None
    seen = row.speed.median_ms
    fp32 = [seen[name] for name in ("onnx.fp32", "tflite.fp32") if name in seen]
    return {name: min(fp32) / seen[name] for name, _, _ in _BARS if fp32 and name in seen}
