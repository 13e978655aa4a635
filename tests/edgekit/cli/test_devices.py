from __future__ import annotations

import json
from pathlib import Path

import pytest

from edgekit import devices
from edgekit.cli.app import run
from edgekit.devices import bench, calibration, micro_onnx, store
from edgekit_runtime import engines


def test_all_profiles_are_listed_in_lines_of_80_columns(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    assert run(["devices"]) == 0
    shown = capsys.readouterr().out
    assert all(name in shown for name in devices.known())
    assert all(len(line) <= 80 for line in shown.splitlines())


def test_one_profile_shows_every_figure_with_its_source(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "200")
    assert run(["devices", "pi4"]) == 0
    shown = capsys.readouterr().out
    assert "hardware.clock_mhz" in shown
    assert "Raspberry Pi 4 product brief" in shown
    assert "vendor" in shown and "measured" in shown and "derived" in shown


def test_json_has_the_profiles_without_the_measured_points(capsys):
    assert run(["devices", "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert [profile["name"] for profile in document["profiles"]] == list(devices.known())
    assert all("kernels" not in profile for profile in document["profiles"])


@pytest.mark.parametrize("arguments", [["pi9"], ["-o", "somewhere"], ["--engine", "litert"]])
def test_what_does_not_exist_or_fit_together_is_wrong_usage(arguments, capsys):
    assert run(["devices", *arguments]) == 2
    assert "what to do" in capsys.readouterr().err


def test_an_unknown_device_lists_the_known(capsys):
    assert run(["devices", "pi9", "--json"]) == 2
    error = json.loads(capsys.readouterr().out)["error"]
    assert error["kind"] == "usage"
    assert all(name in error["remedy"] for name in devices.known())


def test_a_name_that_is_nearly_one_is_told(capsys):
    assert run(["devices", "Pi4"]) == 2
    assert "what to do: did you mean pi4? one of: local, " in capsys.readouterr().err


def test_a_broken_profile_is_refused_with_its_reason(tmp_path: Path, capsys):
    path = tmp_path / "mine.toml"
    path.write_text('schema = "edgekit.device_profile/1"\ncolour = "red"\n')
    assert run(["devices", str(path)]) == 3
    assert "colour" in capsys.readouterr().err


def test_a_broken_profile_in_the_folder_hides_no_other_device(tmp_path: Path, capsys, monkeypatch):
    (tmp_path / "device_profiles").mkdir()
    (tmp_path / "device_profiles" / "mine.toml").write_text('schema = "edgekit.device_profile/1"\ncolour = "red"\n')
    monkeypatch.chdir(tmp_path)
    assert run(["devices", "--json"]) == 0
    shown = capsys.readouterr()
    document = json.loads(shown.out)
    assert "pi4" in [profile["name"] for profile in document["profiles"]]
    assert list(document["refused"]) == ["mine"] and "colour" in document["refused"]["mine"]
    assert "left out" in shown.err and "colour" in shown.err


def test_a_calibration_is_written_where_asked_and_shown(tmp_path: Path, capsys, monkeypatch):
    if "onnxruntime" not in engines.available():
        pytest.skip("onnxruntime is not installed")
    chosen = [entry for entry in micro_onnx.plan() if entry.sizes == (64, 64, 64)]
    suite = calibration.Suite(".onnx", lambda: chosen, micro_onnx.build)
    monkeypatch.setattr(calibration, "SUITES", {"onnxruntime": suite})
    monkeypatch.setattr(bench, "PASSES", 1)
    # The quantizing helper of this size is not measured here.
    monkeypatch.setattr(
        bench, "points", lambda timed, run: {e.key: (bench.Point(sizes=e.sizes, us=1.0),) for e in timed}
    )
    assert run(["devices", "my-board", "--calibrate", "-o", str(tmp_path), "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert document["written"] == str(tmp_path / "my-board.toml")
    assert document["profiles"][0]["name"] == "my-board"
    assert (tmp_path / "my-board.predictor.json").is_file()
    assert document["profiles"][0]["hardware"]["cores"]["value"] == store.this_machine().cores


def test_nothing_of_another_instruction_set_is_calibrated_here(capsys):
    other = "pi5" if store.this_machine().is_x86 else "n100"
    assert run(["devices", other, "--calibrate"]) == 2
    assert "on the device itself" in capsys.readouterr().err
