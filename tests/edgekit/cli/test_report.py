from __future__ import annotations

import json
from pathlib import Path

import pytest

import edgekit
from edgekit.cli.app import run

pytest.importorskip("jinja2")


def test_a_report_over_a_profiled_bundle(tiny: Path, tmp_path: Path, capsys):
    edgekit.profile(tiny, graph="onnx.fp32", duration_s=0.1)
    assert run(["report", str(tiny), "-o", str(tmp_path / "out"), "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert Path(document["index"]).exists()
    assert len(document["files"]) == 5


def test_a_bundle_without_measurements_says_how_to_get_some(tiny: Path, tmp_path: Path, capsys):
    assert run(["report", str(tiny), "-o", str(tmp_path / "out")]) == 2
    assert "edgekit profile" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
