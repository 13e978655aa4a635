"""`--json` of every command: one document on stdout with the keys that programs rely on, also when it fails."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

import edgekit
from edgekit.cli.app import COMMANDS, run
from edgekit_runtime.adaptive import ActionCost, Controller, Policy, journal
from edgekit_runtime.manifest import Manifest
from edgekit_runtime.testing import make_bundle, matmul_onnx

pytest.importorskip("onnxruntime")

# What each key holds: None is anything, a dict further keys, a list rows that each have them, EACH every value of an
# object whose keys are names.
EACH = "*"
MEASUREMENT = {
    **dict.fromkeys(("device", "engine", "engine_version", "threads", "precision", "graph", "inputs", "withheld")),
    "latency_ms": dict.fromkeys(("p50", "p90", "p99", "mean", "n", "samples", "interval_95")),
    "open_ms": None,
    "first_ms": None,
    "memory": dict.fromkeys(("file_bytes", "open_bytes", "peak_rss_bytes")),
    "energy": dict.fromkeys(("kind", "mj", "method", "source", "reason")),
    "ops": [dict.fromkeys(("name", "kind", "ms", "macs", "bytes"))],
    "environment": dict.fromkeys(("cpu", "governor", "clock_mhz", "temperature_c", "throttled", "load", "swap")),
    "verdict": dict.fromkeys(("kind", "reasons")),
}
MANIFEST = {
    **dict.fromkeys(("schema", "name", "version", "tool_versions", "inputs", "outputs", "states", "graphs", "files")),
    **dict.fromkeys(("split_points", "exits", "operating_points", "actions", "quality", "calibration")),
}
FORMAT = {
    **dict.fromkeys(("convertible", "int8_macs_fraction", "int8_weight_bytes_fraction")),
    "findings": [dict.fromkeys(("severity", "op", "where", "reason", "remedy"))],
}
POLICY = dict.fromkeys(("mean_ms", "p50_ms", "p95_ms", "deadline_misses", "accuracy_drop", "actions"))
POINT = dict.fromkeys(
    ("id", "graph_chain", "thresholds", "risk", "confidence_level", "n", "empirical_risk", "exit_fractions", "reason")
)
POLICIES = ("adaptive", "oracle", "always_local", "always_offload", "best_fixed", "mean_argmin")

KEYS: dict[str, dict[str, Any]] = {
    "convert": {
        **dict.fromkeys(("bundle", "bundle_id", "seconds")),
        "manifest": MANIFEST,
        "refused": [dict.fromkeys(("format", "precision", "reason"))],
    },
    "check": {"formats": {EACH: FORMAT}},
    "doctor": dict.fromkeys(("engines", "cpu", "sensors", "findings")),
    "inspect": {"manifest": MANIFEST, "measurements": [MEASUREMENT]},
    "verify": {"ok": None, "checks": [dict.fromkeys(("name", "ok", "detail"))]},
    "profile": {"measurements": [MEASUREMENT]},
    "report": dict.fromkeys(("index", "files")),
    "compare": {**dict.fromkeys(("verdict", "ratio", "interval_95")), "runs": [None]},
    "devices": {"profiles": [dict.fromkeys(("name", "title", "hardware"))]},
    "slim": dict.fromkeys(("bundle", "bundle_id", "graph", "why", "left_out", "bytes")),
    "calibrate-exits": {"bundle": None, "bundle_id": None, "operating_points": [POINT]},
    "run": {"outputs": None, "decisions": [None]},
    "plan": {
        "actions": [dict.fromkeys(("id", "kind", "predicted_ms", "bytes_up", "accuracy_drop", "reasons"))],
        "best": [dict.fromkeys(("rtt_ms", "bandwidth_mbps", "device_load", "server_load", "action"))],
        "crossovers": None,
    },
    "why": {"bundle_id": None, "decisions": [dict.fromkeys(("request", "total_ms", "fallback", "action"))]},
    "export-server": dict.fromkeys(("folder", "models", "left_out")),
    "simulate": {**dict.fromkeys(("requests", "lost", "regret_fraction")), "policies": dict.fromkeys(POLICIES, POLICY)},
}
# They run until they are told to end, or for minutes: looked at where they are tested for themselves.
ELSEWHERE = {"agent": "test_profile", "serve": "test_commands", "demo": "make demo"}


def missing(document: Any, wanted: Any, place: str = "") -> Iterator[str]:
    """Every key that a document lacks, and lists without a row, which would show nothing."""
    if wanted is None:
        return
    if isinstance(wanted, list):
        if not document:
            yield f"{place}: no row"
        for number, row in enumerate(document):
            yield from missing(row, wanted[0], f"{place}[{number}]")
        return
    for key, inner in wanted.items():
        for name in list(document) if key == EACH else [key]:
            if name not in document:
                yield f"{place}.{name}"
            else:
                yield from missing(document[name], inner, f"{place}.{name}")


@pytest.fixture(scope="module")
def material(student_files: Path) -> Path:
    """Two classifiers of x [B, 64] of which one was measured, a student in Python, samples, a log of decisions."""
    folder = student_files
    rng = np.random.default_rng(0)
    samples = rng.normal(size=(400, 64)).astype(np.float32)
    weights = rng.normal(size=(64, 8)).astype(np.float32)
    for name, matrix in (("big", weights), ("small", weights + np.float32(0.01))):
        golden = {"golden/inputs.npz": arrays(x=samples[:2]), "golden/onnx.fp32.npz": arrays(y=samples[:2] @ matrix)}
        graph = {"onnx.fp32": matmul_onnx(matrix)}
        make_bundle(folder / f"{name}.edge", weights=matrix, graphs=graph, files=golden, change=counted)
    edgekit.profile(folder / "big.edge", duration_s=0.1)
    (folder / "request.npz").write_bytes(arrays(x=samples[:2]))
    (folder / "samples.npz").write_bytes(arrays(x=samples))
    controller = Controller((ActionCost(id="local", kind="local", head_ms=50, head_sd_ms=2),), Policy())
    writer = journal.Writer(folder / "log.jsonl", controller.actions)
    writer.add(controller.plan(0.0).decision, 0.0, total_ms=50.0)
    writer.close()
    return folder


def arrays(**named: np.ndarray) -> bytes:
    file = io.BytesIO()
    np.savez(file, **named)
    return file.getvalue()


def counted(found: Manifest) -> Manifest:
    """With multiply-accumulates, which a plan reckons with."""
    graphs = (msgspec.structs.replace(graph, macs=512) for graph in found.graphs)
    return msgspec.structs.replace(found, graphs=tuple(graphs))


# Each leaves a list of the table above with rows: a refusal, a finding for each format, a measurement.
ARGUMENTS = {
    "convert": "students.py:tiny --calibration calib.npz --format onnx --metric mse --max-drop 0 -o made.edge",
    "check": "students.py:tiny --calibration calib.npz --keep-float conv*",
    "doctor": "",
    "inspect": "big.edge",
    "verify": "big.edge",
    "profile": "small.edge --duration 0.1",
    "report": "big.edge -o report",
    "compare": "big.edge small.edge --duration 0.1",
    "devices": "",
    "slim": "big.edge --target pi4 -o slim.edge",
    "calibrate-exits": "big.edge --first small.edge --data samples.npz --risk 0.05 -o certified.edge",
    "run": "big.edge --input request.npz",
    "plan": "big.edge --device pi4",
    "why": "log.jsonl",
    "export-server": "big.edge --to triton -o models",
    "simulate": "big.edge --trace rtt=20,mbps=8 --device pi4 --requests 20",
}
# What cannot be done, with the exit code.
FAILING = {
    "convert": ("students.py:nobody -o other.edge", 3),
    "check": ("students.py:nobody", 3),
    "inspect": ("none.edge", 3),
    "verify": ("none.edge", 3),
    "profile": ("none.edge", 3),
    "report": ("none.edge -o report", 3),
    "compare": ("none.edge small.edge", 3),
    "devices": ("pi9", 2),
    "slim": ("big.edge --target pi9 -o slim.edge", 2),
    "calibrate-exits": ("none.edge --data samples.npz -o other.edge", 3),
    "run": ("big.edge --input none.npz", 2),
    "plan": ("none.edge --device pi4", 3),
    "why": ("none.jsonl", 3),
    "export-server": ("none.edge --to triton -o models", 3),
    "simulate": ("big.edge", 2),
    "agent": ("--token-file none.txt", 2),
    "serve": ("none.edge", 3),
    "doctor": ("--nothing", 2),
    "demo": ("--nothing", 2),
}


def test_the_tables_here_know_every_command() -> None:
    assert set(COMMANDS) == {*KEYS, *ELSEWHERE} == set(FAILING)
    assert set(KEYS) == set(ARGUMENTS)


@pytest.mark.parametrize("command", KEYS)
def test_a_command_prints_one_document_with_the_keys_that_programs_rely_on(
    command: str, material: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(material)
    code = run([command, *ARGUMENTS[command].split(), "--json"])
    captured = capsys.readouterr()
    assert code == 0, captured.err
    assert list(missing(json.loads(captured.out), KEYS[command], command)) == []


@pytest.mark.parametrize("command", FAILING)
def test_a_failure_prints_one_document_with_kind_message_and_remedy(
    command: str, material: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(material)
    arguments, code = FAILING[command]
    assert run([command, *arguments.split(), "--json"]) == code
    error = json.loads(capsys.readouterr().out)["error"]
    assert set(error) == {"kind", "message", "remedy"}
    assert error["message"] and error["remedy"]
    assert error["kind"] == ("usage" if code == 2 else "refused")
