"""The demo's predictions for devices that are not at hand."""

from __future__ import annotations

import io
from pathlib import Path

import msgspec
import pytest
from rich.console import Console

from edgekit import devices
from edgekit.cli.demo_tables import elsewhere_plain, elsewhere_told
from edgekit.demo.elsewhere import DEVICES, predict_elsewhere
from edgekit.devices.micro import Micro
from edgekit.devices.micro_onnx import build
from edgekit.report.write import write_report
from edgekit_runtime import open_bundle
from edgekit_runtime.bundle import Bundle
from edgekit_runtime.manifest import Manifest, Tensor
from edgekit_runtime.testing import make_bundle

ROWS, INNER, COLUMNS = 64, 256, 256


def as_the_files_are(found: Manifest) -> Manifest:
    """Both graphs take and give what `micro_onnx` writes; the manifest says which is int8."""
    graphs = []
    for graph in found.graphs:
        dtype = "uint8" if graph.id.endswith("int8") else "float32"
        taken = Tensor(name="x", dtype=dtype, shape=(ROWS, INNER))
        graphs.append(msgspec.structs.replace(graph, inputs=(taken,), precision=graph.id.split(".")[-1]))
    return msgspec.structs.replace(found, graphs=tuple(graphs))


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    pytest.importorskip("onnxruntime")
    kernels = {
        f"onnx.{'int8' if int8 else 'fp32'}": build(Micro("dense", "MatMul", int8, (ROWS, INNER, COLUMNS), 2))
        for int8 in (False, True)
    }
    folder = tmp_path_factory.mktemp("elsewhere") / "tiny.edge"
    return open_bundle(make_bundle(folder, graphs=kernels, change=as_the_files_are))


def test_every_device_of_the_demo_is_predicted_and_says_so(bundle: Bundle) -> None:
    found = predict_elsewhere(bundle)
    assert [there.device for there in found] == list(DEVICES)
    for there in found:
        assert [document.graph for document in there.documents] == ["onnx.fp32", "onnx.int8"]
        assert all(document.predicted and document.latency_ms.interval_95 for document in there.documents)
        (advice,) = there.advice
        assert "predicted, not measured" in advice.because
    assert {row.device for row in bundle.measurements()} == set(DEVICES)


def test_the_tables_and_the_report_mark_them_as_predicted(bundle: Bundle, tmp_path: Path) -> None:
    found = predict_elsewhere(bundle)
    shown = io.StringIO()
    elsewhere_told(Console(file=shown, width=80), found)
    text = shown.getvalue()
    assert "predicted, not measured" in text
    assert all(f"int8 pays on {name}, onnxruntime:" in text for name in DEVICES)
    told = [line for line in text.splitlines() if line.startswith("int8 pays on")]
    assert len(told) == len(DEVICES) and all(", because it is " in line for line in told)
    assert " ".join(text.split()).count(" as fast [") == len(DEVICES)
    assert all(line["predicted"] for there in found for line in elsewhere_plain(there)["lines"])
    write_report([bundle], tmp_path)
    for name in DEVICES:
        page = (tmp_path / "devices" / f"{name}.html").read_text()
        assert "predicted" in page


def test_a_device_without_the_engine_says_why_it_has_no_row(bundle: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    pi4 = devices.load("pi4")
    bare = msgspec.structs.replace(pi4, engines=msgspec.structs.replace(pi4.engines, value=("litert",)))
    monkeypatch.setattr(devices, "load", lambda name: bare)
    (there,) = predict_elsewhere(bundle, ["pi4"])
    assert there.documents == () and there.advice == ()
    assert there.refused[0] == "onnx.fp32: onnxruntime is no engine of pi4"
