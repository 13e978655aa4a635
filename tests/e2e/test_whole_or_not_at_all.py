"""A bundle appears whole or not at all: interruptions, full disks, --force, --pack, failed gates."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

ROOT = Path(__file__).parents[2]
CONVERT = ("convert", "students.py:tiny", "--calibration", "calib.npz", "--format", "onnx", "-o", "out.edge")


def names(work: Path) -> set[str]:
    return {path.name for path in work.iterdir()} - {"__pycache__"}


@pytest.mark.parametrize("step", ["capturing", "exporting fp32", "quantizing", "student on", "verifying onnx.int8"])
def test_an_interruption_at_any_step_leaves_nothing(
    edgekit: Any, work: Path, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    from edgekit.cli.output import Steps

    seen: list[str] = []

    def interrupt(self: Steps, label: str) -> None:
        seen.append(label)
        if step in label:
            raise KeyboardInterrupt

    monkeypatch.setattr(Steps, "advance", interrupt)
    before = names(work)
    done = edgekit(*CONVERT)
    assert step in seen[-1], seen
    assert done.code == 130
    done.says("interrupted", "nothing half-written")
    assert names(work) == before


def test_sigterm_cleans_up_like_ctrl_c(edgekit: Any, work: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from edgekit.cli.output import Steps

    def terminate(self: Steps, label: str) -> None:
        if "exporting" in label:
            assert any(name.startswith(".out.edge.partial") for name in names(work)), "it was at work"
            os.kill(os.getpid(), signal.SIGTERM)

    def ours(number: int, frame: object) -> None:
        raise AssertionError("the handler of before must not be called while a command runs")

    monkeypatch.setattr(Steps, "advance", terminate)
    before, handler = names(work), signal.signal(signal.SIGTERM, ours)
    try:
        done = edgekit(*CONVERT)
        assert signal.getsignal(signal.SIGTERM) is ours, "the handler of before is back"
    finally:
        signal.signal(signal.SIGTERM, handler)
    assert done.code == 143
    done.says("nothing half-written")
    assert names(work) == before


@pytest.mark.slow
@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_an_interrupted_process_leaves_nothing(work: Path, number: signal.Signals, code: int) -> None:
    paths = os.pathsep.join(str(ROOT / name) for name in (".", "runtime", "converters"))
    process = subprocess.Popen(
        [sys.executable, "-m", "edgekit", *CONVERT],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": paths},
    )
    before = names(work)
    assert process.stderr is not None
    try:
        for line in process.stderr:
            if "quantizing" in line:
                break
        assert any(name.startswith(".out.edge.partial") for name in names(work)), "it was at work"
        process.send_signal(number)
        rest = process.stderr.read()
        assert process.wait(timeout=60) == code, rest
    finally:
        process.kill()
        process.wait()
        process.stderr.close()
    assert "nothing half-written" in rest
    assert names(work) - before == set()


def test_a_full_disk_is_told_and_leaves_nothing(edgekit: Any, work: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from edgekit_converters.staging import Staging

    def full(self: Staging, manifest: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Staging, "write_manifest", full)
    before = names(work)
    done = edgekit(*CONVERT, "--quiet")
    assert done.code == 3
    done.says("no disk space left", "free some space")
    assert names(work) == before


def test_a_bundle_that_exists_is_kept_without_force(edgekit: Any, bundle: Path) -> None:
    before = (bundle / "manifest.json").read_bytes()
    done = edgekit(*CONVERT[:-1], "tiny.edge", "--quiet")
    assert done.code == 2
    done.says("tiny.edge exists", "--force")
    assert (bundle / "manifest.json").read_bytes() == before


def test_force_replaces_a_bundle_only_when_the_new_one_is_whole(edgekit: Any, bundle: Path, work: Path) -> None:
    before, there = (bundle / "manifest.json").read_bytes(), names(work)
    done = edgekit("convert", "students.py:broken", *CONVERT[2:-1], "tiny.edge", "--force", "--quiet")
    assert done.code == 3
    assert (bundle / "manifest.json").read_bytes() == before
    done = edgekit("convert", "students.py:five", *CONVERT[2:-1], "tiny.edge", "--force", "--quiet")
    assert done.code == 0, done.err
    assert (bundle / "manifest.json").read_bytes() != before
    assert names(work) == there
    assert edgekit("verify", "tiny.edge", "--quiet").code == 0


def test_force_never_replaces_what_is_no_bundle(edgekit: Any, work: Path) -> None:
    (work / "out.edge").mkdir()
    (work / "out.edge" / "thesis.txt").write_text("years of work", encoding="utf-8")
    done = edgekit(*CONVERT, "--force", "--quiet")
    assert done.code == 2
    done.says("no bundle")
    assert (work / "out.edge" / "thesis.txt").read_text(encoding="utf-8") == "years of work"


def test_another_suffix_is_wrong_usage(edgekit: Any, work: Path) -> None:
    done = edgekit(*CONVERT[:-1], "out.zip")
    assert done.code == 2
    done.says("-o out.zip: a bundle's name ends with .edge", "what to do: -o out.edge")


def test_pack_writes_one_file_with_the_identity_of_the_folder(edgekit: Any, work: Path) -> None:
    folder = edgekit(*CONVERT, "--json", "--quiet")
    there = names(work)
    packed = edgekit(*CONVERT, "--pack", "--force", "--json", "--quiet")
    assert folder.code == packed.code == 0, packed.err
    assert (work / "out.edge").is_file()
    assert names(work) == there
    assert packed.document["bundle_id"] == folder.document["bundle_id"]
    assert edgekit("verify", "out.edge", "--quiet").code == 0
    np.savez(work / "request.npz", image=np.zeros((2, 1, 8, 8), np.float32))
    ran = edgekit("run", "out.edge", "--input", "request.npz", "--json")
    assert np.asarray(ran.document["outputs"]["scores"]).shape == (2, 4)


def test_int8_that_fails_the_gate_ends_with_four_and_leaves_nothing(edgekit: Any, work: Path) -> None:
    before = names(work)
    done = edgekit(*CONVERT, "--precision", "int8", "--metric", "mse", "--max-drop", "0", "--quiet", "--json")
    assert done.code == 4, done.err
    assert done.document["error"]["kind"] == "gate_failed"
    assert "mse" in done.document["error"]["message"]
    assert names(work) == before


def test_auto_ships_fp32_where_int8_fails_the_gate_and_says_why(edgekit: Any, work: Path) -> None:
    done = edgekit(*CONVERT, "--metric", "mse", "--max-drop", "0", "--quiet", "--json")
    assert done.code == 0, done.err
    manifest = done.document["manifest"]
    assert [graph["id"] for graph in manifest["graphs"] if graph["role"] == "full"] == ["onnx.fp32"]
    (refusal,) = done.document["refused"]
    assert (refusal["format"], refusal["precision"]) == ("onnx", "int8")
    assert "drop" in refusal["reason"]


def test_json_output_of_convert_holds_what_the_contract_names(edgekit: Any, work: Path) -> None:
    done = edgekit(*CONVERT, "--json")
    assert done.code == 0
    assert {"bundle", "bundle_id", "seconds", "manifest", "refused"} <= set(done.document)
    assert "capturing" in done.err, "progress goes to stderr"


def test_conversion_leaves_a_clock_out_of_the_bundle(edgekit: Any, work: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SOURCE_DATE_EPOCH", raising=False)
    first = edgekit(*CONVERT, "--json", "--quiet").document
    time.sleep(0.01)
    second = edgekit(*CONVERT, "--json", "--quiet", "--force").document
    assert first["manifest"]["created"] is None
    assert first["bundle_id"] == second["bundle_id"]
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "0")
    dated = edgekit(*CONVERT, "--json", "--quiet", "--force").document
    assert dated["manifest"]["created"] == "1970-01-01T00:00:00+00:00"


def test_a_target_below_a_file_is_refused(edgekit: Any, work: Path) -> None:
    done = edgekit(*CONVERT[:-1], "calib.npz/out.edge", "--quiet")
    assert done.code in (2, 3), done.err
    done.says("calib.npz")


def test_a_conversion_that_fails_leaves_no_new_folders_above_its_target(edgekit: Any, work: Path) -> None:
    before = names(work)
    done = edgekit("convert", "students.py:broken", *CONVERT[2:-1], "new/deeper/out.edge", "--quiet")
    assert done.code == 3
    assert names(work) == before


def test_the_outputs_of_run_cannot_take_the_place_of_a_folder(edgekit: Any, bundle: Path, work: Path) -> None:
    (work / "taken").mkdir()
    np.savez(work / "request.npz", image=np.zeros((1, 1, 8, 8), np.float32))
    done = edgekit("run", "tiny.edge", "--input", "request.npz", "-o", "taken")
    assert done.code == 2
    done.says("taken", "what to do:")
    assert names(work) >= {"taken"}
    assert not list(work.glob(".taken*"))
