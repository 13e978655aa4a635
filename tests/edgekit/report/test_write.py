from __future__ import annotations

import csv
import dataclasses
import json
import re
import shutil
import subprocess
from html.parser import HTMLParser
from pathlib import Path

import msgspec
import numpy as np
import pytest

from edgekit.report import write_report
from edgekit.report.charts import pareto
from edgekit_runtime.bundle import Bundle, open_bundle
from edgekit_runtime.errors import BundleInvalid, UsageError
from edgekit_runtime.manifest import Quality
from edgekit_runtime.measurement import Energy, Environment, Latency, Measurement, Memory, OpCost, Verdict
from edgekit_runtime.testing import make_bundle, matmul_onnx

pytest.importorskip("jinja2")
NASTY = '<script>alert("x")</script>'


def measurement(graph: str, p50: float, **more) -> Measurement:
    samples = tuple(np.random.default_rng(int(p50 * 1000)).lognormal(np.log(p50), 0.05, 700).tolist())
    values = {
        "device": "local-1234abcd",
        "engine": "onnxruntime",
        "engine_version": "1.32.0",
        "threads": 1,
        "precision": graph.split(".")[1],
        "graph": graph,
        "inputs": {"x": (1, 64)},
        "latency_ms": Latency(
            p50=p50,
            p90=p50 * 1.1,
            p99=p50 * 1.3,
            mean=p50,
            n=700,
            samples=samples,
            interval_95=(p50 * 0.99, p50 * 1.01),
        ),
        "open_ms": 12.0,
        "first_ms": 3.0,
        "memory": Memory(file_bytes=int(p50 * 1e6), open_bytes=4_000_000, peak_rss_bytes=60_000_000),
        "energy": Energy(kind="unavailable", reason="no sensor here"),
        "ops": tuple(OpCost(name=f"conv_{i}", kind="Conv", ms=0.1 * i, macs=1000, int8=i % 2 == 0) for i in range(20)),
        "environment": Environment(cpu="AMD EPYC, 2 cores", load=0.4, swap=0),
        "verdict": Verdict(kind="sound"),
    }
    return Measurement(**{**values, **more})


@pytest.fixture
def bundle(tmp_path: Path) -> Bundle:
    def judged(manifest):
        rows = tuple(
            Quality(
                graph=graph, metric="top1", higher_is_better=True, reference=0.917, value=value, drop=0.917 - value,
                interval_95=(-0.01, 0.02), n=500, labels=True, gate="passed", reason=f"within 0.01 {NASTY}",
            )
            for graph, value in (("onnx.fp32", 0.917), ("onnx.int8", 0.914))
        )  # fmt: skip
        return msgspec.structs.replace(manifest, quality=rows)

    data = matmul_onnx(np.ones((64, 8), np.float32))
    folder = make_bundle(
        tmp_path / "digits.edge",
        graphs={"onnx.fp32": data, "onnx.int8": data},
        change=judged,
        weights=np.ones((64, 8), np.float32),
    )
    opened = open_bundle(folder)
    noisy = Verdict(kind="noisy", reasons=(f"other processes used 0.9 of 2 cores {NASTY}",))
    for row in (
        measurement("onnx.fp32", 0.77, bundle_id=opened.bundle_id),
        measurement("onnx.int8", 0.34, bundle_id=opened.bundle_id, verdict=noisy),
        measurement("onnx.int8", 3.4, bundle_id=opened.bundle_id, device="pi4", ops=()),
    ):
        opened.add_measurement(row)
    return opened


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
    assert "p50 is withheld: needs 11 samples, has 5" in page
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


def test_the_pareto_front_keeps_what_nothing_beats():
    assert pareto([(1.0, 0.9), (2.0, 0.95), (2.0, 0.9), (3.0, 0.95)]) == [True, True, False, False]


@dataclasses.dataclass(frozen=True)
class Seen:
    dom: str
    log: str


def browse(page: Path, profile: Path) -> Seen:
    """The page after its scripts ran in a real Chromium, and what the browser complained about."""
    browser = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if browser is None:
        pytest.skip("no Chromium on this machine: the pages are not looked at")
    flags = (
        "--headless --no-sandbox --disable-gpu --no-first-run --disable-background-networking "
        "--disable-component-update --disable-sync --enable-logging=stderr --virtual-time-budget=2000 --dump-dom"
    )
    command = [browser, *flags.split(), f"--user-data-dir={profile}", page.as_uri()]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
    return Seen(done.stdout, "\n".join(line for line in done.stderr.splitlines() if "CONSOLE" in line))


def test_pages_run_in_a_real_browser_without_a_complaint_and_their_tables_sort(bundle: Bundle, tmp_path: Path):
    index, *pages = write_report([bundle], tmp_path / "out")
    # The page's own sort, driven as a person would: press the button of the column p50, write the order down.
    probe = """<script>
      const table = document.querySelector("table.sortable");
      const head = [...table.tHead.rows[0].cells].find((cell) => cell.textContent.includes("p50"));
      const read = () => [...table.tBodies[0].rows].map((row) => row.cells[head.cellIndex].dataset.value).join(" ");
      head.querySelector("button").click(); const rising = read();
      head.querySelector("button").click();
      document.body.dataset.order = rising + "|" + read() + "|" + head.getAttribute("aria-sort");
    </script></body>"""
    probed = tmp_path / "probe.html"
    probed.write_text(index.read_text().replace("</body>", probe))
    seen = browse(probed, tmp_path / "chromium-a")
    assert seen.log == ""
    assert 'data-order="0.34 0.77 3.4|3.4 0.77 0.34|descending"' in seen.dom
    device = browse(next(page for page in pages if page.stem.startswith("local")), tmp_path / "chromium-b")
    assert device.log == ""
    assert device.dom.count("<svg") >= 7  # distribution, time and operators of two graphs, quality against latency
