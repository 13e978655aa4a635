from __future__ import annotations

import csv
import json
import re
from html.parser import HTMLParser
from pathlib import Path
from types import SimpleNamespace

import msgspec
import pytest
from report_material import NASTY, measurement

from edgekit.report import charts, views, write_report
from edgekit.report.charts import pareto
from edgekit.report.model import Page, Row, Student
from edgekit_runtime.bundle import Bundle
from edgekit_runtime.errors import BundleInvalid, UsageError
from edgekit_runtime.measurement import Latency, Measurement, Verdict

pytest.importorskip("jinja2")


class Links(HTMLParser):
    """Collects what a page would load or link to, and the ids it has."""

    def __init__(self) -> None:
        super().__init__()
        self.loads: list[str] = []
        self.links: list[str] = []
        self.ids: list[str] = []

    def handle_starttag(self, tag: str, attrs) -> None:
        found = dict(attrs)
        if "id" in found:
            self.ids.append(found["id"])
        if "src" in found or (tag == "link" and not found.get("href", "").startswith("data:")):
            self.loads.append(str(found))
        if tag == "a":
            self.links.append(found["href"])


def test_a_report_that_cannot_be_finished_leaves_nothing(bundle: Bundle, tmp_path: Path, monkeypatch):
    write, written = Path.write_text, []

    def until_full(path: Path, text: str, **more) -> int:
        written.append(path)
        if path.name.startswith(".report.md"):
            raise OSError(28, "No space left on device")
        return write(path, text, **more)

    (tmp_path / "kept").mkdir()
    (tmp_path / "kept" / "index.html").write_text("an older report")
    monkeypatch.setattr(Path, "write_text", until_full)
    for folder in (tmp_path / "new" / "report", tmp_path / "kept"):
        with pytest.raises(UsageError, match="No space left"):
            write_report([bundle], folder)
    assert len(written) > 4 and not (tmp_path / "new").exists()
    assert [path.name for path in (tmp_path / "kept").iterdir()] == ["index.html"]
    assert (tmp_path / "kept" / "index.html").read_text() == "an older report"


def test_a_report_has_every_file_and_links_that_lead_somewhere(bundle: Bundle, tmp_path: Path):
    files = write_report([bundle], tmp_path / "out")
    names = {path.relative_to(tmp_path / "out").as_posix() for path in files}
    assert names == {
        "index.html", "devices/local-1234abcd.html", "devices/pi4.html", "report.md", "measurements.json",
        "measurements.csv",
    }  # fmt: skip
    for path in files:
        assert path.stat().st_size < 3_000_000
        if path.suffix != ".html":
            continue
        page = Links()
        page.feed(path.read_text())
        assert page.loads == []
        assert len(page.ids) == len(set(page.ids))
        for link in page.links:
            target, _, anchor = link.partition("#")
            there = (path.parent / target).resolve() if target else path
            assert there.exists()
            if anchor:
                other = Links()
                other.feed(there.read_text())
                assert anchor in other.ids


def test_text_from_a_bundle_stays_text(bundle: Bundle, tmp_path: Path):
    for path in write_report([bundle], tmp_path / "out"):
        if path.suffix in (".html", ".md"):
            assert NASTY not in path.read_text()


def test_the_figures_for_programs_are_the_measurements(bundle: Bundle, tmp_path: Path):
    write_report([bundle], tmp_path / "out")
    stored = json.loads((tmp_path / "out" / "measurements.json").read_text())["measurements"]
    assert msgspec.convert(stored, list[Measurement])
    assert {(m["device"], m["graph"]) for m in stored} == {(m.device, m.graph) for m in bundle.measurements()}
    with (tmp_path / "out" / "measurements.csv").open() as file:
        rows = {(row["device"], row["graph"]): row for row in csv.DictReader(file)}
    row = rows["local-1234abcd", "onnx.int8"]
    assert float(row["p50_ms"]) == 0.34
    assert (row["verdict"], row["metric"], row["value"], row["energy_mj"]) == ("noisy", "top1", "0.914", "")


def test_the_verdict_and_the_answer_about_int8_come_before_the_figures(bundle: Bundle, tmp_path: Path):
    index = write_report([bundle], tmp_path / "out")[0].read_text()
    assert index.index("Does int8 pay here?") < index.index("<table")
    text = (tmp_path / "out" / "report.md").read_text()
    assert re.search(r"\*\*yes\*\*: digits, onnx\.int8 .* as fast as fp32", text)


def test_what_is_withheld_or_absent_is_said_and_never_zero(tmp_path: Path):
    latency = Latency(n=5, samples=(1.0,) * 5)
    bare = measurement(
        "net.fp32",
        1.0,
        latency_ms=latency,
        withheld={"p50": "needs 11 samples, has 5"},
        verdict=Verdict(kind="invalid"),
    )
    files = write_report([bare], tmp_path / "out")
    page = files[1].read_text()
    assert "withheld: needs 11 samples, has 5" in page
    assert "no sensor here" in page
    assert "0 mJ" not in page


