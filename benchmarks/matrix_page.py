"""docs/results/matrix.md and its picture from what was found. Pure."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Iterator, Sequence
from xml.sax.saxutils import escape

from benchmarks.cells import (
    FORMATS,
    INT8_WEIGHTS,
    INVARIANCE,
    Cell,
    Quality,
    Row,
    Slice,
    Twin,
    loss,
    size_of,
    slower,
    verdict,
)
from benchmarks.page import table, target

TOOLS = ("ORT quantize_dynamic", "ORT quantize_static", "litert-torch + AEQ", "OpenVINO + NNCF")
TITLES = {"onnx": "ONNX", "tflite": "TFLite"}
# What the whole matrix is to show.
MEDIAN_GAIN, LEAST_MS = 1.8, 1.0
MEDIAN_LOSS, WORST_LOSS = 0.0025, 0.01
REFUSED, TEXT_SIZE, SIZES = 3, 0.27, 5
INTRODUCTION = (
    "Students at their full size. `works` is the definition of the reference students: fp32 equals torch, int8 within "
    "a point of its metric (without labels: 99 % agreement, or cosine 0.995, or 35 dB), 95 % of the weight bytes int8 "
    "(operators given back for speed counted apart), batch and padding change nothing, five sizes of each axis run, "
    "not slower than fp32. `refused`: the bundle itself says why there is no such graph. A row of the reference "
    "students may be several students; its cell works where all of them do."
)


def body(rows: Sequence[Row], students: int) -> str:
    """The page.

    Args:
        rows: What is known of each student that was run.
        students: How many there are.
    """
    parts = [
        INTRODUCTION,
        f"{len(rows)} of {students} students were run.",
        table(("what", "target", "seen", ""), list(_summary(rows))),
        "![int8 over fp32, and the tools underneath](matrix.svg)",
        "## Works",
        table(
            ("#", "student", "weights", *(TITLES[kind] for kind in FORMATS), "convert s"), [_works(row) for row in rows]
        ),
        "## What does not work, and why",
        _against(rows),
        "## int8",
        "`of fp32`: bytes of the file. `int8 MACs`: share of the multiply-accumulates that the engine runs in int8, "
        "counted from its optimised graph or profile; an operator with int8 weights that computes in floating point "
        "counts nothing. `cuts`: places where head and tail were proven to answer bit by bit as the whole; where the "
        "student is naturally cut but another place has fewer bytes and lies no later, that one is cut.",
        table(
            ("student", "format", "metric", "loss [95 %], points", "same label", "cosine min", "dB", "int8 bytes",
             "given back for speed, bytes", "int8 MACs", "of fp32", "batch 1-cos", "padding 1-cos",
             "given back quality / speed", "sizes run", "cuts (natural)"),
            [_int8(row, kind, row.cells[kind]) for row in rows for kind in FORMATS if kind in row.cells],
        ),
        "## Trained students on held-back data",
        table(
            ("student", "metric", "samples", "fp32 [95 %]", "ONNX int8", "TFLite int8"),
            [_trained(row) for row in rows if row.held is not None],
        ),
        "## Groups of the held-back data",
        "Each group passes the gate by itself, or int8 does not ship.",
        table(
            ("student", "format", "group", "samples", "fp32", "int8", "loss [95 %], points", "gate"),
            [
                _slice(row, kind, part)
                for row in rows
                for kind in FORMATS
                if kind in row.cells
                for part in row.cells[kind].slices
            ],
        ),
        "## Speed, one thread, all in one alternation, median ms",
        table(
            ("student", "ONNX fp32", "int8", "gain", "TFLite fp32", "int8", "gain", *TOOLS),
            [_speed(row) for row in rows if row.speed is not None],
        ),
        "## Programs of integers against their floating-point twins, one thread, one alternation, median ms",
        "A student that is a program of integers from the start has no fp32 graph: there is nothing that could ship in "
        "its place. It is held against the same network in floating point, which nobody ships, so a slower one is told "
        "here and is no slower shipped graph above.",
        table(
            ("student", "format", "bytes of the twin", "int8", "twin", "gain"),
            [line for row in rows if row.twin is not None for line in _twin(row.name, row.twin)],
        ),
        "## The tools underneath, with their defaults",
        "Signal to noise of the int8 file against the student with seeded weights, or why there is none; `one size` "
        "where the file fails at other sizes of its axes.",
        table(("student", *TOOLS), [(row.name, *(row.stock.get(t, "-") for t in TOOLS)) for row in rows]),
    ]  # fmt: skip
    return "\n\n".join(parts)


def _cells(rows: Sequence[Row]) -> Iterator[tuple[Row, str, Cell]]:
    return ((row, kind, row.cells[kind]) for row in rows for kind in FORMATS if kind in row.cells)


def _summary(rows: Sequence[Row]) -> Iterator[tuple[str, str, str, str]]:
    """(what, target, seen, met) for each thing that the matrix is to show."""
    states = states_of_rows(rows)
    counts = {state: sum(seen == state for seen in states.values()) for state in ("works", "refused", "failed")}
    told = f"{counts['works']} work, {counts['refused']} refused, {counts['failed']} failed"
    yield _line(f"cells of {len(states) // len(FORMATS)} rows", f"all work, at most {REFUSED} refused", told,
                counts["failed"] == 0 and counts["refused"] <= REFUSED)  # fmt: skip
    gains = [
        row.speed.gain[kind][0]
        for row in rows
        for kind in FORMATS
        if row.speed and kind in row.speed.gain and row.speed.median_ms[f"{kind}.fp32"] >= LEAST_MS
    ]
    what = f"int8 over fp32, median of {len(gains)} graphs whose fp32 takes {LEAST_MS:g} ms or more"
    if gains:
        middle = statistics.median(gains)
        yield _line(what, f"≥ {MEDIAN_GAIN}x", f"{middle:.2f}x", middle >= MEDIAN_GAIN)
    else:
        yield what, f"≥ {MEDIAN_GAIN}x", "-", "not seen"
    slow = [f"{row.name} {TITLES[kind]}" for row in rows for kind in FORMATS if slower(row, kind)]
    yield _line("shipped int8 graphs slower than fp32", "none", ", ".join(slow) or "none", not slow)
    yield from _of_int8(rows)
    yield from _of_all(rows)


def _of_int8(rows: Sequence[Row]) -> Iterator[tuple[str, str, str, str]]:
    shipped = [(row, kind, cell, cell.quality) for row, kind, cell in _cells(rows) if cell.quality is not None]
    judged = [(loss(seen, seen.metric), f"{row.name} {TITLES[kind]}") for row, kind, _, seen in shipped if seen.labels]
    if judged:
        middle, (most, where) = statistics.median(value for value, _ in judged), max(judged)
        what = f"loss of the metric, median of {len(judged)} graphs judged by labels"
        yield _line(what, f"≤ {100 * MEDIAN_LOSS:g} points", f"{100 * middle:.2f}", middle <= MEDIAN_LOSS)
        told = f"{100 * most:.2f} ({where})"
        yield _line("loss of the metric, worst", f"≤ {100 * WORST_LOSS:g} point", told, most <= WORST_LOSS)
    if shipped:
        least, where = min((c.weights + c.back_for_speed_bytes, f"{r.name} {TITLES[k]}") for r, k, c, _ in shipped)
        told = f"{least:.1%} ({where})"
        yield _line("weight bytes in int8 or given back for speed, least", f"≥ {INT8_WEIGHTS:.0%}", told,
                    least >= INT8_WEIGHTS)  # fmt: skip
        macs = [cell.macs for _, _, cell, _ in shipped]
        yield "MACs that the engine runs in int8, median and least", "-", _span(macs), ""
    texts = [(size_of(row, kind), _with_structure(row, kind)) for row, kind, _, _ in shipped if row.text]
    if texts:
        most, where = max(texts)
        above = [name for size, name in sorted(texts, reverse=True) if size > TEXT_SIZE]
        told = f"{most:.3f}x ({where}); {len(above)} of {len(texts)} graphs above"
        told = f"{most:.3f}x; {len(above)} of {len(texts)} graphs above: {', '.join(above)}" if above else told
        yield _line("bytes of text students against fp32, most", f"≤ {TEXT_SIZE}x", told, most <= TEXT_SIZE)
    groups = [part for _, _, cell, _ in shipped for part in cell.slices]
    if groups:
        passed = sum(part.gate == "passed" for part in groups)
        yield _line("groups that pass the gate", "all", f"{passed} of {len(groups)}", passed == len(groups))


def _with_structure(row: Row, kind: str) -> str:
    """The graph, and how much of its file is no constant: what int8 cannot make smaller."""
    name = f"{row.name} {TITLES[kind]}"
    if kind not in row.structure:
        return name
    part, whole = row.structure[kind]
    return f"{name} ({part:,} of {whole:,} bytes are operators, names and scales)"


def _of_all(rows: Sequence[Row]) -> Iterator[tuple[str, str, str, str]]:
    for what in ("batch", "padding"):
        seen = [(getattr(c, what), f"{r.name} {TITLES[k]}") for r, k, c in _cells(rows) if getattr(c, what) is not None]
        if seen:
            least, where = min(seen)
            told = f"{least:.6f} ({where})"
            yield _line(f"cosine of answers whatever the {what}, least", f"≥ {INVARIANCE}", told, least >= INVARIANCE)
    sizes = [
        (len(ran), f"{row.name} {TITLES[kind]}, {axis}")
        for row, kind, cell in _cells(rows)
        for axis, ran in cell.sizes.items()
    ]
    if sizes:
        least, where = min(sizes)
        failed = sum(len(cell.failures) for _, _, cell in _cells(rows))
        told = f"{least} ({where}), {failed} runs failed"
        yield _line("sizes of each dynamic axis that ran, least", f"≥ {SIZES}", told, least >= SIZES and not failed)


def _line(what: str, wanted: str, seen: str, ok: bool) -> tuple[str, str, str, str]:
    return (what, wanted, seen, target("", ok)[1])


def _span(values: Iterable[float]) -> str:
    found = sorted(values)
    return f"{statistics.median(found):.0%}, {found[0]:.0%}"


def states_of_rows(rows: Sequence[Row]) -> dict[tuple[int, str], str]:
    """The state of each (row, format): of several students of a row the worst."""
    order = ("works", "refused", "failed")
    found: dict[tuple[int, str], str] = {}
    for row in rows:
        for kind in FORMATS:
            before, state = found.get((row.row, kind), "works"), verdict(row, kind).state
            found[row.row, kind] = max(before, state, key=order.index)
    return found


def _works(row: Row) -> tuple[object, ...]:
    told = []
    for kind in FORMATS:
        seen = verdict(row, kind)
        note = " (ships fp32: see below)" if seen.state == "works" and seen.reasons else ""
        told.append(("works" if seen.state == "works" else f"**{seen.state}**") + note)
    return (row.row, row.name, "trained" if row.trained else "seeded", *told, f"{row.seconds:.0f}")


def _against(rows: Sequence[Row]) -> str:
    lines = []
    for row in rows:
        for kind in FORMATS:
            seen = verdict(row, kind)
            if seen.reasons:
                lines.append((row.name, TITLES[kind], seen.state, _plain("; ".join(seen.reasons))))
        if row.trouble and row.cells:  # else it is the reason above
            lines.append((row.name, "-", "a step left nothing", _plain(row.trouble)))
    return table(("student", "format", "", "why"), lines) if lines else "Nothing."


def _plain(text: str) -> str:
    # A bar would end the cell.
    return text.replace("|", "/").replace("\n", " ")


def _int8(row: Row, kind: str, cell: Cell) -> tuple[object, ...]:
    seen = cell.quality
    sizes = ", ".join(f"{axis} {len(ran)}" for axis, ran in cell.sizes.items()) or "-"
    cuts = f"{len(cell.cuts)} ({len({*cell.cuts} & {*row.natural})} of {len(row.natural)})"
    if seen is None:
        return (row.name, TITLES[kind], "ships fp32" if not cell.refused else "refused", *["-"] * 11, sizes, cuts)
    return (
        row.name,
        TITLES[kind],
        seen.metric.partition(" ")[0] + ("" if seen.labels else " against fp32"),
        _drop(seen, seen.metric),
        "-" if seen.agreement is None or not seen.metric.startswith(("top1", "f1")) else f"{seen.agreement:.1%}",
        f"{seen.cosine:.4f}",
        "-" if seen.sqnr_db is None else f"{seen.sqnr_db:.0f}",
        f"{cell.weights:.1%}",
        f"{cell.back_for_speed_bytes:.1%}",
        f"{cell.macs:.0%}",
        f"{size_of(row, kind):.3f}x" + " (of its twin)" * (row.twin is not None and kind in row.twin.size),
        "-" if cell.batch is None else f"{1 - cell.batch:.0e}",
        "-" if cell.padding is None else f"{1 - cell.padding:.0e}",
        f"{cell.back_for_quality} / {cell.back_for_speed}",
        sizes,
        cuts,
    )


def _drop(seen: Quality | Slice, metric: str) -> str:
    low, high = seen.interval_95
    scale = loss(seen, metric) / seen.drop if seen.drop else 1.0
    return f"{100 * scale * seen.drop:+.2f} [{100 * scale * low:+.2f}, {100 * scale * high:+.2f}]"


def _trained(row: Row) -> tuple[object, ...]:
    assert row.held is not None
    low, high = row.held.interval_95
    told = []
    for kind in FORMATS:
        seen = row.cells[kind].quality if kind in row.cells else None
        told.append("-" if seen is None else f"{seen.value:.3f}")
    return (row.name, row.held.metric, row.held.n, f"{row.held.value:.3f} [{low:.3f}, {high:.3f}]", *told)


def _slice(row: Row, kind: str, part: Slice) -> tuple[object, ...]:
    seen = row.cells[kind].quality
    assert seen is not None
    drop = _drop(part, seen.metric)
    return (row.name, TITLES[kind], part.name, part.n, f"{part.reference:.3f}", f"{part.value:.3f}", drop, part.gate)


def _speed(row: Row) -> tuple[object, ...]:
    assert row.speed is not None
    told: list[object] = [row.name]
    for kind in FORMATS:
        gain = row.speed.gain.get(kind)
        told += [_ms(row, f"{kind}.fp32"), _ms(row, f"{kind}.int8")]
        told.append(f"{gain[0]:.2f}x [{gain[1]:.2f}, {gain[2]:.2f}]" if gain else "-")
    return (*told, *(_ms(row, tool) for tool in TOOLS))


def _twin(name: str, twin: Twin) -> Iterator[tuple[object, ...]]:
    for kind, size in twin.size.items():
        middle, low, high = twin.gain[kind]
        times = (f"{twin.median_ms[f'{kind}.{precision}']:.3f}" for precision in ("int8", "fp32"))
        yield (name, TITLES[kind], f"{size:.3f}x", *times, f"{middle:.2f}x [{low:.2f}, {high:.2f}]")


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
_INTEGERS = "a program of integers: it has no fp32 graph, its table is on the page"
_LEFT, _WIDE, _BAR = 170, 560, 7


def picture(rows: Sequence[Row]) -> str:
    """SVG: for each student how many times faster than the faster fp32 graph each int8 graph is.

    A program of integers has no fp32 graph and is told to be one; another student without a figure has no row.
    """
    timed = [row for row in rows if row.speed is not None and row.speed.median_ms]
    gains = [(row, found) for row in timed if (found := _gains(row)) or row.twin is not None]
    most = max((value for _, found in gains for value in found.values()), default=1.0)
    step = _BAR * len(_BARS) + 10
    top = 46
    height = top + step * len(gains) + 48

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
        if not found:
            parts.append(f'<text x="{_LEFT + 8}" y="{y + step / 2}">{_INTEGERS}</text>')
        for number, (name, colour, _) in enumerate(_BARS):
            value = found.get(name)
            if value is not None:
                at = y + number * _BAR
                parts.append(f'<rect x="{_LEFT}" y="{at}" width="{x(value) - _LEFT:.1f}" height="5" fill="{colour}"/>')
    for line in range(1, int(most) + 1):
        dash = "" if line == 1 else ' stroke-dasharray="2 4"'
        parts.append(
            f'<line x1="{x(line):.1f}" x2="{x(line):.1f}" y1="{top - 4}" y2="{height - 40}" stroke="#444"{dash}/>'
        )
        parts.append(f'<text x="{x(line):.1f}" y="{height - 26}" text-anchor="middle">{line}x</text>')
    axis = "times as fast as the faster fp32 graph of the student (1x: the same), one thread"
    parts.append(f'<text x="{_LEFT + _WIDE / 2:.0f}" y="{height - 8}" text-anchor="middle">{axis}</text>')
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
