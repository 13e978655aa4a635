"""Writes a report: one page a device, an index over all, and the same figures for programs."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from edgekit.files import check_writable, write_texts
from edgekit.report import numbers, views
from edgekit.report.model import Page, Row, gather
from edgekit_runtime.bundle import Bundle
from edgekit_runtime.errors import Refused
from edgekit_runtime.measurement import Around, Measurement

if TYPE_CHECKING:
    import jinja2

COLUMNS = (
    "bundle", "bundle_id", "device", "graph", "precision", "engine", "engine_version", "threads", "inputs", "verdict",
    "reasons", "p50_ms", "p50_low_ms", "p50_high_ms", "p90_ms", "p99_ms", "mean_ms", "samples", "open_ms", "first_ms",
    "throughput_per_s", "file_bytes", "open_bytes", "arena_bytes", "peak_rss_bytes", "encode_ms", "decode_ms",
    "session_ms", "outside_operators_ms", "placement", "predicted", "p90_low_ms", "p90_high_ms", "p99_low_ms",
    "p99_high_ms", "clock_measured_mhz", "foreign_cores", "metric", "reference", "value", "drop", "gate", "energy_kind",
    "energy_mj",
)  # fmt: skip


def write_report(sources: Sequence[Bundle | Measurement], folder: str | Path) -> tuple[Path, ...]:
    """Writes `index.html`, `devices/NAME.html`, `report.md`, `measurements.json` and `measurements.csv`.

    Every page is one file that needs no network. Earlier files of the same names are replaced, all of them or none.

    Args:
        sources: Bundles (with the measurements kept beside them), and single measurements.
        folder: Made if it does not exist.

    Returns:
        The files written, the index first.

    Raises:
        UsageError: Nothing was measured, or the folder cannot be written.
        Refused: The package that makes the pages is not installed.
    """
    templates = environment()
    pages = gather(sources)
    files = {
        "index.html": templates.get_template("index.html.j2").render(pages=pages),
        **{
            f"devices/{page.file}": templates.get_template("device.html.j2").render(page=page, pages=pages)
            for page in pages
        },
        "report.md": templates.get_template("report.md.j2").render(pages=pages),
        "measurements.json": _json(pages),
        "measurements.csv": _csv(pages),
    }
    return write_texts(Path(folder), files, "the report")


def check_ready(folder: str | Path) -> None:
    """Says before a long measurement what would keep its report from being written after it.

    Raises:
        UsageError: The folder cannot be written.
        Refused: The package that makes the pages is not installed.
    """
    environment()
    check_writable(Path(folder), "the report")


def environment() -> jinja2.Environment:
    """The templates, with the filters that all pages share.

    Raises:
        Refused: The package that makes the pages is not installed.
    """
    try:
        import jinja2
    except ModuleNotFoundError as error:
        raise Refused("the report pages need jinja2", remedy="pip install 'edgekit[report]'") from error
    found = {
        entry.name: entry.read_text(encoding="utf-8")
        for entry in resources.files("edgekit.report").joinpath("templates").iterdir()
        if entry.is_file()
    }
    made = jinja2.Environment(
        loader=jinja2.DictLoader(found),
        autoescape=lambda name: name is None or not name.endswith(".md.j2"),
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    made.filters.update(
        ms=numbers.significant,
        bytes=numbers.bytes_,
        interval=numbers.interval,
        count=numbers.count,
        shapes=shapes,
        md=markdown,
        times=numbers.times,
        rhythm=numbers.rhythm,
        placed=placed,
    )
    made.globals.update(
        {
            name: getattr(views, name)
            for name in (
                "distribution",
                "fingerprint",
                "glance",
                "memory",
                "operators",
                "roof",
                "roofline",
                "timeline",
                "trade_offs",
            )
        }
    )
    return made


def shapes(inputs: dict[str, tuple[int, ...]]) -> str:
    """Sizes joined by multiplication signs, with names where there are several inputs."""
    texts = {name: numbers.TIMES.join(map(str, shape)) or "scalar" for name, shape in inputs.items()}
    if len(texts) == 1:
        return next(iter(texts.values()))
    return ", ".join(f"{name} {text}" for name, text in texts.items()) or numbers.MISSING


def placed(measurement: Measurement) -> str:
    """Who ran what share of the time (or of the operators): `XNNPACK 97 %, LiteRT 3 %`."""
    rows = []
    for row in measurement.placement:
        share = row.ms_fraction if row.ms_fraction is not None else row.macs_fraction
        name = row.delegate.removesuffix("ExecutionProvider")
        rows.append(f"{name} {share:.0%}" if share is not None else f"{name} {row.ops} ops")
    return ", ".join(rows) or numbers.MISSING


def markdown(text: object) -> str:
    """A cell of a Markdown table: nothing in it starts markup or ends the cell."""
    kept = " ".join(str(text).split())
    for mark in "\\|<>*`[]":
        kept = kept.replace(mark, "\\" + mark)
    return kept


def _json(pages: Sequence[Page]) -> str:
    documents = [row.measurement for page in pages for row in page.rows]
    return msgspec.json.format(msgspec.json.encode({"measurements": documents}), indent=1).decode() + "\n"


def _csv(pages: Sequence[Page]) -> str:
    text = io.StringIO()
    writer = csv.DictWriter(text, COLUMNS, lineterminator="\n")
    writer.writeheader()
    for page in pages:
        for row in page.rows:
            writer.writerow({name: _cell(value) for name, value in flat(row).items()})
    return text.getvalue()


def _cell(value: object) -> object:
    """A text that a spreadsheet would take for a formula is marked as text; numbers stay numbers."""
    return "'" + value if isinstance(value, str) and value[:1] in ("=", "+", "-", "@", "\t", "\r") else value


def flat(row: Row) -> dict[str, object]:
    """One measurement as one line of the CSV."""
    m, q = row.measurement, row.quality
    low, high = m.latency_ms.interval_95 or (None, None)
    low_90, high_90 = m.latency_ms.interval_95_p90 or (None, None)
    low_99, high_99 = m.latency_ms.interval_95_p99 or (None, None)
    around = m.around or Around()
    return {
        "bundle": row.bundle, "bundle_id": m.bundle_id, "device": m.device, "graph": m.graph, "precision": m.precision,
        "engine": m.engine, "engine_version": m.engine_version, "threads": m.threads, "inputs": shapes(m.inputs),
        "verdict": m.verdict.kind, "reasons": "; ".join(m.verdict.reasons), "p50_ms": m.latency_ms.p50,
        "p50_low_ms": low, "p50_high_ms": high, "p90_ms": m.latency_ms.p90, "p99_ms": m.latency_ms.p99,
        "mean_ms": m.latency_ms.mean, "samples": m.latency_ms.n, "open_ms": m.open_ms, "first_ms": m.first_ms,
        "throughput_per_s": m.throughput_per_s, "file_bytes": m.memory.file_bytes, "open_bytes": m.memory.open_bytes,
        "arena_bytes": m.memory.arena_bytes, "peak_rss_bytes": m.memory.peak_rss_bytes, "encode_ms": around.encode_ms,
        "decode_ms": around.decode_ms, "session_ms": around.session_ms,
        "outside_operators_ms": around.outside_operators_ms, "placement": placed(m) if m.placement else "",
        "predicted": m.predicted,
        "p90_low_ms": low_90, "p90_high_ms": high_90, "p99_low_ms": low_99, "p99_high_ms": high_99,
        "clock_measured_mhz": m.environment.clock_measured_mhz, "foreign_cores": m.environment.foreign_cores,
        "metric": q.metric if q else None, "reference": q.reference if q else None, "value": q.value if q else None,
        "drop": q.drop if q else None, "gate": q.gate if q else None, "energy_kind": m.energy.kind,
        "energy_mj": m.energy.mj,
    }  # fmt: skip