def test_a_formula_in_a_name_is_text_for_a_spreadsheet(tmp_path: Path):
    write_report([measurement("=1+1.fp32", 1.0)], tmp_path / "out")
    with (tmp_path / "out" / "measurements.csv").open() as file:
        assert next(csv.DictReader(file))["graph"] == "'=1+1.fp32"


def test_a_device_name_cannot_leave_the_folder(tmp_path: Path):
    files = write_report([measurement("n.fp32", 1.0, device="../../evil/x")], tmp_path / "out")
    assert all((tmp_path / "out") in path.resolve().parents for path in files)


def test_nothing_measured_and_newer_documents_are_refused(bundle: Bundle, tmp_path: Path):
    with pytest.raises(UsageError, match="nothing to report"):
        write_report([], tmp_path / "out")
    newer = bundle.root / "measurements" / "newer.json"
    newer.write_text('{"schema": "edgekit.measurement/9"}')
    with pytest.raises(BundleInvalid, match=r"edgekit\.measurement/9"):
        write_report([bundle], tmp_path / "out")


@pytest.mark.parametrize("values", [(30_200.0, 34_400.0), (0.047, 0.053), (0.2, 9.0), (1.0, 1.0)])
def test_an_axis_has_two_marks_or_more(values: tuple[float, ...]):
    chart = charts.scatter([charts.Point(str(x), x, 0.9, "int8") for x in values], "bytes", "top1", "{:.3g}".format)
    marks = re.findall(r'y="235.0" text-anchor="middle">([^<]+)<', chart)
    assert len(marks) >= 2 and len(set(marks)) == len(marks), chart


def test_the_pareto_front_keeps_what_nothing_beats():
    assert pareto([(1.0, 0.9), (2.0, 0.95), (2.0, 0.9), (3.0, 0.95)]) == [True, True, False, False]


def test_a_page_of_hundreds_of_measurements_stays_one_small_file(tmp_path: Path):
    rows = [measurement("net.fp32", 1.0 + number / 1000, threads=number) for number in range(1, 201)]
    files = write_report(rows, tmp_path / "out")
    assert max(path.stat().st_size for path in files if path.suffix == ".html") < 3_000_000


def test_quality_is_drawn_against_the_time_of_one_request_only():
    def row(graph: str, p50: float, batch: int, value: float) -> SimpleNamespace:
        seen = measurement(graph, p50, inputs={"x": (batch, 64)})
        return SimpleNamespace(measurement=seen, value=value, rank=value, metric="top1")

    rows = [row("net.fp32", 8.0, 8, 0.9), row("net.fp32", 2.0, 1, 0.9), row("net.int8", 1.0, 1, 0.89)]
    page = SimpleNamespace(device="here", students=[SimpleNamespace(bundle_id="b", rows=rows)])
    chart = str(dict(views.trade_offs([page], "b"))["top1 against latency"])
    assert "net.fp32: 2.00" in chart and "net.int8: 1.00" in chart and "8.00" not in chart


def test_a_swept_length_is_not_the_time_of_one_request_and_each_device_has_its_chart():
    def row(device: str, graph: str, p50: float, size: int, length: int | None = None) -> SimpleNamespace:
        seen = measurement(graph, p50, inputs={"x": (1, size)}, length=length, device=device)
        return SimpleNamespace(measurement=seen, value=0.9, rank=0.9, metric="top1", bundle="net")

    here = [row("here", "net.fp32", 8.0, 64), row("here", "net.int8", 1.0, 16, 16), row("here", "net.int8", 4.0, 64)]
    there = [row("pi4", "net.fp32", 80.0, 64), row("pi4", "net.int8", 50.0, 64)]
    students = [Student("net", "b", (), tuple(rows)) for rows in (here, there)]
    pages = [Page(rows[0].measurement.device, (one,)) for rows, one in zip((here, there), students, strict=True)]
    made = {title: str(chart) for title, chart in views.trade_offs(pages, "b")}
    assert list(made) == ["top1 against latency on here", "top1 against latency on pi4", "top1 against bytes"]
    assert "net.int8: 4.00" in made["top1 against latency on here"] and "net.int8: 1.00" not in "".join(made.values())
    assert [fast.measurement.latency_ms.p50 for page in pages for fast in page.fastest] == [4.0, 50.0]


def test_the_fastest_is_told_of_each_student():
    rows = [Row(name, measurement("net.int8", p50), None, 1) for name, p50 in (("large", 9.0), ("small", 0.1))]
    page = Page("here", tuple(Student(row.bundle, row.bundle, (), (row,)) for row in rows))
    assert [row.bundle for row in page.fastest] == ["large", "small"]


def test_a_glance_shows_threads_and_sizes_side_by_side_and_marks_what_is_doubtful():
    rows = [
        Row("s", measurement("net.fp32", 2.0, threads=1, inputs={"x": (1, 16)}), None, 1),
        Row("s", measurement("net.int8", 1.0, threads=4, verdict=Verdict(kind="noisy")), None, 2),
    ]
    chart = str(views.glance(rows))
    assert "net.fp32, 1 thread, 1\u00d716 2.00 ms" in chart
    assert "net.int8, 4 threads, 1\u00d764 1.00 ms, noisy" in chart
    assert views.glance(rows[:1]) is None
